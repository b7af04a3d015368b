//! Smaller runs that fail in the same way: fewer faults, fewer clients, less time.
//!
//! A plan is drawn whole and then cut, so a smaller form is the same seed with parts left out. What
//! is left out changes all that comes after it; a smaller form is only kept if it breaks the same
//! rule, whatever the way to it.

use crate::many::{start, wait};
use crate::plan::CALM_MS;
use crate::planted::rule;
use crate::run::{Settings, plan};
use crate::say;

/// Runs that shrinking may take.
const SHRINK_RUNS: usize = 60;
/// Faults never end sooner than this, in milliseconds.
const LEAST_MS: u64 = CALM_MS + 500;

/// A way to run a seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Form {
    /// Only these faults, by number; all if none are named.
    pub(crate) keep: Option<Vec<usize>>,
    /// So many clients instead of the plan's.
    pub(crate) clients: Option<u64>,
    /// Faults end here, in milliseconds, instead of the plan's time.
    pub(crate) until_ms: Option<u64>,
    /// The bug that is planted.
    pub(crate) planted: Option<String>,
}

impl Form {
    /// The arguments that run a seed in this form.
    pub(crate) fn arguments(&self, seed: u64) -> Vec<String> {
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
        if let Some(bug) = &self.planted {
            arguments.extend(["--planted".to_owned(), bug.clone()]);
        }
        arguments
    }

    /// What to type for it.
    pub(crate) fn command(&self, seed: u64) -> String {
        let program = match &self.planted {
            None => "just sim",
            Some(_) => "cargo run -p roost-sim --features planted --",
        };
        format!("{program} {}", self.arguments(seed).join(" "))
    }
}

/// Looks for the smallest run of a seed that breaks the same rule, and says how to run it.
pub(crate) fn shrink(seed: u64, whole: Form) -> anyhow::Result<()> {
    let broken = |form: &Form| -> anyhow::Result<Option<String>> {
        let (well, said) = wait(start(&form.arguments(seed))?)?;
        Ok((!well).then(|| rule(&said)))
    };
    let Some(wanted) = broken(&whole)? else {
        say(&format!("seed {seed} does not fail again: something that no seed decides is in it"));
        return Ok(());
    };
    let plan = plan(&Settings { seed, ..Settings::default() });
    let size =
        Size { faults: plan.faults.len(), clients: plan.clients, until_ms: plan.faults_end_ms };
    let mut runs = 0;
    let smallest = smallest(&size, whole, |form| {
        runs += 1;
        Ok(runs <= SHRINK_RUNS && broken(form)?.as_ref() == Some(&wanted))
    })?;
    say(&format!("the smallest run found that breaks {wanted}: {}", smallest.command(seed)));
    Ok(())
}

/// How large the whole plan is.
struct Size {
    faults: usize,
    clients: u64,
    until_ms: u64,
}

/// The smallest form found that still fails, less by less: halves of the faults first, then single
/// ones; then clients; then time.
fn smallest(
    size: &Size,
    whole: Form,
    mut fails: impl FnMut(&Form) -> anyhow::Result<bool>,
) -> anyhow::Result<Form> {
    let mut best = fewer_faults(size, whole, &mut fails)?;
    for clients in 1..size.clients {
        let form = Form { clients: Some(clients), ..best.clone() };
        if fails(&form)? {
            best = form;
            break;
        }
    }
    let mut until_ms = size.until_ms;
    while until_ms > LEAST_MS {
        until_ms = (until_ms * 3 / 4).max(LEAST_MS);
        let form = Form { until_ms: Some(until_ms), ..best.clone() };
        if !fails(&form)? {
            break;
        }
        best = form;
    }
    Ok(best)
}

fn fewer_faults(
    size: &Size,
    whole: Form,
    fails: &mut impl FnMut(&Form) -> anyhow::Result<bool>,
) -> anyhow::Result<Form> {
    let mut best = Form { keep: Some((0..size.faults).collect()), ..whole };
    let mut chunk = size.faults.div_ceil(2).max(1);
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
            return Ok(best);
        }
        chunk = chunk.div_ceil(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { faults: 13, clients: 7, until_ms: 20_000 };

    fn found(fails: impl Fn(&Form) -> bool) -> Form {
        smallest(&SIZE, Form::default(), |form| Ok(fails(form))).unwrap()
    }

    #[test]
    fn only_the_faults_clients_and_time_that_a_failure_needs_are_left() {
        let form = found(|form| {
            let keep = form.keep.clone().unwrap_or_default();
            keep.contains(&3)
                && keep.contains(&11)
                && form.clients.is_none_or(|clients| clients >= 4)
                && form.until_ms.is_none_or(|until_ms| until_ms >= 9_000)
        });
        assert_eq!(form.keep, Some(vec![3, 11]));
        assert_eq!(form.clients, Some(4));
        assert_eq!(form.until_ms, Some(11_250));
    }

    #[test]
    fn a_failure_that_needs_no_fault_keeps_none() {
        let form = found(|_| true);
        assert_eq!((form.keep, form.clients), (Some(vec![]), Some(1)));
        assert_eq!(form.until_ms, Some(LEAST_MS));
    }

    #[test]
    fn a_failure_that_needs_everything_stays_whole() {
        let form = found(|form| form.keep.as_ref().is_some_and(|keep| keep.len() == SIZE.faults));
        assert_eq!(form.keep.map(|keep| keep.len()), Some(SIZE.faults));
    }

    #[test]
    fn a_form_is_what_one_types() {
        let form = Form {
            keep: Some(vec![1, 4]),
            clients: Some(2),
            until_ms: Some(4_000),
            planted: Some("no-dedup".to_owned()),
        };
        assert_eq!(
            form.command(7),
            "cargo run -p roost-sim --features planted -- \
             7 --keep 1,4 --clients 2 --until-ms 4000 --planted no-dedup"
        );
        let none = Form { keep: Some(vec![]), ..Form::default() };
        assert_eq!(none.command(7), "just sim 7 --keep none");
    }
}
