//! Connections that stand for users, spread over the nodes, and opened again when they end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use roost_client::protocol::{CompactString, OkBody, Operation};
use roost_client::{
    ClientError, ConnectOptions, Connection, Endpoint, PendingReply, Pushes, QuicSocket, Transport,
    Trust,
};
use roost_storage::model::UserId;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::back_end::BackEnd;
use super::workload::user_name;
use crate::cli::target::Minter;

/// Time for a call.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to connect again.
const PAUSE: Duration = Duration::from_millis(100);

/// Where sessions are opened.
pub(crate) struct Nodes {
    /// Where clients connect.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) trust: Trust,
    pub(crate) transport: Transport,
    pub(crate) minter: Minter,
    /// What all QUIC connections share.
    pub(crate) socket: Option<QuicSocket>,
    /// Takes sends and pulls in the place of the users' connections.
    pub(crate) back_end: Option<BackEnd>,
}

/// Who connects, where to, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seat {
    /// The user's number.
    pub(crate) user: usize,
    /// The device's id: one user has a session for each purpose.
    pub(crate) device: &'static str,
    /// Which node.
    pub(crate) node: usize,
    /// How many items may be pushed ahead.
    pub(crate) window: u32,
}

/// One user's connection.
pub(crate) struct Session {
    nodes: Arc<Nodes>,
    user: CompactString,
    options: ConnectOptions,
    connection: RwLock<Connection>,
    /// Which endpoint the connection is to; held while it is opened again.
    node: Mutex<usize>,
}

impl Nodes {
    /// Where a cluster is; the socket is opened once for all connections.
    ///
    /// # Errors
    /// The socket cannot be opened, or the authority's certificate cannot be used.
    pub(crate) async fn new(
        endpoints: Vec<Endpoint>,
        trust: Trust,
        transport: Transport,
        minter: Minter,
        back_end: Option<BackEnd>,
    ) -> anyhow::Result<Self> {
        let mut nodes = Self { endpoints, trust, transport, minter, socket: None, back_end };
        if transport == Transport::Quic {
            let first = Seat { user: 0, device: "bench", node: 0, window: 0 };
            nodes.socket = Some(QuicSocket::open(&nodes.options(first)?).await?);
        }
        Ok(nodes)
    }

    /// How to connect.
    ///
    /// # Errors
    /// No token can be made.
    pub(crate) fn options(&self, seat: Seat) -> anyhow::Result<ConnectOptions> {
        let token = self.minter.token(UserId::new(user_name(seat.user))?)?;
        let endpoint = self.endpoints[seat.node % self.endpoints.len()].clone();
        let mut options = ConnectOptions::new(endpoint, self.trust.clone(), token, seat.device);
        options.transport = self.transport;
        options.window = Some(seat.window);
        options.call_timeout = CALL_TIMEOUT;
        options.socket = self.socket.clone();
        Ok(options)
    }
}

impl Session {
    /// Connects.
    ///
    /// # Errors
    /// The node refuses, or does not answer.
    pub(crate) async fn open(nodes: &Arc<Nodes>, seat: Seat) -> anyhow::Result<(Self, Pushes)> {
        let options = nodes.options(seat)?;
        let (connection, pushes) = Connection::open(&options).await?;
        let session = Self {
            nodes: nodes.clone(),
            user: user_name(seat.user),
            options,
            connection: RwLock::new(connection),
            node: Mutex::new(seat.node),
        };
        Ok((session, pushes))
    }

    /// The connection of the moment.
    pub(crate) fn connection(&self) -> Connection {
        self.connection.read().clone()
    }

    /// Asks once, over the connection or as the user's back end.
    ///
    /// # Errors
    /// As the connection says.
    pub(crate) async fn ask(&self, operation: &Operation) -> Result<OkBody, ClientError> {
        if let Some(back_end) = &self.nodes.back_end
            && let Some(answer) = back_end.ask(&self.options.endpoint, &self.user, operation).await
        {
            return answer;
        }
        self.connection().submit(operation).await?.wait().await
    }

    /// Submits a request over the connection; `None` if it must be asked, and waited for.
    ///
    /// # Errors
    /// As the connection says.
    pub(crate) fn try_submit(
        &self,
        operation: &Operation,
    ) -> Result<Option<PendingReply>, ClientError> {
        match self.nodes.back_end {
            Some(_) => Ok(None),
            None => self.connection().try_submit(operation),
        }
    }

    /// Asks until it is answered, at most `patience` long. The request must be one that may be
    /// repeated.
    ///
    /// # Errors
    /// A refusal that stays, or the last one in time.
    pub(crate) async fn insist(
        &self,
        operation: &Operation,
        patience: Duration,
    ) -> Result<OkBody, ClientError> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.ask(operation).await {
                Err(error) if error.retry() && tokio::time::Instant::now() < deadline => {
                    self.recover(&error).await;
                }
                answer => return answer,
            }
        }
    }

    /// After a failure: waits a little, and connects again if the connection has ended, to the next
    /// node.
    pub(crate) async fn recover(&self, error: &ClientError) {
        sleep(error.retry_after().unwrap_or(Duration::from_millis(5)).min(PAUSE)).await;
        if self.connection().close_reason().is_none() {
            return;
        }
        let mut node = self.node.lock().await;
        // Somebody else may have opened it meanwhile.
        if self.connection().close_reason().is_none() {
            return;
        }
        *node += 1;
        let mut options = self.options.clone();
        options.endpoint = self.nodes.endpoints[*node % self.nodes.endpoints.len()].clone();
        match Connection::open(&options).await {
            Ok((connection, _pushes)) => *self.connection.write() = connection,
            Err(_) => sleep(PAUSE).await,
        }
    }
}
