//! Connections that stand for users, spread over the nodes, and opened again when they end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use roost_client::protocol::OkBody;
use roost_client::protocol::Operation;
use roost_client::{ClientError, ConnectOptions, Connection, Endpoint, Pushes, Transport, Trust};
use roost_storage::model::UserId;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::workload::user_name;
use crate::cli::target::Minter;

/// The device of every session.
const DEVICE: &str = "bench";
/// Time for a call.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to connect again.
const PAUSE: Duration = Duration::from_millis(100);

/// Where sessions are opened.
pub(crate) struct Nodes {
    /// Where clients connect.
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) trust: Trust,
    pub(crate) transport: Transport,
    pub(crate) minter: Minter,
}

/// One user's connection.
pub(crate) struct Session {
    nodes: Arc<Nodes>,
    options: ConnectOptions,
    connection: RwLock<Connection>,
    /// Which endpoint the connection is to; held while it is opened again.
    node: Mutex<usize>,
}

impl Nodes {
    /// How to connect as a user, to the node with this index.
    ///
    /// # Errors
    /// No token can be made.
    pub(crate) fn options(
        &self,
        user: usize,
        node: usize,
        window: u32,
    ) -> anyhow::Result<ConnectOptions> {
        let token = self.minter.token(UserId::new(user_name(user))?)?;
        let endpoint = self.endpoints[node % self.endpoints.len()].clone();
        let mut options = ConnectOptions::new(endpoint, self.trust.clone(), token, DEVICE);
        options.transport = self.transport;
        options.window = Some(window);
        options.call_timeout = CALL_TIMEOUT;
        Ok(options)
    }
}

impl Session {
    /// Connects as a user to the node with this index.
    ///
    /// # Errors
    /// The node refuses, or does not answer.
    pub(crate) async fn open(
        nodes: &Arc<Nodes>,
        user: usize,
        node: usize,
        window: u32,
    ) -> anyhow::Result<(Self, Pushes)> {
        let options = nodes.options(user, node, window)?;
        let (connection, pushes) = Connection::open(&options).await?;
        let (nodes, node) = (nodes.clone(), Mutex::new(node));
        Ok((Self { nodes, options, connection: RwLock::new(connection), node }, pushes))
    }

    /// The connection of the moment.
    pub(crate) fn connection(&self) -> Connection {
        self.connection.read().clone()
    }

    /// Asks once.
    ///
    /// # Errors
    /// As the connection says.
    pub(crate) async fn ask(&self, operation: &Operation) -> Result<OkBody, ClientError> {
        self.connection().submit(operation).await?.wait().await
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
