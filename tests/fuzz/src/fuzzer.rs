//! The loop: mutate, run, keep what is new, shrink what panics.

use std::cell::RefCell;
use std::collections::HashSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::Target;
use crate::mutate::mutate;

/// Most inputs that a corpus grows to.
const MOST_KEPT: usize = 4_096;
/// How many runs a shrink may take.
const SHRINK_RUNS: usize = 5_000;
/// How long it may take.
const SHRINK_TIME: Duration = Duration::from_secs(20);

/// An input that panics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The target.
    pub target: &'static str,
    /// The shrunk input.
    pub input: Vec<u8>,
    /// What the panic said, and where.
    pub panic: String,
}

/// What a run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The target.
    pub target: &'static str,
    /// Inputs that were run.
    pub runs: u64,
    /// Different outcomes that were seen.
    pub outcomes: usize,
    /// The first panic.
    pub finding: Option<Finding>,
}

thread_local! {
    /// What the last panic of this thread said; `None` while panics are not caught here.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a target on one input.
///
/// # Errors
/// What the panic said, if it panics.
pub fn run_once(target: &dyn Target, input: &[u8]) -> Result<String, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let caught = PANIC.with(|said| match said.borrow_mut().as_mut() {
                Some(said) => {
                    *said = info.to_string();
                    true
                }
                None => false,
            });
            if !caught {
                usual(info);
            }
        }));
    });
    PANIC.with(|said| *said.borrow_mut() = Some(String::new()));
    let result = panic::catch_unwind(AssertUnwindSafe(|| target.run(input)));
    let said = PANIC.with(|said| said.borrow_mut().take()).unwrap_or_default();
    result.map_err(|_| said)
}

/// Fuzzes a target for a while, or until it panics.
pub fn fuzz(target: &dyn Target, time: Duration, seed: u64) -> Summary {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut corpus = Vec::new();
    let mut outcomes = HashSet::new();
    let mut summary = Summary { target: target.name(), runs: 0, outcomes: 0, finding: None };
    let began = Instant::now();
    for input in target.corpus() {
        summary.runs += 1;
        if let Err(panic) = run_once(target, &input) {
            summary.finding = Some(shrink(target, input, panic));
            return summary;
        }
        corpus.push(input);
    }
    assert!(!corpus.is_empty(), "{} has no corpus", target.name());
    while began.elapsed() < time {
        let mut input = pick(&mut rng, &corpus).clone();
        let other = pick(&mut rng, &corpus);
        mutate(&mut rng, &mut input, other);
        // Mostly sealed: an unsealed input seldom gets further than a checksum.
        if rng.random_bool(0.9) {
            target.seal(&mut input);
        }
        summary.runs += 1;
        match run_once(target, &input) {
            Ok(outcome) => {
                if outcomes.insert(without_digits(&outcome)) && corpus.len() < MOST_KEPT {
                    corpus.push(input);
                }
            }
            Err(panic) => {
                summary.finding = Some(shrink(target, input, panic));
                break;
            }
        }
    }
    summary.outcomes = outcomes.len();
    summary
}

/// Newer inputs are likelier: they led somewhere.
fn pick<'a>(rng: &mut StdRng, corpus: &'a [Vec<u8>]) -> &'a Vec<u8> {
    let (one, other) = (rng.random_range(0..corpus.len()), rng.random_range(0..corpus.len()));
    &corpus[if rng.random_bool(0.5) { one.max(other) } else { one }]
}

/// Numbers differ from input to input without meaning another way.
fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Cuts pieces out for as long as it still panics.
fn shrink(target: &dyn Target, mut input: Vec<u8>, mut panic: String) -> Finding {
    let began = Instant::now();
    let mut runs = 0;
    let mut size = input.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < input.len() && runs < SHRINK_RUNS && began.elapsed() < SHRINK_TIME {
            let mut shorter = input.clone();
            shorter.drain(at..(at + size).min(input.len()));
            let mut sealed = shorter.clone();
            target.seal(&mut sealed);
            runs += 1;
            let found = [sealed, shorter]
                .into_iter()
                .find_map(|input| Some((run_once(target, &input).err()?, input)));
            match found {
                Some((said, shorter)) if shorter.len() < input.len() => {
                    (input, panic) = (shorter, said);
                }
                _ => at += size,
            }
        }
        size /= 2;
    }
    Finding { target: target.name(), input, panic }
}
