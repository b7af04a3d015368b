//! Whether a batch waits for commands that are not here yet.
//!
//! Whoever waits for one send's reply before the next has its next one here within a fraction of
//! the time that a log entry takes. A batch that left the moment the last one was done would take
//! only those that came meanwhile: callers would fall into two groups that wait for each other's
//! entries, and an entry costs the same whether it holds one command or a hundred. For them it pays to
//! wait a little while fewer commands are here than were lately at work.
//!
//! Commands that come at times of their own are only made later by it. Nothing about one batch tells
//! the two apart: in both cases more commands come soon. So both ways are tried, in turn, and that one
//! is kept by which commands are done sooner. Trials become rare while they change nothing.

use std::time::Duration;

use roost_raft::Patience;
use tokio::time::Instant;

/// How long a batch waits to fill. The runtime's timer may add a millisecond.
pub(crate) const MAX_WAIT: Duration = Duration::from_millis(1);
/// Whoever has not come back so long after the last batch is not waited for.
const MAX_ABSENCE: Duration = Duration::from_millis(5);
/// Batches that could wait, or not, in one round.
const ROUND: u32 = 16;
/// Of them, those at its beginning that still show what was done before.
const UNSETTLED: u32 = 3;
/// The other way is taken where commands are done in less than this part of the time.
const BETTER: f64 = 0.93;

/// A batch's wait: until so many commands are here, or the time has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    pub(crate) commands: usize,
    pub(crate) until: Instant,
}

/// When the commands of a batch came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came {
    first: Instant,
    commands: usize,
    /// How long after the first the others came, all together.
    later: Duration,
}

impl Came {
    /// A batch that has none yet.
    pub(crate) fn none() -> Self {
        Self { first: Instant::now(), commands: 0, later: Duration::ZERO }
    }

    /// So many commands that came at the same time.
    pub(crate) fn add(&mut self, since: Instant, commands: usize) {
        if self.commands == 0 {
            self.first = since;
        }
        self.commands += commands;
        self.later += since.saturating_duration_since(self.first).mul_f64(commands as f64);
    }

    /// How long they have been here by now, all together.
    fn spent(&self, now: Instant) -> Duration {
        let if_at_once = now.saturating_duration_since(self.first).mul_f64(self.commands as f64);
        if_at_once.saturating_sub(self.later)
    }
}

/// Decides whether batches wait.
#[derive(Debug)]
pub(crate) struct Linger {
    last: Came,
    /// When the last batch was done, and what had come meanwhile.
    done: Instant,
    meanwhile: usize,
    trial: Trial,
}

impl Linger {
    pub(crate) fn new() -> Self {
        Self { last: Came::none(), done: Instant::now(), meanwhile: 0, trial: Trial::default() }
    }

    /// The last batch is done, and so many commands have come meanwhile.
    pub(crate) fn begins(&mut self, meanwhile: usize) {
        (self.done, self.meanwhile) = (Instant::now(), meanwhile);
        self.trial.score.add(self.last.spent(self.done), self.last.commands);
    }

    /// Whether a batch of so many commands waits for more.
    pub(crate) fn wait(&mut self, commands: usize) -> Option<Wait> {
        let now = Instant::now();
        let expected = self.last.commands + self.meanwhile;
        // A few may be late.
        let enough = expected - expected / 32;
        if commands >= enough || now >= self.done + MAX_ABSENCE || !self.trial.waits() {
            return None;
        }
        Some(Wait { commands: enough, until: now + MAX_WAIT })
    }

    /// The batch leaves.
    pub(crate) fn leaves(&mut self, batch: Came) {
        self.last = batch;
    }
}

/// How long commands took, on average.
#[derive(Debug, Clone, Copy, Default)]
struct Score {
    spent: Duration,
    commands: usize,
}

impl Score {
    fn add(&mut self, spent: Duration, commands: usize) {
        self.spent += spent;
        self.commands += commands;
    }

    fn mean(self) -> f64 {
        self.spent.as_secs_f64() / self.commands.max(1) as f64
    }
}

/// Where a trial is: a round of the usual way, one of the other, and one of the usual again, since the
/// load and the machine change by themselves.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Usual,
    Other { before: f64 },
    Again { before: f64, other: f64 },
}

/// Tries both ways.
#[derive(Debug)]
struct Trial {
    /// What is usual now.
    waits: bool,
    stage: Stage,
    /// Batches of this round in which it made a difference.
    batches: u32,
    score: Score,
    /// A trial pays where it changes what is usual.
    patience: Patience,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            waits: true,
            stage: Stage::Usual,
            batches: 0,
            score: Score::default(),
            patience: Patience::default(),
        }
    }
}

impl Trial {
    /// Whether a batch that could wait does.
    fn waits(&mut self) -> bool {
        match self.batches {
            UNSETTLED => self.score = Score::default(),
            ROUND => self.round_ends(),
            _ => {}
        }
        self.batches += 1;
        match self.stage {
            Stage::Usual | Stage::Again { .. } => self.waits,
            Stage::Other { .. } => !self.waits,
        }
    }

    fn round_ends(&mut self) {
        let mean = self.score.mean();
        self.stage = match self.stage {
            Stage::Usual if self.patience.waits() => Stage::Other { before: mean },
            Stage::Usual => Stage::Usual,
            Stage::Other { before } => Stage::Again { before, other: mean },
            Stage::Again { before, other } => {
                let better = other < BETTER * before.min(mean);
                self.waits ^= better;
                self.patience.waited(better);
                Stage::Usual
            }
        };
        (self.batches, self.score) = (0, Score::default());
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};
    use tokio::task::AbortHandle;
    use tokio::time::sleep;

    use super::*;
    use crate::batch::{Batches, Queued, Size};

    /// How long an entry takes, whatever it holds.
    const ENTRY: Duration = Duration::from_millis(4);

    /// Whoever sent it hears when it is done.
    type Item = oneshot::Sender<()>;

    fn one_command(_: &Item) -> Size {
        Size { commands: 1, ..Size::default() }
    }

    /// What batches were made of, in all.
    #[derive(Default)]
    struct Made {
        batches: usize,
        commands: usize,
        waits: usize,
    }

    /// A queue whose batches are entries.
    struct Load {
        queue: mpsc::Sender<Queued<Item>>,
        batches: Batches<Item>,
    }

    impl Load {
        fn new() -> Self {
            let (queue, receiver) = mpsc::channel(4_096);
            Self { queue, batches: Batches::of(receiver) }
        }

        /// Callers that send again as soon as they are answered.
        fn callers(&self, count: usize) -> Vec<AbortHandle> {
            let caller = |number: usize, queue: mpsc::Sender<Queued<Item>>| async move {
                loop {
                    let (done, answer) = oneshot::channel();
                    if queue.send(Queued::now(done)).await.is_err() || answer.await.is_err() {
                        return;
                    }
                    // The answer's way, and the next request's: less than the clock shows.
                    for _ in 0..=number % 7 {
                        tokio::task::yield_now().await;
                    }
                }
            };
            let spawn = |number| tokio::spawn(caller(number, self.queue.clone())).abort_handle();
            (0..count).map(spawn).collect()
        }

        /// So many commands a millisecond, whatever becomes of them.
        fn clock(&self, count: usize) -> AbortHandle {
            let queue = self.queue.clone();
            let clock = async move {
                loop {
                    for _ in 0..count {
                        let item = Queued::now(oneshot::channel().0);
                        if queue.send(item).await.is_err() {
                            return;
                        }
                    }
                    sleep(Duration::from_millis(1)).await;
                }
            };
            tokio::spawn(clock).abort_handle()
        }

        async fn run(&mut self, batches: usize) -> Made {
            let mut made = Made::default();
            for _ in 0..batches {
                let began = Instant::now();
                let (items, size) = self.batches.next(true, one_command).await.unwrap();
                made.batches += 1;
                made.commands += size.commands;
                made.waits += usize::from(began.elapsed() >= MAX_WAIT);
                sleep(ENTRY).await;
                // One that came by the clock waits for no answer.
                for item in items {
                    let _ = item.send(());
                }
            }
            made
        }
    }

    impl Made {
        fn mean(&self) -> usize {
            self.commands / self.batches
        }
    }

    #[test]
    fn what_commands_spent_counts_from_when_each_came() {
        let base = Instant::now();
        let after = |ms| base + Duration::from_millis(ms);
        let mut came = Came::none();
        for (ms, commands) in [(0, 1), (2, 3), (3, 1)] {
            came.add(after(ms), commands);
        }
        assert_eq!(came.spent(after(10)), Duration::from_millis(10 + 3 * 8 + 7));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_come_back_share_batches() {
        for callers in [2, 4, 64] {
            let mut load = Load::new();
            let _callers = load.callers(callers);
            load.run(100).await;
            let mean = load.run(2_000).await.mean();
            assert!(mean >= callers * 9 / 10, "{mean} of {callers} callers in a batch");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn commands_that_come_by_the_clock_are_hardly_waited_for() {
        for each_ms in [1, 3, 10] {
            let mut load = Load::new();
            let _clock = load.clock(each_ms);
            load.run(200).await;
            let waits = load.run(1_000).await.waits;
            assert!(waits <= 60, "{waits} waits at {each_ms} a millisecond");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_that_changes_is_noticed() {
        let mut load = Load::new();
        let clock = load.clock(10);
        load.run(2_000).await;
        clock.abort();
        let callers = load.callers(32);
        load.run(5_000).await;
        assert!(load.run(500).await.mean() >= 28);
        callers.iter().for_each(AbortHandle::abort);
        let _clock = load.clock(10);
        load.run(5_000).await;
        assert!(load.run(500).await.waits <= 60);
    }
}
