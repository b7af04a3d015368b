//! Proposals on the leader: what several nodes bring at the same time becomes one log entry.
//!
//! An entry costs the cluster about the same whether it holds one command or a hundred: a sync on
//! each disk, a message to each peer, a dozen wake-ups. So one proposal is under way at a time, and
//! the batches that come meanwhile, this node's own and its peers', make the next one together, in
//! the order in which they came. Alone, a batch is proposed at once ([`Batches`]).

use roost_raft::{ProposeError, Proposed, Replica};
use roost_storage::command::Command;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::batch::{Batches, Queued, Size};

/// Batches that may wait: each node has one under way, and a few late copies may be here too.
const MAX_WAITING: usize = 256;

/// One batch, and who waits for its outcomes.
struct Part {
    commands: Vec<Command>,
    size: Size,
    deadline: Instant,
    reply: oneshot::Sender<Result<Proposed, ProposeError>>,
}

/// The way in. Clones share it.
#[derive(Clone)]
pub(crate) struct Proposer {
    replica: Replica,
    queue: mpsc::Sender<Queued<Part>>,
}

impl Proposer {
    pub(crate) fn start(replica: Replica) -> Self {
        let (queue, waiting) = mpsc::channel(MAX_WAITING);
        tokio::spawn(run(replica.clone(), waiting));
        Self { replica, queue }
    }

    /// Proposes a batch; the index is its entry's, the outcomes are its own.
    pub(crate) async fn propose(
        &self,
        commands: Vec<Command>,
        deadline: Instant,
    ) -> Result<Proposed, ProposeError> {
        let size = commands
            .iter()
            .map(|command| Size::of(&self.replica, command))
            .fold(Size::default(), Size::plus);
        let (reply, outcome) = oneshot::channel();
        let part = Part { commands, size, deadline, reply };
        match tokio::time::timeout_at(deadline, self.queue.send(Queued::now(part))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(ProposeError::Stopped),
            // It never came into the queue.
            Err(_) => return Err(ProposeError::NotLeader(None)),
        }
        match tokio::time::timeout_at(deadline, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::Unknown),
        }
    }
}

async fn run(replica: Replica, queue: mpsc::Receiver<Queued<Part>>) {
    let mut batches = Batches::of(queue);
    while let Some((mut parts, _)) = batches.next(replica.has_peers(), |part| part.size).await {
        // Whoever waited for it has given up: it must not be proposed behind their back.
        parts.retain(|part| !part.reply.is_closed());
        entry(&replica, parts).await;
    }
}

/// Proposes parts as one entry, and gives each its own outcomes.
async fn entry(replica: &Replica, mut parts: Vec<Part>) {
    let Some(deadline) = parts.iter().map(|part| part.deadline).max() else { return };
    let commands = parts.iter_mut().flat_map(|part| std::mem::take(&mut part.commands)).collect();
    match replica.propose(commands, deadline).await {
        Ok(Proposed { index, outcomes }) => {
            let mut outcomes = outcomes.into_iter();
            for part in parts {
                let outcomes = outcomes.by_ref().take(part.size.commands).collect();
                // Nobody waits any more if the deadline came.
                let _ = part.reply.send(Ok(Proposed { index, outcomes }));
            }
        }
        Err(error) => {
            for part in parts {
                let _ = part.reply.send(Err(error.clone()));
            }
        }
    }
}
