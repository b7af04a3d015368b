//! Batches of commands: what bounds one, and how long it waits to fill.
//!
//! Whoever waits for one send's reply before the next has its next one here within a fraction of
//! the time that a log entry takes. A batch that left the moment the last one was done would take
//! only those that came meanwhile: callers would fall into two groups that wait for each other's
//! entries, and an entry costs the same whether it holds one command or a hundred. So a batch waits
//! a little while fewer commands are here than were lately at work. Where that does not bring them,
//! callers have gone, or do not wait for replies but send at times of their own: then it is tried ever
//! more rarely, since a wait would make fewer entries of those, and each of them later.

use std::time::Duration;

use roost_raft::{Patience, Replica};
use roost_storage::command::Command;
use roost_storage::limits::{MAX_BATCH_COMMANDS, TARGET_BATCH_BYTES, TARGET_BATCH_REFERENCES};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How long a batch waits to fill. The runtime's timer may add a millisecond.
const MAX_WAIT: Duration = Duration::from_millis(1);
/// Whoever has not come back so long after the last batch is not waited for.
const MAX_ABSENCE: Duration = Duration::from_millis(5);

/// What of a batch is bounded, since it becomes one entry of the log.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Size {
    pub(crate) commands: usize,
    pub(crate) bytes: usize,
    references: usize,
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

/// Makes batches of what comes through a queue, in its order.
#[derive(Debug)]
pub(crate) struct Batches<T> {
    queue: mpsc::Receiver<T>,
    /// Taken from the queue, and too large for the last batch.
    held: Option<T>,
    linger: Linger,
}

/// A batch that is being filled.
struct Filling<T> {
    items: Vec<T>,
    size: Size,
}

impl<T> Batches<T> {
    pub(crate) fn of(queue: mpsc::Receiver<T>) -> Self {
        Self { queue, held: None, linger: Linger::default() }
    }

    /// The next batch, once the last one is done; `None` when the queue is closed and empty. An
    /// item that is over a bound by itself is a batch of its own. It waits to fill only if `lingers`.
    pub(crate) async fn next(
        &mut self,
        lingers: bool,
        size_of: impl Fn(&T) -> Size,
    ) -> Option<(Vec<T>, Size)> {
        let mut batch = Filling { items: Vec::new(), size: Size::default() };
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
        self.linger.leaves(batch.size.commands);
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
        while self.held.is_none() && batch.size.commands < wait.commands {
            let Ok(Some(item)) = timeout_at(wait.until, self.queue.recv()).await else {
                return self.linger.patience.waited(false);
            };
            self.held = batch.take_in(item, size_of);
        }
        self.linger.patience.waited(true);
    }
}

impl<T> Filling<T> {
    /// Takes an item in, or gives it back if the next batch must have it.
    fn take_in(&mut self, item: T, size_of: &impl Fn(&T) -> Size) -> Option<T> {
        let size = self.size.plus(size_of(&item));
        if !self.items.is_empty() && !size.fits() {
            return Some(item);
        }
        self.size = size;
        self.items.push(item);
        None
    }
}

/// Decides whether a batch waits.
#[derive(Debug, Default)]
struct Linger {
    /// Commands of the last batch.
    last: usize,
    /// When it was done, and what had come meanwhile.
    done: Option<Instant>,
    meanwhile: usize,
    /// A wait pays where it brings all that it was for.
    patience: Patience,
}

/// A batch's wait: until so many commands are here, or the time has come.
#[derive(Debug, Clone, Copy)]
struct Wait {
    commands: usize,
    until: Instant,
}

impl Linger {
    /// The last batch is done, and so many commands have come meanwhile.
    fn begins(&mut self, meanwhile: usize) {
        (self.done, self.meanwhile) = (Some(Instant::now()), meanwhile);
    }

    /// Whether a batch of so many commands waits for more.
    fn wait(&mut self, commands: usize) -> Option<Wait> {
        let now = Instant::now();
        let expected = self.last + self.meanwhile;
        // A few may be late.
        let enough = expected - expected / 32;
        let gone = now >= self.done? + MAX_ABSENCE;
        if commands >= enough || gone || !self.patience.waits() {
            return None;
        }
        Some(Wait { commands: enough, until: now + MAX_WAIT })
    }

    fn leaves(&mut self, commands: usize) {
        self.last = commands;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items are their own sizes, in bytes.
    fn bytes(item: &usize) -> Size {
        Size { commands: 1, bytes: *item, references: 0 }
    }

    fn queue() -> (mpsc::Sender<usize>, Batches<usize>) {
        let (sender, receiver) = mpsc::channel(4_096);
        (sender, Batches::of(receiver))
    }

    fn send(sender: &mpsc::Sender<usize>, count: usize) {
        for _ in 0..count {
            sender.try_send(1).unwrap();
        }
    }

    async fn next_len(batches: &mut Batches<usize>) -> usize {
        batches.next(true, bytes).await.unwrap().0.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_ends_where_one_more_would_be_too_much() {
        let (sender, mut batches) = queue();
        for item in [TARGET_BATCH_BYTES - 1, 1, 1, 2 * TARGET_BATCH_BYTES, 1] {
            sender.try_send(item).unwrap();
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
    async fn a_few_callers_that_come_back_share_a_batch() {
        let (sender, mut batches) = queue();
        send(&sender, 4);
        assert_eq!(next_len(&mut batches).await, 4);
        for _ in 0..100 {
            let (len, ()) = tokio::join!(next_len(&mut batches), async {
                send(&sender, 1);
                tokio::task::yield_now().await;
                send(&sender, 3);
            });
            assert_eq!(len, 4);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn commands_that_come_by_the_clock_are_hardly_waited_for() {
        const TICK: Duration = Duration::from_millis(1);
        let (sender, mut batches) = queue();
        let clock = tokio::spawn(async move {
            loop {
                send(&sender, 10);
                tokio::time::sleep(TICK).await;
            }
        });
        let mut waits = 0;
        for _ in 0..1_000 {
            let began = Instant::now();
            next_len(&mut batches).await;
            waits += u32::from(began.elapsed() >= MAX_WAIT);
            // Its entry.
            tokio::time::sleep(3 * TICK).await;
        }
        clock.abort();
        assert!((1..=20).contains(&waits), "{waits} waits");
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_do_not_come_back_are_waited_for_ever_more_rarely() {
        let (sender, mut batches) = queue();
        let mut waits = 0;
        for _ in 0..1_000 {
            send(&sender, 8);
            let began = Instant::now();
            assert_eq!(next_len(&mut batches).await, 8);
            waits += u32::from(began.elapsed() >= MAX_WAIT);
        }
        assert!((1..=20).contains(&waits), "{waits} waits");
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
