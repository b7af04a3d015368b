//! A message body: bytes, shown as text wherever they are UTF-8.
//!
//! In JSON a body that is not UTF-8 has another field name, `body_base64`. So a body is not a
//! `serde` value of its own: the types that hold one write its field through [`Body::field`].

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::{Serialize, Serializer};

/// Standard alphabet, written with padding, read with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A message's body. `Debug` shows its length only, so that no log shows a body.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Body(Bytes);

impl Body {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without copying them.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The text, if the bytes are UTF-8.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads base64, with or without padding.
    pub(crate) fn from_base64(text: &[u8]) -> Option<Self> {
        BASE64.decode(text).ok().map(Self::from)
    }

    /// The field's name and value in a format that is (JSON) or is not (MessagePack) text.
    pub(crate) fn field(&self, text_format: bool) -> (&'static str, BodyField<'_>) {
        match self.text() {
            Some(text) => ("body", BodyField::Text(text)),
            None if text_format => ("body_base64", BodyField::Base64(&self.0)),
            None => ("body", BodyField::Binary(&self.0)),
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Body {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} bytes)", self.0.len())
    }
}

/// A body on its way into an encoder.
pub(crate) enum BodyField<'a> {
    Text(&'a str),
    Binary(&'a [u8]),
    Base64(&'a [u8]),
}

impl Serialize for BodyField<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Binary(bytes) => serializer.serialize_bytes(bytes),
            Self::Base64(bytes) => serializer.serialize_str(&BASE64.encode(bytes)),
        }
    }
}
