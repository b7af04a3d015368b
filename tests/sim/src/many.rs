//! Many seeds, each in a process of its own.

use std::collections::VecDeque;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};

use crate::run::real_time;
use crate::shrink::{Form, shrink};
use crate::{Arguments, say};

/// Runs `seeds` seeds from `first` on; whether all are well.
pub(crate) fn run(arguments: &Arguments, first: u64, seeds: u64) -> anyhow::Result<bool> {
    let began = real_time();
    let whole = Form { planted: arguments.planted.clone(), ..Form::default() };
    let mut running: VecDeque<(u64, Child)> = VecDeque::new();
    let mut next = first;
    let (mut passed, mut failed, mut simulated_s) = (0_u64, Vec::new(), 0.0);
    loop {
        let stopping = !failed.is_empty() && !arguments.go_on;
        while !stopping && running.len() < arguments.jobs && next < first.saturating_add(seeds) {
            running.push_back((next, start(&whole.arguments(next))?));
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
            say(&format!("replay it with: {}", whole.command(seed)));
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
        shrink(seed, whole)?;
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
