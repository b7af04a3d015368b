//! How far a long step is: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::{note, number};

/// Between two lines without a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Counts steps; shared by the tasks that make them.
#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    started: Instant,
    bar: Option<ProgressBar>,
    /// When the next line is due, in milliseconds after the start.
    next_line_ms: AtomicU64,
}

impl Progress {
    /// Begins to count `total` things, named `what`.
    pub(crate) fn new(what: &'static str, total: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = "{msg} {wide_bar} {human_pos}/{human_len} {per_sec:>12} ETA {eta}";
            let style = ProgressStyle::with_template(template)
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_message(what)
        });
        let next_line_ms = AtomicU64::new(LINE_INTERVAL.as_millis() as u64);
        Self { what, total, done: AtomicU64::new(0), started: Instant::now(), bar, next_line_ms }
    }

    /// Counts `steps` more.
    pub(crate) fn add(&self, steps: u64) {
        let done = self.done.fetch_add(steps, Ordering::Relaxed) + steps;
        match &self.bar {
            Some(bar) => bar.inc(steps),
            None => self.line(done),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn line(&self, done: u64) {
        let elapsed = self.started.elapsed();
        let (now, due) = (elapsed.as_millis() as u64, self.next_line_ms.load(Ordering::Relaxed));
        let next = now + LINE_INTERVAL.as_millis() as u64;
        if now < due
            || self
                .next_line_ms
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_err()
        {
            return;
        }
        let rate = done as f64 / elapsed.as_secs_f64();
        note!(
            "{} {} of {} ({}/s)",
            self.what,
            number(done),
            number(self.total),
            number(rate as u64)
        );
    }
}
