//! A request's fields as they were sent, before anybody knows whether they are right.
//!
//! Borrowed from the frame and bounded: past [`MAX_REQUEST_VALUES`] values, or deeper than any
//! request needs, the rest is read over and stands as [`Value::Other`]. So a frame costs the
//! decoder little more memory than its own length, whatever it says.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::limits::MAX_REQUEST_VALUES;

/// Levels below an operation's object: a field, and the fields of a field.
const KEPT_LEVELS: u8 = 3;

/// One value of a request.
pub(crate) enum Value<'de> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Text(Cow<'de, str>),
    Binary(Cow<'de, [u8]>),
    List(Vec<Value<'de>>),
    Object(Vec<(Cow<'de, str>, Value<'de>)>),
    /// Anything else: negative or fractional numbers, extensions, what is too deep or too much.
    Other,
}

/// How much of one request may still be kept.
pub(crate) struct Budget(usize);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(MAX_REQUEST_VALUES)
    }
}

/// Reads a value of an operation.
pub(crate) struct ValueSeed<'b> {
    budget: &'b mut Budget,
    levels: u8,
}

impl<'b> ValueSeed<'b> {
    pub(crate) fn new(budget: &'b mut Budget) -> Self {
        Self { budget, levels: KEPT_LEVELS }
    }

    /// Takes one value from the budget; `None` when it is used up.
    fn child(&mut self) -> Option<ValueSeed<'_>> {
        self.budget.0 = self.budget.0.checked_sub(1)?;
        let levels = self.levels.checked_sub(1)?;
        Some(ValueSeed { budget: self.budget, levels })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Unsigned(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Value<'de>, E> {
        // MessagePack writers may store a small positive number in a signed type.
        Ok(u64::try_from(value).map_or(Value::Other, Value::Unsigned))
    }
    fn visit_f64<E>(self, _value: f64) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }
    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }
    fn visit_string<E>(self, text: String) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Owned(text)))
    }
    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Value<'de>, E> {
        Ok(Value::Binary(Cow::Borrowed(bytes)))
    }
    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value<'de>, E> {
        Ok(Value::Binary(Cow::Owned(bytes.to_vec())))
    }
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Value<'de>, D::Error> {
        inner.deserialize_ignored_any(IgnoredAny)?;
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let mut values = Vec::new();
        while let Some(child) = self.child() {
            match seq.next_element_seed(child)? {
                Some(value) => values.push(value),
                None => return Ok(Value::List(values)),
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Value<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(child) = self.child() {
            match map.next_key_seed(KeySeed)? {
                Some(key) => fields.push((key, map.next_value_seed(child)?)),
                None => return Ok(Value::Object(fields)),
            }
        }
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}

/// Reads an object's key. A MessagePack key that is no text reads as the empty one, which names
/// nothing.
pub(crate) struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        let mut budget = Budget(0);
        let seed = ValueSeed { budget: &mut budget, levels: 0 };
        Ok(match seed.deserialize(deserializer)? {
            Value::Text(text) => text,
            Value::Binary(Cow::Borrowed(bytes)) => {
                std::str::from_utf8(bytes).map_or(Cow::Borrowed(""), Cow::Borrowed)
            }
            _ => Cow::Borrowed(""),
        })
    }
}

/// Reads over a value, however it is made.
pub(crate) fn skip_value<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// Says that the top level is no object.
pub(crate) fn no_object<E: de::Error>() -> E {
    E::custom("an envelope is an object")
}
