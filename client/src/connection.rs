//! One connection to one node: many requests in flight, replies matched by id, pushes in order.
//!
//! One task reads and writes; handles share a table of the requests that wait. The number of these
//! is bounded by the node's `max_in_flight`, the pushes by the window: the node sends no item
//! further than that beyond the last acknowledged one. Nothing is repeated here: when the transport
//! ends, every waiting call fails as lost, and the handle stays closed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use roost_protocol::reply::Connected;
use roost_protocol::request::Connect;
use roost_protocol::{
    CloseCode, Encoding, ErrorBody, ErrorCode, OkBody, Operation, OperationKind, Push, ServerFrame,
    limits,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::calls::Calls;
use crate::error::{ClientError, CloseReason};
use crate::options::{ConnectOptions, Transport};
use crate::transport::{self, Sink, Source};

/// Requests written at once.
const WRITE_BATCH: usize = 64;
/// Pushes other than items that wait for the consumer; more are dropped.
const SOFT_PUSHES: usize = 64;
/// Time for the node's reason to arrive after writing failed, and for a goodbye.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A connection to one node; cheap to clone. It closes when all clones are gone.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Bytes>,
    connected: Arc<Connected>,
}

#[derive(Debug)]
struct Shared {
    transport: Transport,
    call_timeout: Duration,
    permits: Arc<Semaphore>,
    table: Mutex<Table>,
    closed: watch::Sender<Option<CloseReason>>,
    close: Notify,
}

/// The requests that wait for an answer.
#[derive(Debug)]
struct Table {
    next_id: u64,
    waiting: HashMap<u64, Waiter>,
    /// What the node said before it closed.
    closing: Option<CloseReason>,
    last_heard: Instant,
}

#[derive(Debug)]
struct Waiter {
    kind: OperationKind,
    reply: oneshot::Sender<Result<OkBody, ErrorBody>>,
    _permit: OwnedSemaphorePermit,
}

/// A request that was sent; its place among the connection's requests is fixed.
#[derive(Debug)]
pub struct PendingReply {
    id: u64,
    reply: oneshot::Receiver<Result<OkBody, ErrorBody>>,
    deadline: Instant,
    shared: Arc<Shared>,
}

/// What the node pushes on one connection, in order.
#[derive(Debug)]
pub struct Pushes(mpsc::Receiver<Push>);

impl Pushes {
    /// The next push; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<Push> {
        self.0.recv().await
    }
}

impl Connection {
    /// Connects to a node and says who this is.
    ///
    /// # Errors
    /// [`ClientError::Refused`] by the node, otherwise [`ClientError::Connect`] or
    /// [`ClientError::Invalid`].
    pub async fn open(options: &ConnectOptions) -> Result<(Self, Pushes), ClientError> {
        let opening = Box::pin(Self::open_untimed(options));
        match tokio::time::timeout(options.connect_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(ClientError::Connect {
                endpoint: options.endpoint.to_string(),
                reason: "no answer in time".into(),
            }),
        }
    }

    async fn open_untimed(options: &ConnectOptions) -> Result<(Self, Pushes), ClientError> {
        let (sink, source) = transport::open(options).await?;
        let shared = Arc::new(Shared::new(options));
        let (requests, queue) = mpsc::channel(limits::MAX_IN_FLIGHT);
        let window = limits::window_size(options.window) as usize;
        let (pushes, pushed) = mpsc::channel(window + SOFT_PUSHES);
        let driver = Driver {
            shared: shared.clone(),
            encoding: options.transport.encoding(),
            keep_alive: options.keep_alive,
            idle_timeout: options.idle_timeout,
        };
        tokio::spawn(driver.run(sink, source, queue, pushes));

        let connect = Connect {
            token: options.token.clone(),
            device: options.device.clone(),
            after: options.after,
            window: options.window,
            applied: options.applied,
        };
        let reply = shared.submit(&requests, &Operation::Connect(connect)).await?.wait().await;
        let OkBody::Connected(connected) = reply.map_err(|error| connect_failed(options, error))?
        else {
            return Err(ClientError::Protocol("an answer to another operation".into()));
        };
        let in_flight = usize::try_from(connected.limits.max_in_flight).unwrap_or(usize::MAX);
        shared.permits.forget_permits(limits::MAX_IN_FLIGHT.saturating_sub(in_flight.max(1)));
        Ok((Self { shared, requests, connected: Arc::new(*connected) }, Pushes(pushed)))
    }

    /// The node's answer to `connect`.
    pub fn connected(&self) -> &Connected {
        &self.connected
    }

    /// Sends a request, after those sent before; waits while too many are in flight.
    ///
    /// # Errors
    /// [`ClientError::Closed`]: the request has no effect.
    pub async fn submit(&self, operation: &Operation) -> Result<PendingReply, ClientError> {
        self.shared.submit(&self.requests, operation).await
    }

    /// The same without waiting; `None` if too many are in flight.
    ///
    /// # Errors
    /// [`ClientError::Closed`]: the request has no effect.
    pub fn try_submit(&self, operation: &Operation) -> Result<Option<PendingReply>, ClientError> {
        let Ok(slot) = self.requests.try_reserve() else {
            self.shared.check_open()?;
            return Ok(None);
        };
        let Ok(permit) = self.shared.permits.clone().try_acquire_owned() else {
            return Ok(None);
        };
        let deadline = Instant::now() + self.shared.call_timeout;
        let (pending, bytes) = self.shared.register(operation, permit, deadline)?;
        slot.send(bytes);
        Ok(Some(pending))
    }

    /// How long the node has been silent.
    pub fn silent_for(&self) -> Duration {
        self.shared.table.lock().last_heard.elapsed()
    }

    /// Why the connection ended; `None` while it stands.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.shared.closed.borrow().clone()
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> CloseReason {
        let mut closed = self.shared.closed.subscribe();
        let reason = closed.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(CloseReason::local)
    }

    /// Closes the connection; calls that wait fail as lost.
    pub fn close(&self) {
        self.shared.close.notify_one();
    }
}

impl Calls for Connection {
    async fn call(&self, operation: Operation) -> Result<OkBody, ClientError> {
        self.submit(&operation).await?.wait().await
    }
}

/// A connection that ends during `connect` was never there.
fn connect_failed(options: &ConnectOptions, error: ClientError) -> ClientError {
    match error {
        ClientError::Lost(reason) | ClientError::Closed(reason) if reason.code.is_none() => {
            ClientError::Connect {
                endpoint: options.endpoint.to_string(),
                reason: reason.to_string(),
            }
        }
        ClientError::Lost(reason) | ClientError::Closed(reason)
            if reason.code == Some(CloseCode::Unauthorized) =>
        {
            ClientError::Refused(ErrorBody::new(ErrorCode::Unauthorized, reason.message))
        }
        ClientError::Lost(reason) => ClientError::Closed(reason),
        other => other,
    }
}

impl Shared {
    fn new(options: &ConnectOptions) -> Self {
        Self {
            transport: options.transport,
            call_timeout: options.call_timeout,
            permits: Arc::new(Semaphore::new(limits::MAX_IN_FLIGHT)),
            table: Mutex::new(Table {
                next_id: 1,
                waiting: HashMap::new(),
                closing: None,
                last_heard: Instant::now(),
            }),
            closed: watch::Sender::new(None),
            close: Notify::new(),
        }
    }

    fn check_open(&self) -> Result<(), ClientError> {
        match &*self.closed.borrow() {
            Some(reason) => Err(ClientError::Closed(reason.clone())),
            None => Ok(()),
        }
    }

    async fn submit(
        self: &Arc<Self>,
        requests: &mpsc::Sender<Bytes>,
        operation: &Operation,
    ) -> Result<PendingReply, ClientError> {
        let deadline = Instant::now() + self.call_timeout;
        let permit = tokio::select! {
            permit = self.permits.clone().acquire_owned() => {
                permit.expect("the semaphore is never closed")
            }
            () = self.ended() => return Err(self.closed_error()),
        };
        let (pending, bytes) = self.register(operation, permit, deadline)?;
        match requests.send(bytes).await {
            Ok(()) => Ok(pending),
            Err(_) => Err(self.closed_error()),
        }
    }

    async fn ended(&self) {
        let mut closed = self.closed.subscribe();
        // The sender lives as long as `self`: an error cannot come.
        let _ = closed.wait_for(Option::is_some).await;
    }

    fn closed_error(&self) -> ClientError {
        let reason = self.closed.borrow().clone();
        ClientError::Closed(reason.unwrap_or_else(|| CloseReason::lost("the connection ended")))
    }

    /// Gives the request an id and a place in the table.
    fn register(
        self: &Arc<Self>,
        operation: &Operation,
        permit: OwnedSemaphorePermit,
        deadline: Instant,
    ) -> Result<(PendingReply, Bytes), ClientError> {
        let (sender, reply) = oneshot::channel();
        let id = {
            let mut table = self.table.lock();
            // Under the table's lock, as in `finish`: no waiter comes after the last was dropped.
            self.check_open()?;
            let id = table.next_id;
            table.next_id += 1;
            let waiter = Waiter { kind: operation.kind(), reply: sender, _permit: permit };
            table.waiting.insert(id, waiter);
            id
        };
        let pending = PendingReply { id, reply, deadline, shared: self.clone() };
        let bytes = transport::encode(self.transport, id, operation);
        if bytes.len() > limits::MAX_FRAME_BYTES {
            return Err(ClientError::Invalid("the request does not fit into a frame".into()));
        }
        Ok((pending, bytes))
    }

    fn answer(&self, id: u64, answer: Result<OkBody, ErrorBody>) {
        let waiter = self.table.lock().waiting.remove(&id);
        if let Some(waiter) = waiter {
            // A caller that has gone does not want it.
            let _ = waiter.reply.send(answer);
        }
    }

    fn finish(&self, transport: CloseReason) {
        let mut table = self.table.lock();
        let reason = table.closing.take().unwrap_or(transport);
        self.closed.send_replace(Some(reason));
        table.waiting.clear();
    }
}

impl PendingReply {
    /// The answer, by the connection's `call_timeout`.
    ///
    /// # Errors
    /// [`ClientError::Refused`], [`ClientError::Lost`] or [`ClientError::DeadlineExceeded`].
    pub async fn wait(mut self) -> Result<OkBody, ClientError> {
        match tokio::time::timeout_at(self.deadline, &mut self.reply).await {
            Ok(Ok(answer)) => answer.map_err(ClientError::Refused),
            Ok(Err(_)) => {
                let reason = self.shared.closed.borrow().clone();
                let lost = || CloseReason::lost("the connection ended");
                Err(ClientError::Lost(reason.unwrap_or_else(lost)))
            }
            Err(_) => Err(ClientError::DeadlineExceeded),
        }
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.shared.table.lock().waiting.remove(&self.id);
    }
}

/// The task of one connection.
struct Driver {
    shared: Arc<Shared>,
    encoding: Encoding,
    keep_alive: Duration,
    idle_timeout: Duration,
}

impl Driver {
    async fn run(
        self,
        mut sink: Sink,
        mut source: Source,
        mut queue: mpsc::Receiver<Bytes>,
        pushes: mpsc::Sender<Push>,
    ) {
        let reason = {
            let mut read = std::pin::pin!(self.read(&mut source, &pushes));
            tokio::select! {
                reason = &mut read => reason,
                written = self.write(&mut sink, &mut queue) => match written {
                    Ok(()) => CloseReason::local(),
                    // The node's own reason is better, if it is on its way.
                    Err(failed) => {
                        tokio::time::timeout(LAST_WORDS, read).await.unwrap_or(failed)
                    }
                },
                () = self.shared.close.notified() => CloseReason::local(),
            }
        };
        self.shared.finish(reason);
        // The pushes end after the reason is known.
        drop(pushes);
        drop(queue);
        let _ = tokio::time::timeout(LAST_WORDS, sink.close()).await;
    }

    async fn read(&self, source: &mut Source, pushes: &mpsc::Sender<Push>) -> CloseReason {
        loop {
            let bytes = match tokio::time::timeout(self.idle_timeout, source.next()).await {
                Ok(Ok(bytes)) => bytes,
                Ok(Err(reason)) => return reason,
                Err(_) => return CloseReason::lost("the node is silent"),
            };
            self.shared.table.lock().last_heard = Instant::now();
            if bytes.is_empty() {
                continue;
            }
            let asked = |id| Some(self.shared.table.lock().waiting.get(&id)?.kind);
            match self.encoding.decode_server(&bytes, &asked) {
                Ok(Some(ServerFrame::Reply { id, ok })) => self.shared.answer(id, Ok(ok)),
                Ok(Some(ServerFrame::Error { id, error })) => self.shared.answer(id, Err(error)),
                Ok(Some(ServerFrame::Push(push))) => self.push(push, pushes).await,
                Ok(None) => {}
                Err(error) => return CloseReason::lost(error.to_string()),
            }
        }
    }

    /// Hands a push to the consumer. Items wait for it; the others are dropped if it is far behind.
    async fn push(&self, push: Push, pushes: &mpsc::Sender<Push>) {
        if let Push::Closing(closing) = &push {
            self.shared.table.lock().closing = Some(CloseReason::from(closing));
        }
        match push {
            // A consumer that has gone does not want them.
            Push::Items(_) => drop(pushes.send(push).await),
            _ => drop(pushes.try_send(push)),
        }
    }

    async fn write(
        &self,
        sink: &mut Sink,
        queue: &mut mpsc::Receiver<Bytes>,
    ) -> Result<(), CloseReason> {
        let mut batch = Vec::with_capacity(WRITE_BATCH);
        loop {
            match tokio::time::timeout(self.keep_alive, queue.recv_many(&mut batch, WRITE_BATCH))
                .await
            {
                Ok(0) => return Ok(()),
                Ok(_) => sink.write(&mut batch).await?,
                Err(_) => sink.probe().await?,
            }
        }
    }
}
