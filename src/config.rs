//! What a node is told: flags, then `ROOST_*` variables, then `roost.toml`, then defaults.
//! (Skeleton: the fields of [`NodeConfig`] are binding; loading follows.)

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use roost_storage::engine::EngineKind;

/// Everything that `roost serve` needs, with all sources merged.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The data folder.
    pub data: PathBuf,
    /// This node's number in its cluster.
    pub node_id: u64,
    /// Where clients connect: HTTP and WebSocket on TCP, QUIC on UDP, the same port.
    pub listen: SocketAddr,
    /// Where peers connect (QUIC, mutual TLS).
    pub peer_listen: SocketAddr,
    /// The client address that others are told, `host:port`; the listen address by default.
    pub advertise: Option<String>,
    /// The voters at the first start, id → peer address `host:port`, this node among them. Empty: a
    /// cluster of this node alone.
    pub peers: BTreeMap<u64, String>,
    /// The folder with the cluster's shared keys (certificate authority, token key); inside the data
    /// folder by default.
    pub keys: Option<PathBuf>,
    /// The cold tier's engine.
    pub engine: EngineKind,
    /// Dirty state that the hot tier may hold, in bytes.
    pub dirty_bytes: usize,
    /// Log entries kept behind the newest checkpoint, for followers that were away.
    pub log_keep_entries: u64,
    /// PEM files with further Ed25519 public keys whose tokens are accepted.
    pub token_public_keys: Vec<PathBuf>,
    /// Files with secrets whose HS256 tokens are accepted.
    pub token_secrets: Vec<PathBuf>,
    /// Origins that a browser may connect from, besides the node's own; `*` for any.
    pub allowed_origins: Vec<String>,
}
