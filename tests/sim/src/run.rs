//! One seed, from its first number to its verdict.

use std::fmt;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use mad_turmoil::rand::set_rng;
use rand010::SeedableRng as _;
use rand010::rngs::StdRng;
use roost_checker::report::describe;

use crate::finale;
use crate::plan::Plan;
use crate::trace::{Trace, Violation};
use crate::world::World;

/// Processor time that one turn may take. A task that never waits keeps simulated time from passing, and
/// nothing in the simulation could tell; a whole run takes less than a second.
const TURN: Duration = Duration::from_secs(60);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Violations of the checker that are shown.
const SHOWN: usize = 3;

/// What to run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// The seed.
    pub(crate) seed: u64,
    /// Only these faults, by number; all if none are named.
    pub(crate) keep: Option<Vec<usize>>,
    /// So many clients instead of the plan's.
    pub(crate) clients: Option<u64>,
    /// Faults end here, in milliseconds, instead of the plan's time.
    pub(crate) until_ms: Option<u64>,
    /// Where the whole trace is written.
    pub(crate) trace: Option<PathBuf>,
    /// Where the clients' history is written.
    pub(crate) history: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The broken rule, if one is.
    pub(crate) violation: Option<Violation>,
    /// A number for all that happened.
    pub(crate) hash: u64,
    /// Simulated time.
    pub(crate) simulated: Duration,
    /// Real time.
    pub(crate) real: Duration,
    /// Calls that clients made and that were carried out.
    pub(crate) calls: usize,
    /// Messages delivered.
    pub(crate) delivered: u64,
    /// The evidence, for people.
    pub(crate) evidence: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (simulated, real) = (self.simulated.as_secs_f64(), self.real.as_secs_f64());
        let verdict = match &self.violation {
            None => "ok".to_owned(),
            Some(Violation { rule, what, at_ms }) => {
                format!("VIOLATION of {rule} at {at_ms} ms: {what}")
            }
        };
        write!(
            f,
            "hash {:016x}, {simulated:.1} s simulated in {real:.3} s, {} messages, {} calls: {verdict}",
            self.hash, self.delivered, self.calls
        )
    }
}

/// The plan of the settings.
pub(crate) fn plan(settings: &Settings) -> Plan {
    let mut plan = Plan::new(settings.seed);
    if let Some(clients) = settings.clients {
        plan.clients = clients;
    }
    if let Some(until_ms) = settings.until_ms {
        plan.faults_end_ms = until_ms;
    }
    if let Some(keep) = &settings.keep {
        let faults = std::mem::take(&mut plan.faults).into_iter().enumerate();
        plan.faults = faults.filter(|(at, _)| keep.contains(at)).map(|(_, fault)| fault).collect();
    }
    plan
}

/// Runs it. Once a process, before anything asked for random numbers.
///
/// # Errors
/// What kept it from running, or the files from being written.
pub(crate) fn run(settings: &Settings) -> anyhow::Result<Outcome> {
    set_rng(StdRng::seed_from_u64(settings.seed));
    let settings = settings.clone();
    let turns = Arc::new(AtomicU64::new(0));
    let taken = turns.clone();
    // A thread of its own has hash maps of the seed's.
    let simulation = thread::Builder::new()
        .name("simulation".to_owned())
        .stack_size(64 * 1024 * 1024)
        .spawn(move || simulate(&settings, taken))?;
    if let Some(turn) = endless_turn(&simulation, &turns, TURN) {
        anyhow::bail!("VIOLATION of liveness at turn {turn}: a task never waits");
    }
    let outcome = simulation.join();
    outcome.unwrap_or_else(|_| Err(anyhow::anyhow!("the simulation panicked")))
}

/// Waits until a simulation ends, or one of its turns takes too much; that one's number.
fn endless_turn<T>(
    simulation: &thread::JoinHandle<T>,
    turns: &AtomicU64,
    limit: Duration,
) -> Option<u64> {
    let (mut last, mut since) = (0, processor_time());
    while !simulation.is_finished() {
        thread::sleep(LOOK_EVERY);
        let (newest, now) = (turns.load(Ordering::Relaxed), processor_time());
        if newest != last {
            (last, since) = (newest, now);
        } else if now.saturating_sub(since) > limit {
            return Some(newest);
        }
    }
    None
}

fn simulate(settings: &Settings, turns: Arc<AtomicU64>) -> anyhow::Result<Outcome> {
    let began = real_time();
    let trace = Trace::new(settings.trace.is_some());
    panics_are_violations(trace.clone());
    let mut world = World::new(settings.seed, plan(settings), trace.clone(), turns)?;
    trace.line(&format!("seed {}: {:?}", settings.seed, world.plan));
    world.run();
    if trace.violation().is_none() {
        finale::finish(&mut world, settings.seed);
    }
    let history = world.record.take();
    let mut evidence = String::new();
    let mut calls = 0;
    if let Some(path) = &settings.history {
        history.write(std::fs::File::create(path)?)?;
    }
    if trace.violation().is_none() {
        let report = roost_checker::check(&history);
        calls = report.calls.values().map(|(ok, _, _)| ok).sum();
        for found in report.violations.iter().take(SHOWN) {
            evidence += &format!("promise {}: {}: {}\n", found.promise, found.anomaly, found.what);
            for &event in &found.events {
                evidence += &format!("    {}\n", describe(&history.events[event]));
            }
        }
        if let Some(found) = report.violations.first() {
            trace.violate("client promises", format!("{}: {}", found.anomaly, found.what));
        }
    }
    if trace.violation().is_some() {
        evidence += &trace.recent();
    }
    if let Some(path) = &settings.trace {
        std::fs::write(path, trace.all())?;
    }
    Ok(Outcome {
        violation: trace.violation(),
        hash: trace.hash(),
        simulated: Duration::from_millis(world.now_ms),
        real: real_time().saturating_sub(began),
        calls,
        delivered: world.net.delivered(),
        evidence,
    })
}

/// The kernel's clock: the one of the standard library stands still, as everything else that asks
/// the process for something that no seed decides.
pub(crate) fn real_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::try_from(time).unwrap_or_default()
}

/// What this process had of a processor: it stands still where the process does.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// A task that panics must not pass for one that ended.
fn panics_are_violations(trace: Trace) {
    std::panic::set_hook(Box::new(move |panic| {
        // For whoever looks at the process; the verdict has it too.
        let _ = writeln!(std::io::stderr(), "{panic}");
        trace.violate("panic", panic.to_string());
    }));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;

    /// Of a simulation whose turn 7 goes on until it is told to end, or that ends by itself.
    fn endless(goes_on: bool) -> Option<u64> {
        let turns = Arc::new(AtomicU64::new(0));
        let end = Arc::new(AtomicBool::new(!goes_on));
        let (taken, told) = (turns.clone(), end.clone());
        let simulation = thread::spawn(move || {
            taken.store(7, Ordering::Relaxed);
            while !told.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let found = endless_turn(&simulation, &turns, Duration::from_millis(100));
        end.store(true, Ordering::Relaxed);
        simulation.join().unwrap();
        found
    }

    #[test]
    fn a_turn_that_never_ends_is_found_and_a_run_that_ends_is_not() {
        assert_eq!(endless(true), Some(7));
        assert_eq!(endless(false), None);
    }
}
