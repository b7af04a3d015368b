//! Why a request failed ([`ErrorCode`]) and why a connection ends ([`CloseCode`]).

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal, retry: $retry:literal;)*) => {
        /// Why a request failed, in an error envelope.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)*
        }

        impl ErrorCode {
            /// All codes of this version, in the order of the protocol's page.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The code's text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            pub fn retry(self) -> bool {
                match self { $(Self::$variant => $retry,)* }
            }

            /// The code with this text; a text of a later version is [`ErrorCode::Other`].
            pub fn from_text(text: &str) -> Self {
                match text { $($text => Self::$variant,)* _ => Self::Other }
            }
        }
    };
}

error_codes! {
    /// The request contradicts the protocol, itself or the state.
    BadRequest = "bad_request", retry: false;
    /// This node knows no such operation.
    UnknownOperation = "unknown_operation", retry: false;
    /// Another request came before `connect`.
    NotConnected = "not_connected", retry: false;
    /// No, a bad or an expired token.
    Unauthorized = "unauthorized", retry: false;
    /// The user may not do this.
    Forbidden = "forbidden", retry: false;
    /// The user is not a member of the conversation.
    NotAMember = "not_a_member", retry: false;
    /// The other user has blocked this one.
    Blocked = "blocked", retry: false;
    /// There is no such thing.
    NotFound = "not_found", retry: false;
    /// There is one already.
    AlreadyExists = "already_exists", retry: false;
    /// The client id names another request.
    ClientIdReused = "client_id_reused", retry: false;
    /// A published limit would be passed.
    TooLarge = "too_large", retry: false;
    /// Too many requests of this kind; wait `retry_after_ms`.
    RateLimited = "rate_limited", retry: true;
    /// The node has too much to do.
    Overloaded = "overloaded", retry: true;
    /// No leader can be reached now; nothing was done.
    NotAvailable = "not_available", retry: true;
    /// No answer in time: the outcome is unknown.
    DeadlineExceeded = "deadline_exceeded", retry: true;
    /// The node failed at this request: the outcome is unknown.
    Internal = "internal", retry: true;
    /// A code of a later version. A node never sends it.
    Other = "other", retry: false;
}

impl ErrorCode {
    /// Whether the request may have taken effect all the same.
    pub fn outcome_unknown(self) -> bool {
        matches!(self, Self::DeadlineExceeded | Self::Internal | Self::Other)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ErrorCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ErrorCode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = compact_str::CompactString::deserialize(deserializer)?;
        Ok(Self::from_text(&text))
    }
}

macro_rules! close_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal, reconnect: $reconnect:literal;)*) => {
        /// Why a connection ends: the WebSocket close code, and the QUIC application error code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[$doc])* $variant,)*
        }

        impl CloseCode {
            /// All codes of this version.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The number on the wire; the same on WebSocket and QUIC.
            pub fn number(self) -> u16 {
                match self { $(Self::$variant => $number,)* }
            }

            /// The code's text, in the `closing` push.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Whether the client should connect again.
            pub fn reconnect(self) -> bool {
                match self { $(Self::$variant => $reconnect,)* }
            }

            /// The code with this text.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

close_codes! {
    /// The node stops; another one will do.
    ShuttingDown = 4000, "shutting_down", reconnect: true;
    /// No, a bad or an expired token.
    Unauthorized = 4001, "unauthorized", reconnect: false;
    /// The same device connected elsewhere.
    Replaced = 4002, "replaced", reconnect: false;
    /// A frame was longer than the limit.
    FrameTooLarge = 4003, "frame_too_large", reconnect: false;
    /// A frame was no envelope.
    BadFrame = 4003, "bad_frame", reconnect: false;
    /// The client did not read what was sent.
    TooSlow = 4004, "too_slow", reconnect: true;
    /// The client was silent, or its first request did not come.
    Idle = 4004, "idle", reconnect: true;
    /// The node has too much to do; wait before connecting again.
    Overloaded = 4005, "overloaded", reconnect: true;
}

impl CloseCode {
    /// A code with this number; where two share one, the first of them. All that share a number
    /// agree on [`CloseCode::reconnect`].
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| u64::from(code.number()) == number)
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
