//! Every bound of the protocol, by name, in one place; a node publishes them in `connect`'s reply.

use serde::{Deserialize, Serialize};

/// Longest envelope, in bytes of its encoding, in either direction.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// Longest message body, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Longest user, device, conversation or client id, in bytes.
pub const MAX_ID_BYTES: usize = 64;
/// Longest content type, in bytes.
pub const MAX_CONTENT_TYPE_BYTES: usize = 128;
/// Longest conversation name, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Longest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;
/// Most users that one request may name.
pub const MAX_USERS_PER_REQUEST: usize = 1_000;
/// Most requests of one connection that may wait for a reply.
pub const MAX_IN_FLIGHT: usize = 1_024;
/// Most elements in one page; a request that asks for more is refused.
pub const MAX_PAGE: usize = 500;
/// Elements in a page whose request names no limit.
pub const DEFAULT_PAGE: usize = 100;
/// Items pushed ahead of the acknowledged one when `connect` names no window.
pub const DEFAULT_WINDOW: u32 = 256;
/// Largest window; a client that asks for more gets this one.
pub const MAX_WINDOW: u32 = 4_096;
/// How long a client id names the same send, in milliseconds (24 h).
pub const DEDUP_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// Time for the first request after the connection stands, in milliseconds.
pub const CONNECT_TIMEOUT_MS: u64 = 10_000;
/// Time between a server's liveness probes, in milliseconds.
pub const KEEP_ALIVE_MS: u64 = 25_000;
/// Silence after which a connection is closed, in milliseconds.
pub const IDLE_TIMEOUT_MS: u64 = 60_000;
/// Deepest nesting that a decoder follows.
pub(crate) const MAX_DEPTH: usize = 32;
/// Most values of one request that a decoder keeps.
pub(crate) const MAX_REQUEST_VALUES: usize = 4 * MAX_USERS_PER_REQUEST;

// The longest body fits into a frame in its longest form: JSON, each byte escaped as \u00XX.
const _: () = assert!(MAX_BODY_BYTES * 6 + 64 * 1024 <= MAX_FRAME_BYTES);
const _: () = assert!(DEFAULT_PAGE <= MAX_PAGE);
const _: () = assert!(DEFAULT_WINDOW <= MAX_WINDOW);
const _: () = assert!(KEEP_ALIVE_MS * 2 < IDLE_TIMEOUT_MS);

/// The bounds in force on a connection, as `connect` answers them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Longest envelope, in bytes.
    pub max_frame_bytes: u64,
    /// Longest message body, in bytes.
    pub max_body_bytes: u64,
    /// Longest id, in bytes.
    pub max_id_bytes: u64,
    /// Longest content type, in bytes.
    pub max_content_type_bytes: u64,
    /// Longest conversation name, in bytes.
    pub max_name_bytes: u64,
    /// Most users in one request.
    pub max_users_per_request: u64,
    /// Most requests that may wait for a reply.
    pub max_in_flight: u64,
    /// Most elements in one page.
    pub max_page: u64,
    /// The window of this connection: how many items may be pushed ahead of the acknowledged one.
    pub window: u64,
    /// How long a client id names the same send, in milliseconds.
    pub dedup_window_ms: u64,
    /// Silence after which the connection is closed, in milliseconds.
    pub idle_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_bytes: MAX_FRAME_BYTES as u64,
            max_body_bytes: MAX_BODY_BYTES as u64,
            max_id_bytes: MAX_ID_BYTES as u64,
            max_content_type_bytes: MAX_CONTENT_TYPE_BYTES as u64,
            max_name_bytes: MAX_NAME_BYTES as u64,
            max_users_per_request: MAX_USERS_PER_REQUEST as u64,
            max_in_flight: MAX_IN_FLIGHT as u64,
            max_page: MAX_PAGE as u64,
            window: u64::from(DEFAULT_WINDOW),
            dedup_window_ms: DEDUP_WINDOW_MS,
            idle_timeout_ms: IDLE_TIMEOUT_MS,
        }
    }
}

/// How far ahead of the acknowledged item a connection is pushed to, for `connect`'s `window`.
pub fn window_size(window: Option<u32>) -> u32 {
    window.map_or(DEFAULT_WINDOW, |window| window.min(MAX_WINDOW))
}
