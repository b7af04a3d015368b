//! A lasting client of a cluster: over any of its nodes, through their failures.
//!
//! The [`Client`] is a handle to a task (`driver`) that owns the connection of the moment. A call is
//! repeated on the next connection until its deadline, unless a repetition could do harm; a send
//! does none, because it keeps its `client_id`. The items of the queue come through [`Items`].

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use roost_protocol::reply::Connected;
use roost_protocol::{Device, DeviceKind, OkBody, Operation, Token, limits};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::calls::Calls;
use crate::driver::Driver;
use crate::error::{ClientError, CloseReason};
use crate::items::{Feed, Items};
use crate::options::{ConnectOptions, Endpoint, Transport, Trust};

/// A token that somebody is fetching.
pub type FetchedToken = Pin<Box<dyn Future<Output = Result<Token, String>> + Send>>;

/// Where a client gets its token from.
#[derive(Clone)]
pub enum TokenSource {
    /// Always the same one.
    Fixed(Token),
    /// Asked for at each connection, so that a token may expire meanwhile.
    Fetch(Arc<dyn Fn() -> FetchedToken + Send + Sync>),
}

impl<T: Into<Token>> From<T> for TokenSource {
    fn from(token: T) -> Self {
        Self::Fixed(token.into())
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed(_) => "Fixed",
            Self::Fetch(_) => "Fetch",
        })
    }
}

/// When consumed items are acknowledged without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoAck {
    /// After this many; at most half the window is used.
    pub items: u64,
    /// Or after this time.
    pub delay: Duration,
}

impl Default for AutoAck {
    fn default() -> Self {
        Self { items: 64, delay: Duration::from_millis(200) }
    }
}

/// Everything about a lasting client.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// The cluster's nodes; the first is tried first.
    pub endpoints: Vec<Endpoint>,
    /// Who this is.
    pub tokens: TokenSource,
    /// Which of the user's devices.
    pub device: Device,
    /// How to reach the nodes.
    pub transport: Transport,
    /// Whom to believe.
    pub trust: Trust,
    /// The name that a node's certificate must carry.
    pub server_name: String,
    /// The first connection's items start after this sequence; the device's cursor by default.
    pub after: Option<u64>,
    /// How many items may come ahead of the acknowledged one; 0 for no items.
    pub window: Option<u32>,
    /// Whether consumed items are acknowledged; otherwise the application calls
    /// [`Calls::ack`].
    pub auto_ack: Option<AutoAck>,
    /// Time for one attempt to connect; a second at most while there are nodes that were not tried.
    pub connect_timeout: Duration,
    /// Time for a call, all its repetitions together.
    pub call_timeout: Duration,
    /// Silence of a node, while calls wait for it, after which it is asked for a sign of life.
    pub probe_after: Duration,
    /// The same while no call waits.
    pub idle_probe_after: Duration,
    /// Time for that sign; then the next node is tried.
    pub probe_timeout: Duration,
    /// The first wait between attempts.
    pub min_backoff: Duration,
    /// The longest wait between attempts.
    pub max_backoff: Duration,
}

impl ClientOptions {
    /// QUIC to any of `endpoints`, as an app with the device id `device`, acknowledging what was
    /// consumed.
    pub fn new(
        endpoints: Vec<Endpoint>,
        trust: Trust,
        tokens: impl Into<TokenSource>,
        device: &str,
    ) -> Self {
        Self {
            endpoints,
            tokens: tokens.into(),
            device: Device { id: device.into(), kind: DeviceKind::App },
            transport: Transport::Quic,
            trust,
            server_name: "roost".to_owned(),
            after: None,
            window: None,
            auto_ack: Some(AutoAck::default()),
            connect_timeout: Duration::from_secs(3),
            call_timeout: Duration::from_secs(30),
            probe_after: Duration::from_secs(2),
            idle_probe_after: Duration::from_secs(10),
            probe_timeout: Duration::from_secs(2),
            min_backoff: Duration::from_millis(20),
            max_backoff: Duration::from_secs(3),
        }
    }

    pub(crate) fn backoff(&self) -> Backoff {
        Backoff { min: self.min_backoff, max: self.max_backoff }
    }

    /// The options of one connection.
    pub(crate) fn connection(&self, endpoint: Endpoint, token: Token) -> ConnectOptions {
        let mut options = ConnectOptions::new(endpoint, self.trust.clone(), token, "");
        options.device = self.device.clone();
        options.transport = self.transport;
        options.server_name.clone_from(&self.server_name);
        options.window = self.window;
        options.connect_timeout = self.connect_timeout;
        options.call_timeout = self.call_timeout;
        options
    }
}

/// How a client stands to its cluster.
#[derive(Debug, Clone)]
pub enum Link {
    /// It looks for a node; with the last failure, if there was one.
    Connecting(Option<ClientError>),
    /// It is connected, as the node answered.
    Up(Arc<Connected>),
    /// It has ended, and will not connect again.
    Down(ClientError),
}

/// What a handle asks of the client's task.
#[derive(Debug)]
pub(crate) enum Command {
    /// Carry out an operation.
    Call { operation: Operation, reply: oneshot::Sender<Result<OkBody, ClientError>> },
    /// Acknowledge what was consumed, then end.
    Close,
}

/// A lasting client; cheap to clone. It ends when all clones and its [`Items`] are gone.
#[derive(Debug, Clone)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    link: watch::Receiver<Link>,
    call_timeout: Duration,
}

impl Client {
    /// Connects to the first node that answers.
    ///
    /// # Errors
    /// Why the last attempt failed, if none succeeds within `call_timeout`, or at once if no
    /// attempt can succeed.
    pub async fn connect(options: ClientOptions) -> Result<(Self, Items), ClientError> {
        let (client, items) = Self::start(options)?;
        let mut link = client.link.clone();
        let up = link.wait_for(|link| !matches!(link, Link::Connecting(_)));
        let settled = tokio::time::timeout(client.call_timeout, up).await;
        match settled {
            Ok(Ok(link)) => match &*link {
                Link::Down(error) => return Err(error.clone()),
                Link::Up(_) | Link::Connecting(_) => {}
            },
            Ok(Err(_)) => return Err(ClientError::Closed(CloseReason::local())),
            Err(_) => {
                return Err(match &*client.link.borrow() {
                    Link::Connecting(Some(error)) => error.clone(),
                    _ => ClientError::DeadlineExceeded,
                });
            }
        }
        Ok((client, items))
    }

    /// Starts a client that connects in the background; calls wait for it.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] without endpoints.
    pub fn start(options: ClientOptions) -> Result<(Self, Items), ClientError> {
        if options.endpoints.is_empty() {
            return Err(ClientError::Invalid("no endpoint to connect to".into()));
        }
        let (commands, queue) = mpsc::channel(limits::MAX_IN_FLIGHT);
        let (link, watched) = watch::channel(Link::Connecting(None));
        let window = limits::window_size(options.window) as usize;
        let (feed, items) = Feed::new(window, commands.clone());
        let call_timeout = options.call_timeout;
        tokio::spawn(Driver::new(options, queue, link, feed).run());
        Ok((Self { commands, link: watched, call_timeout }, items))
    }

    /// How the client stands to its cluster, now and as it changes.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Carries out an operation by `deadline`, repeating it where that does no harm. Calls that are
    /// made one after the other are sent in that order, also on a new connection. A call that the
    /// node could not carry out at the moment may be overtaken by those that were in flight with
    /// it: where order matters more than speed, await each call before the next.
    ///
    /// # Errors
    /// Those of [`ClientError`]; after the deadline, [`ClientError::DeadlineExceeded`].
    pub async fn call_by(
        &self,
        operation: Operation,
        deadline: Instant,
    ) -> Result<OkBody, ClientError> {
        if matches!(operation, Operation::Connect(_)) {
            return Err(ClientError::Invalid("the client connects by itself".into()));
        }
        let called = async {
            let (reply, answer) = oneshot::channel();
            let call = Command::Call { operation, reply };
            self.commands.send(call).await.map_err(|_| self.ended())?;
            answer.await.unwrap_or_else(|_| Err(self.ended()))
        };
        tokio::time::timeout_at(deadline, called)
            .await
            .unwrap_or(Err(ClientError::DeadlineExceeded))
    }

    /// Acknowledges what was consumed, if that is automatic, and ends the client; waits for both.
    pub async fn close(&self) {
        // If the task has ended already, there is nothing to close.
        if self.commands.send(Command::Close).await.is_ok() {
            let mut link = self.link.clone();
            let _ = link.wait_for(|link| matches!(link, Link::Down(_))).await;
        }
    }

    fn ended(&self) -> ClientError {
        match &*self.link.borrow() {
            Link::Down(error) => error.clone(),
            _ => ClientError::Closed(CloseReason::local()),
        }
    }
}

impl Calls for Client {
    async fn call(&self, operation: Operation) -> Result<OkBody, ClientError> {
        self.call_by(operation, Instant::now() + self.call_timeout).await
    }
}
