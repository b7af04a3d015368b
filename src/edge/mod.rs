//! The edge: everything between clients and the replicated store.
//!
//! Clients come by QUIC ([`quic`]) or WebSocket ([`ws`]), the application's back end by HTTP
//! ([`http`]); all of them on one port number. A connection is carried by a session ([`session`]),
//! which is the same on both transports. The edge holds no state of its own that matters: queues,
//! cursors and conversations are the cluster's, and what is pushed is read from there. So a client
//! may go to any node at any time.
//!
//! Reading order: [`options`], [`hub`] (who is connected, and waking them), [`session`],
//! [`commands`], [`reads`], then the transports and HTTP, and [`local`] for the simulation.

mod options;
mod hub;
mod errors;
mod convert;
mod commands;
mod reads;
mod process;
mod metrics;
mod transport;
mod session;
mod admission;
mod budget;
mod unsent;
mod ws;
mod quic;
mod http;
mod local;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use roost_cluster::Cluster;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::auth::Auth;
use crate::keys::NodeKeys;
use admission::Gate;
use budget::Budget;
use metrics::Metrics;
use reads::Reads;
use unsent::Unsent;

pub use hub::Hub;
pub use local::LocalEdge;
pub use options::EdgeOptions;
pub(crate) use process::cpu_seconds;

/// Tries to find one port number that is free on both TCP and UDP, if any may be taken.
const PORT_ATTEMPTS: usize = 20;

/// TCP connections that the operating system holds for this node until they are accepted.
const BACKLOG: u32 = 4_096;

/// What every connection of this node shares.
pub(crate) struct Context {
    cluster: Cluster,
    hub: Arc<Hub>,
    auth: Auth,
    options: EdgeOptions,
    reads: Reads,
    metrics: Metrics,
    gate: Gate,
    budget: Arc<Budget>,
    unsent: Unsent,
    /// True once the node stops.
    shutdown: watch::Sender<bool>,
}

impl Context {
    /// Returns once the node stops.
    async fn stopping(&self) {
        // An error would say that the sender is gone, and it is ours.
        let _ = self.shutdown.subscribe().wait_for(|stopping| *stopping).await;
    }

    /// Takes no more clients, tells those that are there, and waits for them to be gone, at most
    /// `grace` long.
    async fn stop(&self, grace: Duration) {
        self.shutdown.send_replace(true);
        // Who does not leave in time is cut off.
        let _ = timeout(grace, self.gate.all_gone()).await;
    }
}

/// The certificate that clients see on QUIC.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate, and those that lead to its authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl From<&NodeKeys> for Certificate {
    fn from(keys: &NodeKeys) -> Self {
        Self { chain: keys.chain.clone(), key: keys.key.clone_key() }
    }
}

/// Why the edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum EdgeError {
    /// The address could not be taken.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        source: io::Error,
    },
    /// The certificate or its key can't be used.
    #[error("the node's certificate: {0}")]
    Certificate(String),
}

/// The running edge.
pub struct Edge {
    context: Arc<Context>,
    address: SocketAddr,
    quic: quic::Endpoint,
}

impl Edge {
    /// Takes the addresses and begins to serve. `hub` is the one that observes `cluster`.
    ///
    /// # Errors
    /// [`EdgeError`] if an address is taken or the certificate can't be used.
    pub async fn start(
        cluster: Cluster,
        hub: Arc<Hub>,
        auth: Auth,
        certificate: Certificate,
        options: EdgeOptions,
    ) -> Result<Self, EdgeError> {
        let config = quic::server_config(certificate, &options)?;
        let (listener, quic) = bind(options.listen, &config).await?;
        let address = listener
            .local_addr()
            .map_err(|source| EdgeError::Listen { address: options.listen, source })?;
        let context = Arc::new(Context {
            reads: Reads::new(cluster.clone()),
            gate: Gate::new(&options),
            budget: Budget::new(&options),
            unsent: Unsent::default(),
            metrics: Metrics::new(options.data.clone()),
            cluster,
            hub,
            auth,
            options,
            shutdown: watch::Sender::new(false),
        });
        tokio::spawn(http::serve(Arc::clone(&context), listener));
        tokio::spawn(quic::serve(Arc::clone(&context), quic.clone()));
        Ok(Self { context, address, quic })
    }

    /// Where clients connect, on TCP and on UDP.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more clients, tells those that are there, and waits for them to be gone, at most
    /// `grace` long.
    pub async fn shutdown(&self, grace: Duration) {
        self.context.stop(grace).await;
        self.quic.close(roost_protocol::CloseCode::ShuttingDown.number().into(), b"shutting_down");
    }
}

/// Listens on TCP, with room for many clients that come at once.
fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A node that comes back must not wait for its old connections' last packets.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds TCP and UDP on the same port number.
async fn bind(
    listen: SocketAddr,
    config: &quic::ServerConfig,
) -> Result<(TcpListener, quic::Endpoint), EdgeError> {
    let failed = |source| EdgeError::Listen { address: listen, source };
    let mut attempts = if listen.port() == 0 { PORT_ATTEMPTS } else { 1 };
    loop {
        let listener = listen_tcp(listen).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        attempts -= 1;
        match quic::endpoint(address, config.clone()) {
            Ok(endpoint) => return Ok((listener, endpoint)),
            Err(source) if attempts == 0 => return Err(failed(source)),
            Err(_) => {}
        }
    }
}
