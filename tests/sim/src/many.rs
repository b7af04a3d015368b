//! Many seeds, each in a process of its own; and shrinking what fails.

use std::collections::VecDeque;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use crate::run::{Settings, plan, real_time};

use crate::{Arguments, say};

/// Runs that shrinking may take.
const SHRINK_RUNS: usize = 40;

/// A way to run a seed.
#[derive(Debug, Clone, Default)]
struct Form {
    keep: Option<Vec<usize>>,
    clients: Option<u64>,
    until_ms: Option<u64>,
}

impl Form {
    fn arguments(&self, seed: u64) -> Vec<String> {
        let mut arguments = vec![seed.to_string()];
        if let Some(keep) = &self.keep {
            let numbers: Vec<String> = keep.iter().map(usize::to_string).collect();
            let numbers = if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") };
            arguments.extend(["--keep".to_owned(), numbers]);
        }
        if let Some(clients) = self.clients {
            arguments.extend(["--clients".to_owned(), clients.to_string()]);
        }
        if let Some(until_ms) = self.until_ms {
            arguments.extend(["--until-ms".to_owned(), until_ms.to_string()]);
        }
        arguments
    }
}

/// Runs `seeds` seeds from `first` on; whether all are well.
pub(crate) fn run(arguments: &Arguments, first: u64, seeds: u64) -> anyhow::Result<bool> {
    let began = real_time();
    let mut running: VecDeque<(u64, Child)> = VecDeque::new();
    let mut next = first;
    let (mut passed, mut failed, mut simulated_s) = (0_u64, Vec::new(), 0.0);
    loop {
        let stopping = !failed.is_empty() && !arguments.go_on;
        while !stopping && running.len() < arguments.jobs && next < first.saturating_add(seeds) {
            running.push_back((next, start(&Form::default().arguments(next))?));
            next += 1;
        }
        let Some((seed, child)) = running.pop_front() else { break };
        let (well, said) = wait(child)?;
        simulated_s += simulated(&said);
        if well {
            passed += 1;
        } else {
            failed.push(seed);
            say(&said);
            say(&format!("replay it with: just sim {seed}"));
        }
        if (passed + failed.len() as u64).is_multiple_of(100) {
            say(&format!("{passed} seeds passed, {} failed, at seed {seed}", failed.len()));
        }
    }
    let minutes = real_time().saturating_sub(began).as_secs_f64() / 60.0;
    say(&format!(
        "{passed} seeds passed, {} failed {failed:?}; {:.2} simulated hours in {minutes:.2} minutes: {:.2} hours a minute",
        failed.len(),
        simulated_s / 3_600.0,
        simulated_s / 3_600.0 / minutes,
    ));
    if let Some(&seed) = failed.first().filter(|_| !arguments.no_shrink) {
        shrink(seed)?;
    }
    Ok(failed.is_empty())
}

pub(crate) fn start(arguments: &[String]) -> anyhow::Result<Child> {
    let program = std::env::current_exe()?;
    Ok(Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?)
}

pub(crate) fn wait(mut child: Child) -> anyhow::Result<(bool, String)> {
    let mut said = String::new();
    if let Some(stdout) = &mut child.stdout {
        stdout.read_to_string(&mut said)?;
    }
    let status = child.wait()?;
    Ok((status.success(), said))
}

/// The simulated seconds that a run says it took.
fn simulated(said: &str) -> f64 {
    let before = said.split(" s simulated").next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Looks for the smallest run of a seed that still fails, and says how to run it.
fn shrink(seed: u64) -> anyhow::Result<()> {
    let mut runs = 0;
    let mut fails = |form: &Form| -> anyhow::Result<bool> {
        runs += 1;
        if runs > SHRINK_RUNS {
            return Ok(false);
        }
        Ok(!wait(start(&form.arguments(seed))?)?.0)
    };
    let whole = plan(&Settings { seed, ..Settings::default() });
    let mut best = Form { keep: Some((0..whole.faults.len()).collect()), ..Form::default() };
    // Halves of the faults first, then single ones.
    let mut chunk = whole.faults.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        while let Some(keep) = best.keep.clone().filter(|keep| at < keep.len()) {
            let mut fewer = keep.clone();
            fewer.drain(at..(at + chunk).min(keep.len()));
            let form = Form { keep: Some(fewer), ..best.clone() };
            if fails(&form)? {
                best = form;
            } else {
                at += chunk;
            }
        }
        if chunk == 1 {
            break;
        }
        chunk = chunk.div_ceil(2);
    }
    for clients in 1..whole.clients {
        let form = Form { clients: Some(clients), ..best.clone() };
        if fails(&form)? {
            best = form;
            break;
        }
    }
    let mut until_ms = whole.faults_end_ms;
    while until_ms > 4_000 {
        until_ms = until_ms * 3 / 4;
        let form = Form { until_ms: Some(until_ms), ..best.clone() };
        if !fails(&form)? {
            break;
        }
        best = form;
    }
    say(&format!("the smallest run found that fails: just sim {}", best.arguments(seed).join(" ")));
    Ok(())
}
