//! Work that may take its time: on a thread of lower priority, and with pauses.
//!
//! Checkpoints and the engine's merging take processors in bursts. On a machine with few of them
//! they would have the same share as the threads that clients wait for. A lower priority alone is
//! not enough: what is woken meanwhile is late all the same, however low it is. Hence [`Pace`].

use std::cell::Cell;
use std::io;
use std::panic::resume_unwind;
use std::thread::{self, Builder};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use rustix::{process::setpriority_process, thread::gettid};

/// How much less the scheduler gives such a thread, as `nice` counts it: about a tenth of another
/// one's share where both want the same processor, all of it where nobody else does.
const NICE: i32 = 10;

/// How long paced work goes on between pauses.
const STRETCH: Duration = Duration::from_micros(500);
/// How long each of its pauses is: three quarters of the time.
const PAUSE: Duration = Duration::from_micros(1_500);
/// Pieces of work between two looks at the clock; each is a few microseconds.
const PIECES: u32 = 16;

thread_local! {
    static IN_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Runs work on a thread of lower priority and waits for it. Threads that the work starts have that
/// priority too.
///
/// # Errors
/// The operating system's, if it gives no thread.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let lowered = move || {
            lower_priority();
            work()
        };
        let thread = Builder::new().name("roost-low".into()).spawn_scoped(scope, lowered)?;
        thread.join().map_or_else(|panic| resume_unwind(panic), Ok)
    })
}

/// A thread of lower priority that works until it is told to end. Dropping this waits for that end,
/// so what the thread listens to must be dropped before: a field in front of this one.
#[derive(Debug)]
pub struct Worker {
    thread: Option<thread::JoinHandle<()>>,
}

impl Worker {
    /// Starts it.
    ///
    /// # Errors
    /// The operating system's, if it gives no thread.
    pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let thread = Builder::new().name(name.to_owned()).spawn(|| {
            lower_priority();
            work();
        })?;
        Ok(Self { thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        let name = thread.thread().name().unwrap_or_default().to_owned();
        if thread.join().is_err() {
            tracing::error!(thread = name, "a thread in the background panicked");
        }
    }
}

/// Spreads work in the background over time, while there is time.
#[derive(Debug)]
pub struct Pace {
    pauses: bool,
    pieces: u32,
    resumed: Instant,
}

impl Pace {
    /// For what this thread does. It pauses only on a thread of this module: others are waited for.
    pub fn here() -> Self {
        Self { pauses: IN_BACKGROUND.get(), ..Self::anywhere() }
    }

    /// For work that is in the background on whichever thread it is done.
    pub fn anywhere() -> Self {
        Self { pauses: true, pieces: 0, resumed: Instant::now() }
    }

    /// Between two small pieces of work: now and then pauses, unless it is in a hurry.
    pub fn step(&mut self, in_a_hurry: impl FnOnce() -> bool) {
        self.pieces = (self.pieces + 1) % PIECES;
        if self.pieces > 0 || self.resumed.elapsed() < STRETCH {
            return;
        }
        if self.pauses && !in_a_hurry() {
            thread::sleep(PAUSE);
        }
        self.resumed = Instant::now();
    }
}

/// Tells how long something lasted, so that work in the background can take about as long.
#[derive(Debug)]
pub struct Laps(Cell<Instant>);

impl Laps {
    /// The first lap begins.
    pub fn begin() -> Self {
        Self(Cell::new(Instant::now()))
    }

    /// How long this lap was; the next one begins.
    pub fn next(&self) -> Duration {
        let now = Instant::now();
        now - self.0.replace(now)
    }
}

/// Linux has a priority for each thread; elsewhere the work has that of all others.
fn lower_priority() {
    IN_BACKGROUND.set(true);
    #[cfg(target_os = "linux")]
    if let Err(error) = setpriority_process(Some(gettid()), NICE) {
        tracing::debug!(%error, "background work keeps its priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pauses in work of so many stretches.
    fn pauses(in_a_hurry: bool) -> usize {
        let mut pace = Pace::here();
        let mut asked = 0;
        for _ in 0..4 {
            thread::sleep(STRETCH);
            let began = Instant::now();
            for _ in 0..PIECES {
                pace.step(|| in_a_hurry);
            }
            asked += usize::from(began.elapsed() >= PAUSE);
        }
        asked
    }

    #[test]
    fn only_work_in_the_background_that_has_time_pauses() {
        let in_background =
            |in_a_hurry| run(move || pauses(in_a_hurry)).expect("there are threads");
        assert_eq!(in_background(false), 4);
        let most = [in_background(true), pauses(false)].into_iter().max();
        assert!(most < Some(4), "a busy machine may seem to pause, but not each time");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod priority_tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(Some(gettid())).expect("a thread has a priority")
    }

    #[test]
    fn the_work_and_its_threads_have_a_lower_priority_and_the_caller_keeps_its_own() {
        let before = nice();
        let both = || (nice(), thread::spawn(nice).join().expect("it does not panic"));
        let (own, childs) = run(both).expect("there are threads");
        assert_eq!((own, childs), (NICE.max(before), NICE.max(before)));
        assert_eq!(nice(), before);
    }

    #[test]
    fn a_worker_has_a_lower_priority_and_has_ended_when_it_is_dropped() {
        let before = nice();
        let (tell, told) = std::sync::mpsc::channel();
        let worker = Worker::start("test", move || tell.send(nice()).expect("somebody listens"));
        drop(worker.expect("there are threads"));
        assert_eq!(told.try_recv(), Ok(NICE.max(before)));
    }
}
