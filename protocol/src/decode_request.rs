//! From a frame's bytes to a [`Request`], or to the answer that it deserves.
//!
//! A request that cannot be carried out still has an id, and its client waits for an answer: so
//! this decoder reads the whole envelope first and judges the fields afterwards, by name. Messages
//! name fields and kinds, never what was sent.

use std::borrow::Cow;
use std::fmt;

use compact_str::CompactString;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::body::Body;
use crate::code::ErrorCode;
use crate::limits::{
    MAX_CONTENT_TYPE_BYTES, MAX_ID_BYTES, MAX_NAME_BYTES, MAX_TOKEN_BYTES, MAX_USERS_PER_REQUEST,
};
use crate::model::{ConversationKind, Device, DeviceKind, Retention};
use crate::reply::{ErrorBody, ServerFrame};
use crate::request::{
    Ack, ChangeMembers, Connect, Conversations, CreateConversation, Edit, History, Leave, MarkRead,
    Operation, OperationKind, Ping, Pull, QueryPresence, Recall, Request, SendMessage, Target,
    Token, Typing,
};
use crate::value::{Budget, KeySeed, Value, ValueSeed, no_object, skip_value};

/// Why bytes are no request that could be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// They are no envelope with an id: the connection ends with `bad_frame`.
    #[error("bad frame: {0}")]
    BadFrame(&'static str),
    /// They are an envelope; its request is answered with this error, and the connection goes on.
    #[error("{code}: {message}")]
    Refused {
        /// The request's id.
        id: u64,
        /// What it asks for, if that is known and one thing.
        operation: Option<OperationKind>,
        /// `bad_request`, `too_large` or `unknown_operation`.
        code: ErrorCode,
        /// Which field, and what is wrong with it.
        message: String,
    },
}

impl RequestError {
    /// The error envelope to answer with; none for a frame that has no id.
    pub fn into_frame(self) -> Option<ServerFrame> {
        match self {
            Self::BadFrame(_) => None,
            Self::Refused { id, code, message, .. } => {
                Some(ServerFrame::Error { id, error: ErrorBody::new(code, message) })
            }
        }
    }
}

/// Reads an envelope's fields; the caller checks that nothing follows.
pub(crate) struct EnvelopeSeed;

/// An envelope whose fields nobody has judged.
pub(crate) struct Envelope<'de> {
    id: Option<u64>,
    operation: Option<(OperationKind, Value<'de>)>,
    /// The first key that is neither `id` nor an operation.
    unknown: Option<Cow<'de, str>>,
    operations: usize,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed {
    type Value = Envelope<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Envelope<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed {
    type Value = Envelope<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an envelope")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut budget = Budget::new();
        let mut envelope = Envelope { id: None, operation: None, unknown: None, operations: 0 };
        while let Some(key) = map.next_key_seed(KeySeed)? {
            if key == "id" {
                envelope.id = match map.next_value_seed(ValueSeed::new(&mut budget))? {
                    Value::Unsigned(id) => Some(id),
                    _ => None,
                };
            } else if let Some(kind) = OperationKind::from_text(&key) {
                let value = map.next_value_seed(ValueSeed::new(&mut budget))?;
                envelope.operation = Some((kind, value));
                envelope.operations += 1;
            } else {
                skip_value(&mut map)?;
                envelope.unknown.get_or_insert(key);
            }
        }
        Ok(envelope)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _seq: A) -> Result<Envelope<'de>, A::Error> {
        Err(no_object())
    }
}

impl Envelope<'_> {
    /// Judges the fields.
    pub(crate) fn into_request(self) -> Result<Request, RequestError> {
        let id =
            self.id.ok_or(RequestError::BadFrame("`id` is missing or not an unsigned integer"))?;
        let operation = self.operation.as_ref().map(|(kind, _)| *kind);
        let operation = operation.filter(|_| self.operations == 1);
        let refused = |code, message| RequestError::Refused { id, operation, code, message };
        if self.operations > 1 {
            return Err(refused(ErrorCode::BadRequest, "more than one operation".to_owned()));
        }
        match (self.operation, self.unknown) {
            (Some((kind, value)), _) => {
                let operation = self::operation(kind, value)
                    .map_err(|Refusal { code, message }| refused(code, message))?;
                Ok(Request { id, operation })
            }
            (None, Some(name)) => {
                let name: String = name.chars().filter(|c| !c.is_control()).take(32).collect();
                Err(refused(ErrorCode::UnknownOperation, format!("unknown operation `{name}`")))
            }
            (None, None) => Err(refused(ErrorCode::BadRequest, "no operation".to_owned())),
        }
    }
}

/// What is wrong with a field.
struct Refusal {
    code: ErrorCode,
    message: String,
}

impl Refusal {
    fn bad(name: &str, what: &str) -> Self {
        Self { code: ErrorCode::BadRequest, message: format!("`{name}` {what}") }
    }

    fn missing(name: &str) -> Self {
        Self::bad(name, "is missing")
    }

    fn too_large(name: &str, most: usize, unit: &str) -> Self {
        Self { code: ErrorCode::TooLarge, message: format!("`{name}` has more than {most} {unit}") }
    }
}

/// An operation's fields, taken out one by one.
struct Fields<'de>(Vec<(Cow<'de, str>, Value<'de>)>);

impl<'de> Fields<'de> {
    fn new(name: &str, value: Value<'de>) -> Result<Self, Refusal> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            Value::Null => Ok(Self(Vec::new())),
            Value::Other => Err(Refusal::bad(name, "is not an object, or has too many values")),
            _ => Err(Refusal::bad(name, "is not an object")),
        }
    }

    /// The field's value; null counts as absent. Of a repeated field the last one counts.
    fn take(&mut self, name: &str) -> Option<Value<'de>> {
        let place = self.0.iter().rposition(|(key, _)| key == name)?;
        match self.0.swap_remove(place).1 {
            Value::Null => None,
            value => Some(value),
        }
    }

    fn text(&mut self, name: &str, most: usize) -> Result<Option<Cow<'de, str>>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Text(text)) if text.len() <= most => Ok(Some(text)),
            Some(Value::Text(_)) => Err(Refusal::too_large(name, most, "bytes")),
            Some(_) => Err(Refusal::bad(name, "is not a text")),
        }
    }

    fn optional_id(&mut self, name: &str) -> Result<Option<CompactString>, Refusal> {
        self.take(name).map(|value| id(name, value)).transpose()
    }

    fn id(&mut self, name: &str) -> Result<CompactString, Refusal> {
        self.optional_id(name)?.ok_or_else(|| Refusal::missing(name))
    }

    fn ids(&mut self, name: &str) -> Result<Vec<CompactString>, Refusal> {
        match self.take(name) {
            None => Err(Refusal::missing(name)),
            Some(Value::List(values)) if values.len() > MAX_USERS_PER_REQUEST => {
                Err(Refusal::too_large(name, MAX_USERS_PER_REQUEST, "elements"))
            }
            Some(Value::List(values)) => values.into_iter().map(|value| id(name, value)).collect(),
            Some(Value::Other) => Err(Refusal::bad(name, "is not a list, or has too many values")),
            Some(_) => Err(Refusal::bad(name, "is not a list")),
        }
    }

    fn optional_u64(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(value)),
            Some(_) => Err(Refusal::bad(name, "is not an unsigned integer")),
        }
    }

    fn u64(&mut self, name: &str) -> Result<u64, Refusal> {
        self.optional_u64(name)?.ok_or_else(|| Refusal::missing(name))
    }

    /// A count: what passes 32 bits is as good as the largest.
    fn optional_u32(&mut self, name: &str) -> Result<Option<u32>, Refusal> {
        let value = self.optional_u64(name)?;
        Ok(value.map(|value| u32::try_from(value).unwrap_or(u32::MAX)))
    }

    fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(Refusal::bad(name, "is not a boolean")),
        }
    }

    /// One of a closed list of texts.
    fn word<T>(&mut self, name: &str, from_text: fn(&str) -> Option<T>) -> Result<T, Refusal> {
        match self.take(name) {
            None => Err(Refusal::missing(name)),
            Some(Value::Text(text)) => {
                from_text(&text).ok_or_else(|| Refusal::bad(name, "is none of its values"))
            }
            Some(_) => Err(Refusal::bad(name, "is not a text")),
        }
    }

    fn body(&mut self) -> Result<Body, Refusal> {
        match (self.take("body"), self.take("body_base64")) {
            (Some(Value::Text(text)), None) => Ok(match text {
                Cow::Borrowed(text) => text.into(),
                Cow::Owned(text) => text.into(),
            }),
            (Some(Value::Binary(bytes)), None) => Ok(bytes.into_owned().into()),
            (None, Some(Value::Text(text))) => Body::from_base64(text.as_bytes())
                .ok_or_else(|| Refusal::bad("body_base64", "is not base64")),
            (Some(_), None) => Err(Refusal::bad("body", "is neither text nor binary")),
            (None, Some(_)) => Err(Refusal::bad("body_base64", "is not a text")),
            (Some(_), Some(_)) => Err(Refusal::bad("body", "and `body_base64` exclude each other")),
            (None, None) => Err(Refusal::missing("body")),
        }
    }

    fn target(&mut self) -> Result<Target, Refusal> {
        match (self.optional_id("conversation")?, self.optional_id("to")?) {
            (Some(conversation), None) => Ok(Target::Conversation(conversation)),
            (None, Some(user)) => Ok(Target::User(user)),
            (Some(_), Some(_)) => Err(Refusal::bad("conversation", "and `to` exclude each other")),
            (None, None) => Err(Refusal::bad("conversation", "or `to` is missing")),
        }
    }

    fn device(&mut self) -> Result<Device, Refusal> {
        let value = self.take("device").ok_or_else(|| Refusal::missing("device"))?;
        let mut fields = Fields::new("device", value)?;
        let id = fields.take("id").ok_or_else(|| Refusal::missing("device.id"))?;
        Ok(Device {
            id: self::id("device.id", id)?,
            kind: match fields.take("kind") {
                None => return Err(Refusal::missing("device.kind")),
                Some(Value::Text(text)) => DeviceKind::from_text(&text)
                    .ok_or_else(|| Refusal::bad("device.kind", "is none of its values"))?,
                Some(_) => return Err(Refusal::bad("device.kind", "is not a text")),
            },
        })
    }

    fn retention(&mut self) -> Result<Option<Retention>, Refusal> {
        let unknown = || Refusal::bad("retention", "is none of its values");
        match self.take("retention") {
            None => Ok(None),
            Some(Value::Text(text)) => Retention::from_text(&text).map(Some).ok_or_else(unknown),
            Some(value @ Value::Object(_)) => {
                let ttl_ms = Fields::new("retention", value)?.u64("ttl_ms")?;
                Ok(Some(Retention::Ttl { ttl_ms }))
            }
            Some(_) => Err(unknown()),
        }
    }
}

fn id(name: &str, value: Value<'_>) -> Result<CompactString, Refusal> {
    match value {
        Value::Text(text) if (1..=MAX_ID_BYTES).contains(&text.len()) => Ok(text.into()),
        Value::Text(_) => Err(Refusal::bad(name, &format!("has not 1 to {MAX_ID_BYTES} bytes"))),
        _ => Err(Refusal::bad(name, "is not a text")),
    }
}

fn operation(kind: OperationKind, value: Value<'_>) -> Result<Operation, Refusal> {
    let mut fields = Fields::new(kind.as_str(), value)?;
    let f = &mut fields;
    Ok(match kind {
        OperationKind::Connect => Operation::Connect(connect(f)?),
        OperationKind::Send => Operation::Send(send(f)?),
        OperationKind::Pull => Operation::Pull(Pull {
            after: f.u64("after")?,
            limit: f.optional_u32("limit")?,
            linearizable: f.flag("linearizable")?,
            applied: f.optional_u64("applied")?,
        }),
        OperationKind::Ack => Operation::Ack(Ack { seq: f.u64("seq")? }),
        OperationKind::History => Operation::History(history(f)?),
        OperationKind::Read => {
            Operation::Read(MarkRead { conversation: f.id("conversation")?, seq: f.u64("seq")? })
        }
        OperationKind::Edit => Operation::Edit(Edit {
            conversation: f.id("conversation")?,
            seq: f.u64("seq")?,
            client_id: f.id("client_id")?,
            body: f.body()?,
        }),
        OperationKind::Recall => Operation::Recall(Recall {
            conversation: f.id("conversation")?,
            seq: f.u64("seq")?,
            client_id: f.id("client_id")?,
        }),
        OperationKind::Typing => Operation::Typing(Typing { conversation: f.id("conversation")? }),
        OperationKind::Conversations => Operation::Conversations(Conversations {
            after: f.optional_id("after")?,
            limit: f.optional_u32("limit")?,
            applied: f.optional_u64("applied")?,
        }),
        OperationKind::CreateConversation => Operation::CreateConversation(create(f)?),
        OperationKind::AddMembers => Operation::AddMembers(change_members(f)?),
        OperationKind::RemoveMembers => Operation::RemoveMembers(change_members(f)?),
        OperationKind::Leave => Operation::Leave(Leave { conversation: f.id("conversation")? }),
        OperationKind::Presence => Operation::Presence(QueryPresence { users: f.ids("users")? }),
        OperationKind::Ping => Operation::Ping(Ping {}),
    })
}

fn connect(f: &mut Fields<'_>) -> Result<Connect, Refusal> {
    let token = f.text("token", MAX_TOKEN_BYTES)?.ok_or_else(|| Refusal::missing("token"))?;
    Ok(Connect {
        token: Token::from(token.into_owned()),
        device: f.device()?,
        after: f.optional_u64("after")?,
        window: f.optional_u32("window")?,
        applied: f.optional_u64("applied")?,
    })
}

fn send(f: &mut Fields<'_>) -> Result<SendMessage, Refusal> {
    Ok(SendMessage {
        target: f.target()?,
        client_id: f.id("client_id")?,
        body: f.body()?,
        content_type: f.text("content_type", MAX_CONTENT_TYPE_BYTES)?.map(CompactString::from),
        ttl_ms: f.optional_u64("ttl_ms")?,
    })
}

fn history(f: &mut Fields<'_>) -> Result<History, Refusal> {
    let history = History {
        conversation: f.id("conversation")?,
        before: f.optional_u64("before")?,
        after: f.optional_u64("after")?,
        limit: f.optional_u32("limit")?,
        applied: f.optional_u64("applied")?,
    };
    if history.before.is_some() && history.after.is_some() {
        return Err(Refusal::bad("before", "and `after` exclude each other"));
    }
    Ok(history)
}

fn create(f: &mut Fields<'_>) -> Result<CreateConversation, Refusal> {
    Ok(CreateConversation {
        kind: f.word("kind", ConversationKind::from_text)?,
        members: f.ids("members")?,
        name: f.text("name", MAX_NAME_BYTES)?.map(CompactString::from),
        retention: f.retention()?,
        client_id: f.id("client_id")?,
    })
}

fn change_members(f: &mut Fields<'_>) -> Result<ChangeMembers, Refusal> {
    Ok(ChangeMembers { conversation: f.id("conversation")?, members: f.ids("members")? })
}
