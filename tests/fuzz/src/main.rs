//! `roost-fuzz [TARGET…] --time 60s`: fuzzes each target for that time, and keeps what panics.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::bail;
use clap::Parser;
use roost_fuzz::targets::all;
use roost_fuzz::{Summary, Target, fuzz};

/// Feed Roost's decoders with what nobody would send
#[derive(Debug, Parser)]
struct Arguments {
    /// The decoders; all of them by default
    targets: Vec<String>,
    /// How long, for each
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    time: Duration,
    /// How long, for all of them together
    #[arg(long, conflicts_with = "time", value_parser = humantime::parse_duration)]
    total: Option<Duration>,
    /// Where chance begins
    #[arg(long)]
    seed: Option<u64>,
    /// How many run at a time
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Where inputs that panic are kept
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/kept"))]
    keep: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut targets = all();
    for name in &arguments.targets {
        if !targets.iter().any(|target| target.name() == name) {
            bail!("no target {name}");
        }
    }
    if !arguments.targets.is_empty() {
        targets.retain(|target| arguments.targets.iter().any(|name| name == target.name()));
    }
    let jobs = arguments.jobs.max(1);
    let turns = u32::try_from(targets.len().div_ceil(jobs))?;
    let time = arguments.total.map_or(arguments.time, |total| total / turns);
    let seed = arguments.seed.unwrap_or_else(rand::random);
    say(&format!("seed {seed}"));
    let waiting = Mutex::new(targets);
    let summaries: Mutex<Vec<Summary>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(target) = next(&waiting) {
                    let summary = fuzz(&*target, time, seed);
                    say(&format!(
                        "{}: {} inputs, {} outcomes",
                        summary.target, summary.runs, summary.outcomes
                    ));
                    if let Ok(mut all) = summaries.lock() {
                        all.push(summary);
                    }
                }
            });
        }
    });
    let mut sound = true;
    let summaries = summaries.into_inner().unwrap_or_default();
    for finding in summaries.iter().filter_map(|summary| summary.finding.as_ref()) {
        sound = false;
        let folder = arguments.keep.join(finding.target);
        fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{seed}"));
        fs::write(&path, &finding.input)?;
        say(&format!("{} PANICS: {}\n  kept as {}", finding.target, finding.panic, path.display()));
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn next(waiting: &Mutex<Vec<Box<dyn Target>>>) -> Option<Box<dyn Target>> {
    waiting.lock().ok()?.pop()
}

fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
