//! Reads that are fresh: which index must be applied here to show everything acknowledged so far.
//!
//! Barriers that wait at the same time share one round: a round that begins after a barrier was
//! asked for covers it. One round costs the leader one exchange with a majority.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::forward::Route;
use crate::wire::{Answer, Call, millis};
use crate::{ReadPoint, SubmitError};

/// Barriers that may wait on this node.
const MAX_WAITING: usize = 65_536;
/// How long one round may take.
const ROUND_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Pause before the next round after one that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

struct Waiting {
    deadline: Instant,
    reply: oneshot::Sender<Result<ReadPoint, SubmitError>>,
}

/// The way in. Clones share the queue.
#[derive(Clone)]
pub(crate) struct Barrier {
    queue: mpsc::Sender<Waiting>,
}

impl Barrier {
    pub(crate) fn start(route: Arc<Route>) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(route, waiting));
        Self { queue }
    }

    /// A point that covers everything acknowledged before the call.
    pub(crate) async fn point(&self, deadline: Instant) -> Result<ReadPoint, SubmitError> {
        let (reply, point) = oneshot::channel();
        self.queue.try_send(Waiting { deadline, reply }).map_err(|_| SubmitError::Overloaded)?;
        match tokio::time::timeout_at(deadline, point).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(SubmitError::Stopped),
            Err(_) => Err(SubmitError::NotAvailable),
        }
    }
}

async fn run(route: Arc<Route>, mut queue: mpsc::Receiver<Waiting>) {
    let mut waiting = Vec::new();
    loop {
        if waiting.is_empty() {
            match queue.recv().await {
                Some(first) => waiting.push(first),
                None => return,
            }
        }
        while let Ok(next) = queue.try_recv() {
            waiting.push(next);
        }
        match round(&route).await {
            Ok(point) => {
                for waiting in waiting.drain(..) {
                    let _ = waiting.reply.send(Ok(point));
                }
            }
            Err(()) => {
                let now = Instant::now();
                waiting.retain(|waiting| waiting.deadline > now && !waiting.reply.is_closed());
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}

async fn round(route: &Route) -> Result<ReadPoint, ()> {
    let deadline = Instant::now() + ROUND_TIMEOUT;
    let leader = route.replica.wait_leader(|_| true, deadline).await.ok_or(())?;
    if leader == route.node_id {
        return route.read_point(deadline).await.map_err(drop);
    }
    let node = route.replica.members().get(&leader).cloned();
    let call = Call::ReadIndex { shard: route.shard, ttl_ms: millis(ROUND_TIMEOUT) };
    match route.transport.call(leader, node.as_ref(), &call, deadline).await {
        Ok(Answer::ReadIndex(Ok(point))) => Ok(point),
        _ => Err(()),
    }
}
