//! How the edge is set up.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use roost_protocol::limits::{CONNECT_TIMEOUT_MS, IDLE_TIMEOUT_MS, KEEP_ALIVE_MS};

use crate::config::NodeConfig;
use crate::open_files;

/// Open files that are kept for what is no client.
const RESERVED_FILES: usize = 256;

/// Addresses, bounds and times of the edge.
#[derive(Debug, Clone)]
pub struct EdgeOptions {
    /// Where clients connect: HTTP and WebSocket on TCP, QUIC on UDP, the same port.
    pub listen: SocketAddr,
    /// The data folder, for `/metrics` to say how much space it takes.
    pub data: Option<PathBuf>,
    /// Origins that a browser may connect from, besides the node's own; `*` for any.
    pub allowed_origins: Vec<String>,
    /// Most sessions at a time; a client beyond is told `overloaded`.
    pub max_sessions: usize,
    /// Most WebSockets among them: each needs an open file.
    pub max_websockets: usize,
    /// Most commands that are taken in and have no outcome yet; one beyond is told `overloaded`.
    pub max_commands: usize,
    /// Most bytes of these.
    pub max_command_bytes: usize,
    /// Most TCP connections that are no session (yet) at a time; a client beyond waits.
    pub max_http_connections: usize,
    /// Most QUIC handshakes at a time; a client beyond is refused. Past half of it, clients must
    /// prove their address first.
    pub max_handshakes: usize,
    /// Time for a handshake, and for the first request after it.
    pub connect_timeout: Duration,
    /// Time for a request.
    pub request_timeout: Duration,
    /// Time for a fresh look at the cluster in `connect`.
    pub barrier_timeout: Duration,
    /// Time between probes of a silent connection.
    pub keep_alive: Duration,
    /// Silence after which a connection is closed.
    pub idle_timeout: Duration,
    /// Time for a client to take over what is written to it.
    pub write_timeout: Duration,
    /// Time between looks at the queue without a hint.
    pub look_interval: Duration,
    /// Time for a closing frame to arrive.
    pub linger: Duration,
}

impl EdgeOptions {
    /// The defaults, on an address.
    pub fn on(listen: SocketAddr) -> Self {
        Self {
            listen,
            data: None,
            allowed_origins: Vec::new(),
            max_sessions: 50_000,
            max_websockets: 50_000,
            max_commands: 16_384,
            max_command_bytes: 64 * 1024 * 1024,
            max_http_connections: 1_024,
            max_handshakes: 512,
            connect_timeout: Duration::from_millis(CONNECT_TIMEOUT_MS),
            request_timeout: Duration::from_secs(10),
            barrier_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_millis(KEEP_ALIVE_MS),
            idle_timeout: Duration::from_millis(IDLE_TIMEOUT_MS),
            write_timeout: Duration::from_secs(20),
            look_interval: Duration::from_secs(15),
            linger: Duration::from_secs(2),
        }
    }
}

impl From<&NodeConfig> for EdgeOptions {
    fn from(config: &NodeConfig) -> Self {
        let defaults = Self::on(config.listen);
        // Files that the log and the engine must always be able to open, and HTTP's connections.
        let others = RESERVED_FILES + defaults.max_http_connections;
        let websockets = open_files::limit().saturating_sub(others);
        Self {
            data: Some(config.data.clone()),
            allowed_origins: config.allowed_origins.clone(),
            max_websockets: websockets.min(defaults.max_sessions),
            ..defaults
        }
    }
}
