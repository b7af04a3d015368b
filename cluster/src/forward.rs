//! Commands on their way to the leader.
//!
//! All commands of a node pass through one task, in the order in which they were submitted. It
//! gathers what is waiting into a batch, brings the batch to the leader, here or at a peer, and
//! waits for its outcome before it takes the next: while one batch is under way the next one fills.
//! That keeps the order of every connection through elections and retries, and makes one log entry
//! of many commands.
//!
//! A batch whose outcome is unknown is brought again, under the same number, until its commands'
//! deadlines. Sends and creations are told from their own repetition by the store (client id and
//! attempt); cursors and membership changes repeat without harm. A repeated one may be refused for
//! what its first attempt did, or, where a clock has jumped past the dedup window since, for what
//! others did: a refusal after an unknown attempt is reported as unknown. The leader turns away a late
//! copy of an older batch, so that it can't undo a newer one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use roost_raft::{NodeId, ProposeError, Replica};
use roost_storage::command::{Command, Outcome};
use roost_storage::model::ShardId;
use roost_storage::planted::{self, Bug};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::batch::{Batches, Queued, Size};
use crate::propose::Proposer;
use crate::transport::Transport;
use crate::wire::{Answer, Call, Declined, Origin, millis};
use crate::{ClaimTime, Committed, ReadPoint, SubmitError};

/// Commands that may wait on this node.
pub(crate) const MAX_WAITING_COMMANDS: usize = 65_536;
/// Bytes of command content that may wait on this node.
pub(crate) const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// How long one attempt may take before the leader is looked for again.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Pause before the next attempt when there is no better sign to wait for.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// A command with whoever waits for it.
struct Waiting {
    command: Command,
    deadline: Instant,
    reply: oneshot::Sender<Result<Committed, SubmitError>>,
}

/// The way in. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Forwarder {
    queue: mpsc::Sender<Queued<Waiting>>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// What brings batches to the leader.
pub(crate) struct Route {
    pub(crate) node_id: NodeId,
    pub(crate) shard: ShardId,
    pub(crate) incarnation: u64,
    pub(crate) replica: Replica,
    pub(crate) transport: Transport,
    pub(crate) proposer: Proposer,
    /// Counts the read barriers that this node confirmed as the leader.
    pub(crate) read_points: AtomicU64,
}

impl Route {
    /// Confirms a read barrier, if this node leads.
    pub(crate) async fn read_point(&self, deadline: Instant) -> Result<ReadPoint, ProposeError> {
        let read = self.replica.read_index(deadline).await?;
        // The order of confirmations within a term; a node that restarts leads in a later term.
        let count = self.read_points.fetch_add(1, Ordering::Relaxed);
        Ok(ReadPoint { index: read.index, time: ClaimTime { term: read.term, count } })
    }
}

impl Forwarder {
    /// Starts the task.
    pub(crate) fn start(route: Arc<Route>) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING_COMMANDS);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        tokio::spawn(run(route, waiting, waiting_bytes.clone()));
        Self { queue, waiting_bytes }
    }

    /// Queues a command; its place is taken at the call.
    pub(crate) fn submit(
        &self,
        command: Command,
        deadline: Instant,
    ) -> Result<oneshot::Receiver<Result<Committed, SubmitError>>, SubmitError> {
        let bytes = command.encoded_about();
        // Counted before it is queued: the task may take it out, and count it off, at once.
        let before = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let (reply, outcome) = oneshot::channel();
        let waiting = Waiting { command, deadline, reply };
        let queued = match before + bytes > MAX_WAITING_BYTES {
            true => Err(SubmitError::Overloaded),
            false => self.queue.try_send(Queued::now(waiting)).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SubmitError::Overloaded,
                mpsc::error::TrySendError::Closed(_) => SubmitError::Stopped,
            }),
        };
        if queued.is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        queued.map(|()| outcome)
    }
}

async fn run(
    route: Arc<Route>,
    queue: mpsc::Receiver<Queued<Waiting>>,
    waiting_bytes: Arc<AtomicUsize>,
) {
    let mut batches = Batches::of(queue);
    let mut number = 0;
    let size_of = |waiting: &Waiting| Size::of(&route.replica, &waiting.command);
    while let Some((batch, size)) = batches.next(route.replica.has_peers(), size_of).await {
        waiting_bytes.fetch_sub(size.bytes, Ordering::Relaxed);
        number += 1;
        bring(&route, number, batch).await;
    }
}

/// One attempt's result.
enum Attempted {
    Done(u64, Vec<Outcome>),
    /// Nothing was done; this node may lead instead.
    Elsewhere(Option<NodeId>),
    Unknown,
    TooLarge,
    Stopped,
}

/// Brings one batch to its outcome, or its commands to their deadlines.
async fn bring(route: &Route, number: u64, mut batch: Vec<Waiting>) {
    let mut origin = Origin { incarnation: route.incarnation, batch: number, attempt: 0 };
    let mut unknown = false;
    let mut hint = None;
    loop {
        expire(&mut batch, unknown);
        let Some(latest) = batch.iter().map(|waiting| waiting.deadline).max() else { return };
        let known = route.replica.leader();
        let Some(leader) = hint.take().or(known) else {
            let deadline = latest.min(Instant::now() + ATTEMPT_TIMEOUT);
            if route.replica.wait_leader(|_| true, deadline).await.is_none()
                && route.replica.status().role == roost_raft::Role::Stopped
            {
                return settle(batch, &stopped(unknown));
            }
            continue;
        };
        let commands = batch.iter().map(|waiting| waiting.command.clone()).collect();
        let deadline = latest.min(Instant::now() + ATTEMPT_TIMEOUT);
        origin.attempt += 1;
        match attempt(route, Target { leader, known }, origin, commands, deadline).await {
            Attempted::Done(index, outcomes) if outcomes.len() == batch.len() => {
                return finish(batch, index, outcomes, unknown);
            }
            Attempted::Done(..) | Attempted::Unknown => unknown = true,
            Attempted::Elsewhere(other) => hint = other.filter(|other| *other != leader),
            Attempted::TooLarge => return settle(batch, &SubmitError::Overloaded),
            // The entry may be in the log, and with the others: it is the replica that stopped.
            Attempted::Stopped => return settle(batch, &stopped(true)),
        }
        if hint.is_none() {
            let pause = latest.min(Instant::now() + RETRY_PAUSE);
            route.replica.wait_leader(|leader| Some(leader) != known, pause).await;
        }
    }
}

/// What a command is told whose node stopped at a fault: that may undo nothing which was proposed.
fn stopped(unknown: bool) -> SubmitError {
    if unknown && !planted::is(Bug::UndoneWhenStopped) {
        SubmitError::DeadlineExceeded
    } else {
        SubmitError::Stopped
    }
}

/// Ends the commands whose deadline has come.
fn expire(batch: &mut Vec<Waiting>, unknown: bool) {
    let now = Instant::now();
    // While an attempt may still be in the log, every command of the batch must stay in it, or a
    // later attempt would be another batch under the same number.
    if unknown && batch.iter().any(|waiting| waiting.deadline > now) {
        return;
    }
    let error = if unknown { SubmitError::DeadlineExceeded } else { SubmitError::NotAvailable };
    let (expired, open) =
        std::mem::take(batch).into_iter().partition(|waiting| waiting.deadline <= now);
    *batch = open;
    settle(expired, &error);
}

fn settle(batch: Vec<Waiting>, error: &SubmitError) {
    for waiting in batch {
        // Nobody waits any more if the session ended.
        let _ = waiting.reply.send(Err(error.clone()));
    }
}

fn finish(batch: Vec<Waiting>, index: u64, outcomes: Vec<Outcome>, unknown: bool) {
    for (waiting, outcome) in batch.into_iter().zip(outcomes) {
        let result = match outcome {
            Ok(reply) => Ok(Committed { reply, index }),
            Err(_) if unknown => Err(SubmitError::DeadlineExceeded),
            Err(rejection) => Err(SubmitError::Rejected(rejection)),
        };
        let _ = waiting.reply.send(result);
    }
}

/// Where an attempt goes.
#[derive(Clone, Copy)]
struct Target {
    leader: NodeId,
    /// The leader that this node knew. A leader that is handing over names its successor before
    /// anybody else knows it, and perhaps in vain.
    known: Option<NodeId>,
}

async fn attempt(
    route: &Route,
    Target { leader, known }: Target,
    origin: Origin,
    commands: Vec<Command>,
    deadline: Instant,
) -> Attempted {
    if leader == route.node_id {
        return match route.proposer.propose(commands, deadline).await {
            Ok(proposed) => Attempted::Done(proposed.index, proposed.outcomes),
            Err(ProposeError::NotLeader(other)) => Attempted::Elsewhere(other),
            Err(ProposeError::Unknown) => Attempted::Unknown,
            Err(ProposeError::TooLarge) => Attempted::TooLarge,
            Err(ProposeError::Stopped) => Attempted::Stopped,
        };
    }
    let node = route.replica.members().get(&leader).cloned();
    let ttl = deadline.saturating_duration_since(Instant::now());
    let ttl_ms = millis(ttl);
    let call = Call::Forward { shard: route.shard, origin, ttl_ms, commands };
    let another = |newest| newest != leader && Some(newest) != known;
    let answer = tokio::select! {
        answer = route.transport.call(leader, node.as_ref(), &call, deadline) => answer,
        // Another leader is known by now: no use in waiting for the old one's answer.
        Some(_) = route.replica.wait_leader(another, deadline) => return Attempted::Unknown,
    };
    match answer {
        Ok(Answer::Forward(Ok((index, outcomes)))) => Attempted::Done(index, outcomes),
        Ok(Answer::Forward(Err(Declined::NotLeader(other)))) => Attempted::Elsewhere(other),
        Ok(Answer::Forward(Err(Declined::TooLarge))) => Attempted::TooLarge,
        Ok(Answer::Forward(Err(Declined::Unknown | Declined::Stale))) => Attempted::Unknown,
        Ok(Answer::Refused(_)) | Err(roost_raft::TransportError::Unreachable(_)) => {
            Attempted::Elsewhere(None)
        }
        Ok(_) | Err(_) => Attempted::Unknown,
    }
}

/// What an origin's sender had brought before its first attempt: their numbers begin at 1.
fn before(origin: Origin) -> Origin {
    Origin { batch: 0, attempt: 0, ..origin }
}

/// The newest batch of each sender, on the node that leads.
#[derive(Default)]
pub(crate) struct Senders {
    newest: parking_lot::Mutex<HashMap<NodeId, Arc<tokio::sync::Mutex<Origin>>>>,
}

impl Senders {
    /// Carries out a forwarded batch, one at a time for each sender, unless a newer one came first.
    pub(crate) async fn forwarded(
        &self,
        proposer: &Proposer,
        from: NodeId,
        origin: Origin,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<(u64, Vec<Outcome>), Declined> {
        let slot = self
            .newest
            .lock()
            .entry(from)
            .or_insert_with(|| Arc::new(tokio::sync::Mutex::new(before(origin))))
            .clone();
        let mut newest = tokio::time::timeout_at(deadline, slot.lock())
            .await
            .map_err(|_| Declined::NotLeader(None))?;
        // An attempt that the network brings twice is carried out once.
        let late = newest.incarnation == origin.incarnation
            && (newest.batch, newest.attempt) >= (origin.batch, origin.attempt);
        if late {
            return Err(Declined::Stale);
        }
        *newest = origin;
        match proposer.propose(commands, deadline).await {
            Ok(proposed) => Ok((proposed.index, proposed.outcomes)),
            Err(ProposeError::NotLeader(other)) => Err(Declined::NotLeader(other)),
            Err(ProposeError::TooLarge) => Err(Declined::TooLarge),
            Err(ProposeError::Unknown) => Err(Declined::Unknown),
            Err(ProposeError::Stopped) => Err(Declined::Unknown),
        }
    }
}
