//! What is seen while a phase runs: a line that moves on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::tally::Counters;
use crate::cli::output::{note, number};

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Looks to a line without a terminal.
const LOOKS_PER_LINE: u32 = 5;

/// Shows counters until it is dropped.
pub(crate) struct Progress {
    task: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins to show what is counted, under this name.
    pub(crate) fn start(name: &'static str, counters: Arc<Counters>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} {elapsed} {msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            ProgressBar::new_spinner().with_style(style).with_prefix(name)
        });
        let task = tokio::spawn(show(name, counters, bar.clone()));
        Self { task, bar }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn show(name: &'static str, counters: Arc<Counters>, bar: Option<ProgressBar>) {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.tick().await;
    let (mut before, mut looks) = (0, 0);
    loop {
        ticks.tick().await;
        looks += 1;
        let done = counters.done.load(Ordering::Relaxed);
        let failed = counters.failed.load(Ordering::Relaxed);
        match &bar {
            Some(bar) => {
                let rate = (done - before) as f64 / INTERVAL.as_secs_f64();
                bar.set_message(message(done, rate, failed));
                before = done;
            }
            None if looks % LOOKS_PER_LINE == 0 => {
                let rate = (done - before) as f64 / (INTERVAL * LOOKS_PER_LINE).as_secs_f64();
                let elapsed = started.elapsed().as_secs();
                note!("{name} {elapsed} s: {}", message(done, rate, failed));
                before = done;
            }
            None => {}
        }
    }
}

fn message(done: u64, rate: f64, failed: u64) -> String {
    let failed = if failed > 0 { format!(", {} failed", number(failed)) } else { String::new() };
    format!("{} done, {}/s{failed}", number(done), number(rate as u64))
}
