//! The proof of the proof: each planted bug must be caught.
//!
//! The table in `docs/reliability.md` is what [`run_all`] says; it fails if a bug is missed.

use anyhow::{Context as _, bail};
use roost_storage::planted::Bug;

use crate::many::{start, wait};
use crate::say;

/// Plants a bug in this process.
///
/// # Errors
/// There is no such bug, or no bugs at all in this build.
pub(crate) fn choose(name: &str) -> anyhow::Result<()> {
    let bug = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
    let bug = bug.with_context(|| format!("no planted bug is called {name}"))?;
    plant(bug)
}

#[cfg(feature = "planted")]
fn plant(bug: Bug) -> anyhow::Result<()> {
    roost_storage::planted::choose(bug);
    Ok(())
}

#[cfg(not(feature = "planted"))]
fn plant(bug: Bug) -> anyhow::Result<()> {
    bail!("{} is not in this build: it lacks the feature `planted`", bug.name())
}

/// Looks for every bug in the same seeds, and says which rule caught it after how many.
pub(crate) fn run_all(first: u64, seeds: u64, jobs: usize) -> anyhow::Result<bool> {
    if !cfg!(feature = "planted") {
        bail!("this build lacks the feature `planted`");
    }
    say("| planted bug | caught by | seeds needed |\n| --- | --- | --- |");
    let mut missed = Vec::new();
    for bug in Bug::ALL {
        match catch(*bug, first, seeds, jobs)? {
            Some((needed, rule)) => say(&format!("| `{}` | {rule} | {needed} |", bug.name())),
            None => {
                say(&format!("| `{}` | NOTHING | {seeds} |", bug.name()));
                missed.push(bug.name());
            }
        }
    }
    if !missed.is_empty() {
        say(&format!("missed: {}", missed.join(", ")));
    }
    Ok(missed.is_empty())
}

/// How many seeds it took to catch a bug, and the rule that caught it.
fn catch(bug: Bug, first: u64, seeds: u64, jobs: usize) -> anyhow::Result<Option<(u64, String)>> {
    let mut begun = 0;
    while begun < seeds {
        let round = (jobs as u64).min(seeds - begun);
        let children: Vec<_> = (begun..begun + round)
            .map(|n| {
                let seed = (first + n).to_string();
                start(&[seed, "--planted".to_owned(), bug.name().to_owned()])
            })
            .collect::<anyhow::Result<_>>()?;
        let mut caught = None;
        for (n, child) in (begun..).zip(children) {
            let (well, said) = wait(child)?;
            if !well && caught.is_none() {
                caught = Some((n + 1, rule(&said)));
            }
        }
        if caught.is_some() {
            return Ok(caught);
        }
        begun += round;
    }
    Ok(None)
}

/// The rule that a run says was broken; for a client's promise, the anomaly.
pub(crate) fn rule(said: &str) -> String {
    let Some((_, violation)) = said.split_once("VIOLATION of ") else {
        return "no verdict".to_owned();
    };
    let (rule, what) = violation.split_once(" at ").unwrap_or((violation, ""));
    let anomaly = what.split(": ").nth(1).filter(|_| rule == "client promises");
    match anomaly {
        Some(anomaly) => format!("client: {anomaly}"),
        None => rule.to_owned(),
    }
}
