//! `roost replay`: real chat into a cluster, and proof of what became of it.
//!
//! [`trace`] is what is played, [`play`] sends it, [`ledger`] keeps what was acknowledged, [`verify`]
//! reads every queue back, [`check`] says what is wrong with one, [`report`] says it all.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::bail;
use clap::{Args, ValueEnum};
use tokio::time::Instant;

use super::api::Api;
use super::output::say;
use super::target::Target;

mod trace;
mod ledger;
mod play;
mod check;
mod verify;
mod progress;
mod report;

use ledger::Ledger;
use play::{Played, Player};
use progress::Progress;
use report::{PlayedReport, Report, percentile_ms};
use trace::Trace;
use verify::Reader;

/// Longest prefix of client ids; line numbers follow it.
const MAX_PREFIX_BYTES: usize = 32;

/// Play a chat trace into a cluster and check every queue afterwards
///
/// Makes a group for each day with its speakers as members, and sends every message in its day's
/// order. Then reads the queue of every member and compares it with what was acknowledged.
/// Nodes may fail meanwhile. Fails if anything is lost, duplicated, out of order or otherwise wrong.
///
/// A trace has five columns with tabs between them, plain or gzipped: day, clock (HH:MM), kind (say,
/// join or part), user, text. Playing the same file again stores nothing twice.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost replay chat.tsv.gz
  roost replay chat.tsv --limit 10000 --senders 16 --json
  roost replay chat.tsv --speed 60                 an hour of chat a minute
  roost replay chat.tsv --verify-only --verify-nodes all")]
pub(crate) struct Replay {
    /// The trace
    file: PathBuf,
    /// Days that are played at the same time
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one)]
    senders: usize,
    /// Play by the trace's clock, so many times faster [default: at full speed]
    #[arg(long, value_name = "N", value_parser = positive)]
    speed: Option<f64>,
    /// Play the first so many messages only
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// What client ids begin with; another one plays the same file anew [default: from the content]
    #[arg(long, value_name = "TEXT", value_parser = prefix)]
    prefix: Option<String>,
    /// How long a message may go without an acknowledgement before the replay fails
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    give_up: Duration,
    /// Send nothing: check what an earlier, complete replay has left, within the dedup window
    #[arg(long)]
    verify_only: bool,
    /// Read each queue from one node, in turn, or from all
    #[arg(long, value_enum, default_value = "one")]
    verify_nodes: VerifyNodes,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// Which nodes a queue is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VerifyNodes {
    One,
    All,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "not a number above 0".into())
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "not a number above 0".into())
}

fn prefix(text: &str) -> Result<String, String> {
    if (1..=MAX_PREFIX_BYTES).contains(&text.len()) {
        Ok(text.to_owned())
    } else {
        Err(format!("a prefix has 1 to {MAX_PREFIX_BYTES} bytes"))
    }
}

impl Replay {
    /// Plays, checks, reports.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let trace = Arc::new(Trace::read(&self.file, self.limit.unwrap_or(usize::MAX))?);
        if trace.messages() == 0 {
            bail!("{} has no messages", self.file.display());
        }
        let (addresses, token) = (self.target.addresses()?, self.target.admin_token()?);
        let player = Arc::new(self.player(trace.clone(), Api::new(&addresses, &token)?));
        let (pages, played) = if self.verify_only {
            (play::expect_all(&player).await?, None)
        } else {
            let Played { pages, latencies_us, elapsed } = play::play(&player, self.senders).await?;
            (pages, Some((latencies_us, elapsed)))
        };
        let ledger = Arc::new(Ledger::new(&trace, pages));
        let nodes = verify::settle(&addresses, &token, self.give_up).await?;

        let queues_of =
            if self.verify_nodes == VerifyNodes::All { addresses.len() as u64 } else { 1 };
        let references = ledger.references(&trace);
        let reader = Arc::new(Reader {
            api: player.api.clone(),
            trace: trace.clone(),
            ledger: ledger.clone(),
            prefix: player.prefix.clone(),
            all_nodes: self.verify_nodes == VerifyNodes::All,
            patience: self.give_up,
            progress: Progress::new("reading queues", references * queues_of),
            next: AtomicUsize::new(0),
        });
        let reading = Instant::now();
        let queues = verify::read_queues(reader).await?;
        let mut report = Report {
            days: trace.days.len(),
            users: (0..trace.users.len() as u32)
                .filter(|user| !ledger.days_of(*user).is_empty())
                .count(),
            messages: ledger.messages(),
            references,
            played: played
                .map(|(latencies_us, elapsed)| rates(&player, &ledger, &latencies_us, elapsed)),
            nodes,
            shared_sequences: ledger.shared_sequences(),
            queues,
            read_s: reading.elapsed().as_secs_f64(),
            ok: false,
        };
        report.ok = report.judge();
        if self.json {
            say!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            report.print();
        }
        if !report.ok {
            bail!("the cluster does not hold what it acknowledged");
        }
        Ok(())
    }

    fn player(&self, trace: Arc<Trace>, api: Api) -> Player {
        Player {
            prefix: self.prefix.as_deref().unwrap_or(&trace.fingerprint).into(),
            speed: self.speed,
            give_up: self.give_up,
            started: Instant::now(),
            progress: Progress::new("sending", trace.messages() as u64),
            order: play::order(&trace, self.speed),
            next: AtomicUsize::new(0),
            retries: AtomicU64::new(0),
            known: AtomicU64::new(0),
            api,
            trace,
        }
    }
}

fn rates(
    player: &Player,
    ledger: &Ledger,
    latencies_us: &[u32],
    elapsed: Duration,
) -> PlayedReport {
    let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
    PlayedReport {
        elapsed_s: seconds,
        messages_per_s: ledger.messages() as f64 / seconds,
        references_per_s: ledger.references(&player.trace) as f64 / seconds,
        p50_ms: percentile_ms(latencies_us, 50),
        p99_ms: percentile_ms(latencies_us, 99),
        retries: player.retries.load(Ordering::Relaxed),
        known: player.known.load(Ordering::Relaxed),
    }
}
