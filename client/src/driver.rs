//! The task of a [`Client`](crate::Client): finds a node, serves the calls over it, finds the next.
//!
//! A node that is silent is asked for a sign of life before it is given up, because QUIC says
//! nothing about a process that died, and an answer may take as long as a new leader's election.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use roost_protocol::request::{Ack, Ping};
use roost_protocol::{CloseCode, ErrorCode, OkBody, Operation, Push, Token, limits};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::client::{ClientOptions, Command, Link, TokenSource};
use crate::connection::{Connection, Pushes};
use crate::error::{ClientError, CloseReason};
use crate::items::{Feed, Offered};
use crate::pending::{PendingCalls, Settled};

/// Answers in a row that say "not now" before another node is tried.
const TROUBLE_LIMIT: u32 = 4;
/// Time for an attempt to connect while there are nodes that were not tried: one that died says
/// nothing over QUIC, and the next may be up.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Refusals of a token in a row after which the client gives up; the second is of a fresh token.
const UNAUTHORIZED_LIMIT: u32 = 2;
/// Time for the last acknowledgement when the client is closed.
const LAST_ACK: Duration = Duration::from_secs(2);

/// The state of a client.
pub(crate) struct Driver {
    options: ClientOptions,
    commands: mpsc::Receiver<Command>,
    link: watch::Sender<Link>,
    feed: Feed,
    calls: PendingCalls,
    /// The newest applied index that any node showed.
    applied: u64,
    /// Which endpoint is next.
    next_endpoint: usize,
    /// Attempts to connect since the last connection that was of use.
    failures: u32,
    unauthorized: u32,
    ack: AckState,
}

/// Automatic acknowledgement.
#[derive(Default)]
struct AckState {
    /// The cursor, as far as known.
    acknowledged: u64,
    /// When what was consumed has to be acknowledged at the latest.
    due: Option<Instant>,
    /// The acknowledgement under way.
    pending: Option<BoxFuture<'static, Result<OkBody, ClientError>>>,
}

/// Why a connection is no longer served.
enum End {
    /// Look for a node again.
    Reconnect(CloseReason),
    /// End the client.
    Stop(ClientError),
}

/// One connection being served.
struct Live {
    connection: Connection,
    pushes: Pushes,
    probe: Option<BoxFuture<'static, bool>>,
    trouble: u32,
}

impl Driver {
    pub(crate) fn new(
        options: ClientOptions,
        commands: mpsc::Receiver<Command>,
        link: watch::Sender<Link>,
        feed: Feed,
    ) -> Self {
        Self {
            options,
            commands,
            link,
            feed,
            calls: PendingCalls::default(),
            applied: 0,
            next_endpoint: 0,
            failures: 0,
            unauthorized: 0,
            ack: AckState::default(),
        }
    }

    pub(crate) async fn run(mut self) {
        let error = loop {
            let (connection, pushes) = match self.connect().await {
                Ok(opened) => opened,
                Err(error) => break error,
            };
            let end = self.serve(connection, pushes).await;
            match end {
                End::Reconnect(reason) => {
                    tracing::debug!(%reason, "connection ended");
                    self.calls.disconnected(&reason);
                    self.link.send_replace(Link::Connecting(Some(ClientError::Closed(reason))));
                }
                End::Stop(error) => break error,
            }
        };
        let reason = match &error {
            ClientError::Closed(reason) | ClientError::Lost(reason) => reason.clone(),
            other => CloseReason { reconnect: false, ..CloseReason::lost(other.to_string()) },
        };
        self.calls.fail_all(&error, &reason);
        // Before the queue goes, so that a call finds out why it is gone.
        self.link.send_replace(Link::Down(error));
    }

    /// Tries one node after the other; fails when no attempt can succeed.
    async fn connect(&mut self) -> Result<(Connection, Pushes), ClientError> {
        loop {
            let error = match Box::pin(self.attempt()).await {
                Ok(opened) => return Ok(opened),
                Err(error) => error,
            };
            tracing::debug!(%error, "cannot connect");
            self.check_final(&error)?;
            let wait = self.wait_after(&error);
            self.link.send_replace(Link::Connecting(Some(error)));
            self.pause(wait).await?;
        }
    }

    async fn attempt(&mut self) -> Result<(Connection, Pushes), ClientError> {
        let place = self.next_endpoint % self.options.endpoints.len();
        self.next_endpoint = place + 1;
        let token = token(self.options.tokens.clone()).await?;
        let mut options = self.options.connection(self.options.endpoints[place].clone(), token);
        let asked = self.feed.resume_after().or(self.options.after);
        options.after = asked;
        options.applied = (self.applied > 0).then_some(self.applied);
        if self.failures.saturating_add(1) < self.nodes() {
            options.connect_timeout = options.connect_timeout.min(FIRST_LOOK);
        }
        let (connection, pushes) = Connection::open(&options).await?;
        let connected = connection.connected();
        self.applied = self.applied.max(connected.applied);
        self.unauthorized = 0;
        self.ack.acknowledged = connected.cursor;
        if self.options.window != Some(0) {
            self.feed.connected(asked, connected);
        }
        self.link.send_replace(Link::Up(Arc::new(connected.clone())));
        Ok((connection, pushes))
    }

    /// Whether an error to connect, or the end of a connection, is for good.
    fn check_final(&mut self, error: &ClientError) -> Result<(), ClientError> {
        let unauthorized = error.code() == Some(ErrorCode::Unauthorized)
            || matches!(error, ClientError::Closed(reason) if reason.code == Some(CloseCode::Unauthorized));
        let again = if unauthorized {
            self.unauthorized += 1;
            matches!(self.options.tokens, TokenSource::Fetch(_))
                && self.unauthorized < UNAUTHORIZED_LIMIT
        } else {
            error.retry()
        };
        if again { Ok(()) } else { Err(error.clone()) }
    }

    fn nodes(&self) -> u32 {
        u32::try_from(self.options.endpoints.len()).unwrap_or(u32::MAX)
    }

    /// How long to wait before the next attempt: little while there are nodes that were not tried.
    fn wait_after(&mut self, error: &ClientError) -> Duration {
        let nodes = self.nodes();
        let wait = self.options.backoff().delay(self.failures / nodes);
        self.failures = self.failures.saturating_add(1);
        match error.retry_after() {
            Some(asked) if nodes == 1 || self.failures.is_multiple_of(nodes) => wait.max(asked),
            _ => wait,
        }
    }

    /// Waits, unless nobody wants the client any more.
    async fn pause(&mut self, wait: Duration) -> Result<(), ClientError> {
        let until = Instant::now() + wait;
        loop {
            let room = self.calls.len() < limits::MAX_IN_FLIGHT;
            tokio::select! {
                () = tokio::time::sleep_until(until) => return Ok(()),
                command = self.commands.recv(), if room => self.take(command)?,
                () = self.feed.deliver(), if self.feed.has_backlog() => {}
            }
        }
    }

    /// Takes a command over; fails when the client is to end.
    fn take(&mut self, command: Option<Command>) -> Result<(), ClientError> {
        match command {
            Some(Command::Call { operation, reply }) => {
                self.calls.add(operation, reply);
                Ok(())
            }
            Some(Command::Close) | None => Err(ClientError::Closed(CloseReason::local())),
        }
    }

    /// Serves the calls over one connection until its end.
    async fn serve(&mut self, connection: Connection, pushes: Pushes) -> End {
        let mut live = Live { connection, pushes, probe: None, trouble: 0 };
        self.ack.pending = None;
        let end = loop {
            self.calls.send_due(&live.connection);
            self.start_ack(&live.connection);
            if let Some(end) = self.step(&mut live).await {
                break end;
            }
        };
        live.connection.close();
        end
    }

    /// Waits for the next event and deals with it.
    async fn step(&mut self, live: &mut Live) -> Option<End> {
        let room = self.calls.len() < limits::MAX_IN_FLIGHT;
        let wake = self.next_wake(live);
        let progress = self.feed.progress().clone();
        let auto_ack = self.options.auto_ack.is_some();
        tokio::select! {
            push = live.pushes.next() => match push {
                Some(push) => self.pushed(push),
                None => Some(self.ended(live.connection.closed().await)),
            },
            attempt = self.calls.next_ended() => {
                let settled = self.calls.settle(attempt, self.options.backoff());
                self.settled(live, settled)
            }
            command = self.commands.recv(), if room => {
                let stop = self.take(command).err()?;
                self.last_ack(&live.connection).await;
                Some(End::Stop(stop))
            }
            () = self.feed.deliver(), if self.feed.has_backlog() => None,
            () = progress.moved(), if auto_ack => {
                self.consumed();
                None
            }
            result = optional(&mut self.ack.pending) => {
                self.ack.pending = None;
                self.acknowledged(result);
                None
            }
            alive = optional(&mut live.probe) => {
                live.probe = None;
                let silent = || End::Reconnect(CloseReason::lost("the node is silent"));
                (!alive).then(silent)
            }
            () = tokio::time::sleep_until(wake) => {
                self.start_probe(live);
                None
            }
        }
    }

    /// When to look again though nothing happened.
    fn next_wake(&self, live: &Live) -> Instant {
        let quiet = self.probe_after().saturating_sub(live.connection.silent_for());
        // While a probe is under way, its own time-out counts.
        let quiet = if live.probe.is_some() { self.options.probe_timeout } else { quiet };
        let mut wake = Instant::now() + quiet;
        if self.ack.pending.is_none() {
            wake = self.ack.due.map_or(wake, |due| wake.min(due));
        }
        self.calls.next_due().map_or(wake, |due| wake.min(due))
    }

    fn probe_after(&self) -> Duration {
        if self.calls.any_sent() { self.options.probe_after } else { self.options.idle_probe_after }
    }

    /// Asks a silent node for a sign of life. A full connection is asked by its calls already.
    fn start_probe(&self, live: &mut Live) {
        if live.probe.is_some() || live.connection.silent_for() < self.probe_after() {
            return;
        }
        let ping = live.connection.try_submit(&Operation::Ping(Ping {}));
        let timeout = self.options.probe_timeout;
        let heard = live.connection.clone();
        let probe = async move {
            let answered = async {
                match ping {
                    Ok(Some(ping)) => ping.wait().await.is_ok(),
                    Ok(None) | Err(_) => std::future::pending().await,
                }
            };
            // Any traffic is a sign of life, also an answer to another request.
            tokio::time::timeout(timeout, answered).await.unwrap_or(false)
                || heard.silent_for() < timeout
        };
        live.probe = Some(probe.boxed());
    }

    fn pushed(&mut self, push: Push) -> Option<End> {
        let Push::Items(push) = push else { return None };
        for item in push.items {
            if self.feed.offer(item) == Offered::Gap {
                return Some(End::Reconnect(CloseReason::lost("the node skipped an item")));
            }
        }
        self.applied = self.applied.max(push.applied);
        self.failures = 0;
        None
    }

    fn settled(&mut self, live: &mut Live, settled: Settled) -> Option<End> {
        match settled {
            Settled::Answered(applied) => {
                self.applied = self.applied.max(applied);
                self.failures = 0;
                live.trouble = 0;
                None
            }
            Settled::PutOff => {
                live.trouble += 1;
                let elsewhere = live.trouble >= TROUBLE_LIMIT && self.options.endpoints.len() > 1;
                let reason = || CloseReason::lost("the node cannot serve now");
                (elsewhere && live.connection.close_reason().is_none())
                    .then(|| End::Reconnect(reason()))
            }
        }
    }

    /// The connection ended by itself.
    fn ended(&mut self, reason: CloseReason) -> End {
        let error = ClientError::Closed(reason.clone());
        match self.check_final(&error) {
            Ok(()) => End::Reconnect(reason),
            Err(error) => End::Stop(error),
        }
    }

    /// The consumer got further: an acknowledgement is due, now or soon.
    fn consumed(&mut self) {
        let Some(auto_ack) = self.options.auto_ack else { return };
        let half_window = u64::from(limits::window_size(self.options.window) / 2).max(1);
        let unacknowledged = self.feed.progress().consumed().saturating_sub(self.ack.acknowledged);
        let now = Instant::now();
        if unacknowledged >= auto_ack.items.min(half_window) {
            self.ack.due = Some(now);
        } else if unacknowledged > 0 {
            self.ack.due.get_or_insert(now + auto_ack.delay);
        }
    }

    /// Sends the acknowledgement that is due, one at a time.
    fn start_ack(&mut self, connection: &Connection) {
        if self.ack.pending.is_some() || self.ack.due.is_none_or(|due| due > Instant::now()) {
            return;
        }
        let seq = self.feed.progress().consumed();
        if seq <= self.ack.acknowledged {
            self.ack.due = None;
            return;
        }
        if let Ok(Some(ack)) = connection.try_submit(&Operation::Ack(Ack { seq })) {
            self.ack.due = None;
            self.ack.pending = Some(ack.wait().boxed());
        } else {
            self.put_off_ack();
        }
    }

    fn acknowledged(&mut self, result: Result<OkBody, ClientError>) {
        match result {
            Ok(OkBody::Acked(acked)) => {
                self.applied = self.applied.max(acked.applied);
                self.ack.acknowledged = self.ack.acknowledged.max(acked.cursor);
                self.failures = 0;
                self.consumed();
            }
            _ => self.put_off_ack(),
        }
    }

    fn put_off_ack(&mut self) {
        let delay = self.options.auto_ack.unwrap_or_default().delay;
        self.ack.due = Some(Instant::now() + delay.max(self.options.min_backoff));
    }

    /// Acknowledges what was consumed before the client ends.
    async fn last_ack(&mut self, connection: &Connection) {
        if self.options.auto_ack.is_none() {
            return;
        }
        let seq = self.feed.progress().consumed();
        if seq > self.ack.acknowledged
            && let Ok(pending) = connection.submit(&Operation::Ack(Ack { seq })).await
        {
            // If it fails, the device sees these items again: no harm.
            let _ = tokio::time::timeout(LAST_ACK, pending.wait()).await;
        }
    }
}

async fn token(tokens: TokenSource) -> Result<Token, ClientError> {
    match tokens {
        TokenSource::Fixed(token) => Ok(token),
        TokenSource::Fetch(fetch) => fetch()
            .await
            .map_err(|reason| ClientError::Connect { endpoint: "the token source".into(), reason }),
    }
}

/// The outcome of a future that may not be there; never, while it is not.
async fn optional<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
