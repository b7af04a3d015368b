//! Peers over QUIC with mutual TLS.
//!
//! One connection a direction and peer; each call is a stream of its own, so that a large append
//! holds up no heartbeat. Both sides prove by certificate which node they are
//! (`node-<id>.roost`), then say in a [`Hello`] which data folder they run on: a folder that was
//! wiped can't come back under its old number.
//!
//! A call honours its deadline. A connection over which nothing came back for a while is dropped,
//! so that a peer that was killed and restarted is found again at once.
//!
//! In reading order: `link` (what is needed of the network), `client` (calling peers over any
//! link), then QUIC's: `quic`, `server`, `tls`.

mod link;
mod client;
mod quic;
mod server;
mod tls;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Endpoint, EndpointConfig, MtuDiscoveryConfig, TokioRuntime, TransportConfig, VarInt};
use roost_raft::{MemberNode, NodeId};

pub(crate) use client::Transport;
pub use link::{Link, LinkClose, LinkConnection, PeerServer};
pub(crate) use quic::QuicLink;
pub use tls::{PeerTls, TlsError};

use crate::wire::Hello;

/// Silence after which QUIC gives a connection up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// QUIC's own sign of life.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// Calls of one peer that are worked on at the same time.
const MAX_CONCURRENT_CALLS: u32 = 512;
/// Bytes that one call's stream, and all of a peer's together, may have under way.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 32 * 1024 * 1024;
/// Largest datagram that is tried, for paths that carry more than Ethernet's common one: jumbo frames,
/// or nodes of one machine.
const MAX_DATAGRAM_BYTES: u16 = 8_952;

const _: () = assert!(STREAM_WINDOW_BYTES <= CONNECTION_WINDOW_BYTES);

/// Close codes between peers.
const CLOSE_REFUSED: VarInt = VarInt::from_u32(1);
const CLOSE_SILENT: VarInt = VarInt::from_u32(2);
const CLOSE_SHUTDOWN: VarInt = VarInt::from_u32(3);

/// Who this node is, for its peers.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) hello: Arc<dyn Fn() -> Hello + Send + Sync>,
}

/// Binds the peer port.
pub(crate) fn bind(listen: SocketAddr, tls: &PeerTls) -> Result<QuicLink, TlsError> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(MAX_DATAGRAM_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .mtu_discovery_config(Some(mtu))
        .max_idle_timeout(Some(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32).into()))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(MAX_CONCURRENT_CALLS))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES));
    let transport = Arc::new(transport);
    let mut server = tls.server_config()?;
    server.transport_config(transport.clone());
    let mut client = tls.client_config()?;
    client.transport_config(transport);
    let mut config = EndpointConfig::default();
    config
        .max_udp_payload_size(MAX_DATAGRAM_BYTES)
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    let socket = UdpSocket::bind(listen).map_err(|error| TlsError::Bind(listen, error))?;
    let endpoint = Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime))
        .map_err(|error| TlsError::Bind(listen, error))?;
    Ok(QuicLink::new(endpoint, client))
}

/// Whether a data folder is the one that the membership names for this node.
///
/// A member without a known folder is accepted: it was just configured and is not formed yet.
pub(crate) fn check_store(
    members: &BTreeMap<NodeId, MemberNode>,
    hello: &Hello,
) -> Result<(), String> {
    match members.get(&hello.node_id) {
        Some(member) if member.store_id != hello.store_id => Err(format!(
            "node {} runs on another data folder than the one that joined; a node whose data was lost needs a new number",
            hello.node_id
        )),
        _ => Ok(()),
    }
}
