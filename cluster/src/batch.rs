//! Batches of commands: what bounds one, and how it fills. Whether it waits for that says [`Linger`].

use roost_raft::Replica;
use roost_storage::command::Command;
use roost_storage::limits::{MAX_BATCH_COMMANDS, TARGET_BATCH_BYTES, TARGET_BATCH_REFERENCES};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::linger::{Came, Linger, Wait};

/// What of a batch is bounded, since it becomes one entry of the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) commands: usize,
    pub(crate) bytes: usize,
    pub(crate) references: usize,
}

impl Size {
    pub(crate) fn of(replica: &Replica, command: &Command) -> Self {
        Self {
            commands: 1,
            bytes: command.encoded_about(),
            references: references(replica, command),
        }
    }

    /// Both together.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            commands: self.commands + other.commands,
            bytes: self.bytes + other.bytes,
            references: self.references + other.references,
        }
    }

    fn fits(self) -> bool {
        self.commands <= MAX_BATCH_COMMANDS
            && self.bytes <= TARGET_BATCH_BYTES
            && self.references <= TARGET_BATCH_REFERENCES
    }
}

/// How many references of its own a command appends, about. A send's continue runs that are there,
/// and so cost next to nothing.
fn references(replica: &Replica, command: &Command) -> usize {
    match command {
        Command::Send { .. } => 0,
        // A store that can't tell any more refuses the command itself, and one that is being replaced is
        // no leader's, who counts again.
        command => {
            let seen = replica.store().try_view(|view| view.fan_out(command));
            seen.map_or(0, |count| count.unwrap_or(0))
        }
    }
}

/// An item on its way into a batch, and since when.
#[derive(Debug)]
pub(crate) struct Queued<T> {
    item: T,
    since: Instant,
}

impl<T> Queued<T> {
    pub(crate) fn now(item: T) -> Self {
        Self { item, since: Instant::now() }
    }
}

/// Makes batches of what comes through a queue, in its order.
#[derive(Debug)]
pub(crate) struct Batches<T> {
    queue: mpsc::Receiver<Queued<T>>,
    /// Taken from the queue, and too large for the last batch.
    held: Option<Queued<T>>,
    linger: Linger,
}

/// A batch that is being filled.
struct Filling<T> {
    items: Vec<T>,
    size: Size,
    came: Came,
}

impl<T> Batches<T> {
    pub(crate) fn of(queue: mpsc::Receiver<Queued<T>>) -> Self {
        Self { queue, held: None, linger: Linger::new() }
    }

    /// The next batch, once the last one is done; `None` when the queue is closed and empty. An
    /// item that is over a bound by itself is a batch of its own. It waits to fill only if `lingers`.
    pub(crate) async fn next(
        &mut self,
        lingers: bool,
        size_of: impl Fn(&T) -> Size,
    ) -> Option<(Vec<T>, Size)> {
        let mut batch = Filling { items: Vec::new(), size: Size::default(), came: Came::none() };
        if let Some(held) = self.held.take() {
            batch.take_in(held, &size_of);
        }
        self.take_waiting(&mut batch, &size_of);
        self.linger.begins(batch.size.commands);
        if batch.items.is_empty() {
            batch.take_in(self.queue.recv().await?, &size_of);
            self.take_waiting(&mut batch, &size_of);
        }
        if lingers && let Some(wait) = self.linger.wait(batch.size.commands) {
            self.fill(&mut batch, wait, &size_of).await;
        }
        self.linger.leaves(batch.came);
        Some((batch.items, batch.size))
    }

    fn take_waiting(&mut self, batch: &mut Filling<T>, size_of: &impl Fn(&T) -> Size) {
        while self.held.is_none()
            && let Ok(item) = self.queue.try_recv()
        {
            self.held = batch.take_in(item, size_of);
        }
    }

    async fn fill(&mut self, batch: &mut Filling<T>, wait: Wait, size_of: &impl Fn(&T) -> Size) {
        while self.held.is_none()
            && batch.size.commands < wait.commands
            && let Ok(Some(item)) = timeout_at(wait.until, self.queue.recv()).await
        {
            self.held = batch.take_in(item, size_of);
        }
    }
}
impl<T> Filling<T> {
    /// Takes an item in, or gives it back if the next batch must have it.
    fn take_in(&mut self, queued: Queued<T>, size_of: &impl Fn(&T) -> Size) -> Option<Queued<T>> {
        let own = size_of(&queued.item);
        let size = self.size.plus(own);
        if !self.items.is_empty() && !size.fits() {
            return Some(queued);
        }
        self.size = size;
        self.came.add(queued.since, own.commands);
        self.items.push(queued.item);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::linger::MAX_WAIT;

    /// Items are their own sizes, in bytes.
    fn bytes(item: &usize) -> Size {
        Size { commands: 1, bytes: *item, references: 0 }
    }

    fn queue() -> (mpsc::Sender<Queued<usize>>, Batches<usize>) {
        let (sender, receiver) = mpsc::channel(4_096);
        (sender, Batches::of(receiver))
    }

    fn send(sender: &mpsc::Sender<Queued<usize>>, count: usize) {
        for _ in 0..count {
            sender.try_send(Queued::now(1)).unwrap();
        }
    }

    async fn next_len(batches: &mut Batches<usize>) -> usize {
        batches.next(true, bytes).await.unwrap().0.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_ends_where_one_more_would_be_too_much() {
        let (sender, mut batches) = queue();
        for item in [TARGET_BATCH_BYTES - 1, 1, 1, 2 * TARGET_BATCH_BYTES, 1] {
            sender.try_send(Queued::now(item)).unwrap();
        }
        drop(sender);
        assert_eq!(batches.next(true, bytes).await.unwrap().0, [TARGET_BATCH_BYTES - 1, 1]);
        assert_eq!(batches.next(true, bytes).await.unwrap().0, [1]);
        assert_eq!(batches.next(true, bytes).await.unwrap().0, [2 * TARGET_BATCH_BYTES]);
        assert_eq!(batches.next(true, bytes).await.unwrap().0, [1]);
        assert!(batches.next(true, bytes).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_command_never_waits() {
        let (sender, mut batches) = queue();
        let began = Instant::now();
        for _ in 0..100 {
            let (len, ()) = tokio::join!(next_len(&mut batches), async { send(&sender, 1) });
            assert_eq!(len, 1);
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn two_groups_of_callers_become_one() {
        let (sender, mut batches) = queue();
        send(&sender, 8);
        assert_eq!(next_len(&mut batches).await, 8);
        // The others come while the first batch is under way, its callers after it.
        send(&sender, 8);
        let (len, ()) = tokio::join!(next_len(&mut batches), async {
            tokio::time::sleep(MAX_WAIT / 2).await;
            send(&sender, 8);
        });
        assert_eq!(len, 16);
    }

    #[tokio::test(start_paused = true)]
    async fn without_lingering_two_groups_stay_two() {
        let (sender, mut batches) = queue();
        send(&sender, 8);
        assert_eq!(batches.next(false, bytes).await.unwrap().0.len(), 8);
        send(&sender, 4);
        let (batch, ()) = tokio::join!(batches.next(false, bytes), async { send(&sender, 4) });
        assert_eq!(batch.unwrap().0.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_time_nobody_is_waited_for() {
        let (sender, mut batches) = queue();
        send(&sender, 64);
        assert_eq!(next_len(&mut batches).await, 64);
        let (took, ()) = tokio::join!(
            async {
                assert_eq!(next_len(&mut batches).await, 1);
                Instant::now()
            },
            async {
                tokio::time::sleep(10 * MAX_WAIT).await;
                send(&sender, 1);
            }
        );
        assert_eq!(took, Instant::now());
    }
}
