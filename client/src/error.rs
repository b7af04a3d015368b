//! Why a call has no result, and why a connection ended.

use std::fmt;
use std::time::Duration;

use roost_protocol::reply::Closing;
use roost_protocol::{CloseCode, ErrorBody, ErrorCode};

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseReason {
    /// The node's code, if it gave one that this version knows.
    pub code: Option<CloseCode>,
    /// The same for people.
    pub message: String,
    /// Whether connecting again makes sense. True also where the network failed.
    pub reconnect: bool,
    /// How long to wait before, if the node said so.
    pub retry_after: Option<Duration>,
}

impl CloseReason {
    /// The transport failed, without a word of the node.
    pub(crate) fn lost(message: impl Into<String>) -> Self {
        Self { code: None, message: message.into(), reconnect: true, retry_after: None }
    }

    /// This side closed.
    pub(crate) fn local() -> Self {
        Self { code: None, message: "closed".into(), reconnect: false, retry_after: None }
    }

    /// The transport's close code: WebSocket's, or QUIC's application error code.
    pub(crate) fn from_number(number: u64, message: &str) -> Self {
        match CloseCode::from_number(number) {
            Some(code) => Self {
                code: Some(code),
                message: if message.is_empty() { code.as_str().into() } else { message.into() },
                reconnect: code.reconnect(),
                retry_after: None,
            },
            None => Self::lost(format!("closed with code {number}")),
        }
    }
}

impl From<&Closing> for CloseReason {
    fn from(closing: &Closing) -> Self {
        Self {
            code: CloseCode::from_text(&closing.code),
            message: closing.message.clone(),
            reconnect: closing.reconnect,
            retry_after: closing.retry_after_ms.map(Duration::from_millis),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{code}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The node answered with an error.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(ErrorBody),
    /// No answer by the deadline: the outcome is unknown.
    #[error("no answer in time; the outcome is unknown")]
    DeadlineExceeded,
    /// The connection ended before the answer: the outcome is unknown.
    #[error("the connection ended before the answer ({0}); the outcome is unknown")]
    Lost(CloseReason),
    /// The connection had ended before the request was sent: it has no effect.
    #[error("not connected: {0}")]
    Closed(CloseReason),
    /// No connection could be made: the request has no effect.
    #[error("cannot connect to {endpoint}: {reason}")]
    Connect {
        /// Where to.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// What was asked, or trusted, cannot be used.
    #[error("{0}")]
    Invalid(String),
    /// The node broke the protocol.
    #[error("unexpected answer: {0}")]
    Protocol(String),
}

impl ClientError {
    /// The node's error code, if it answered.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(error) => Some(error.code),
            _ => None,
        }
    }

    /// Whether the same request may succeed later, unchanged.
    pub fn retry(&self) -> bool {
        match self {
            Self::Refused(error) => error.retry,
            Self::Lost(reason) | Self::Closed(reason) => reason.reconnect,
            Self::DeadlineExceeded | Self::Connect { .. } => true,
            Self::Invalid(_) | Self::Protocol(_) => false,
        }
    }

    /// Whether the request may have taken effect all the same.
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::Refused(error) => error.code.outcome_unknown(),
            Self::DeadlineExceeded | Self::Lost(_) | Self::Protocol(_) => true,
            Self::Closed(_) | Self::Connect { .. } | Self::Invalid(_) => false,
        }
    }

    /// How long the node wants the client to wait before it tries again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(error) => error.retry_after_ms.map(Duration::from_millis),
            Self::Lost(reason) | Self::Closed(reason) => reason.retry_after,
            _ => None,
        }
    }
}
