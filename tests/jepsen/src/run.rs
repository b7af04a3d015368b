//! A run: rounds of a cluster, clients and faults, each with its verdict.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use roost_checker::{Verdict, check, svg};
use tokio::signal::unix::{SignalKind, signal};

use crate::clients::Clients;
use crate::cluster::Cluster;
use crate::links::Links;
use crate::nemesis::{self, Figures, Kind};
use crate::options::Options;
use crate::recorder::Recorder;
use crate::shell::sh;
use crate::{finish, network, sandbox};

/// Runs all rounds; fails if one breaks a promise.
pub(crate) async fn run(options: Options) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let scratch = sandbox::scratch();
    let result = tokio::select! {
        result = Box::pin(rounds(&options, &scratch)) => result,
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = terminate.recv() => Err(anyhow::anyhow!("terminated")),
    };
    // Nodes end with this process, the first of its namespace; their files are not needed.
    let _ = fs::remove_dir_all(&scratch);
    result
}

async fn rounds(options: &Options, scratch: &Path) -> anyhow::Result<ExitCode> {
    fs::create_dir_all(&options.out)?;
    network::make(options.nodes).await?;
    let slow = options.kinds().contains(&Kind::Slow);
    let links = Arc::new(if slow { Links::make().await? } else { Links::none() });
    let first = options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let mut sound = true;
    for round in 0..options.rounds {
        let seed = first.wrapping_add(round);
        sound &= Box::pin(one_round(options, seed, scratch, &links)).await?;
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One cluster's life; whether it kept its promises.
async fn one_round(
    options: &Options,
    seed: u64,
    scratch: &Path,
    links: &Arc<Links>,
) -> anyhow::Result<bool> {
    say(&format!("round with seed {seed}: {} nodes, {:?}", options.nodes, options.kinds()));
    let folder = scratch.join(format!("round-{seed}"));
    fs::create_dir_all(&folder)?;
    let out = options.out.join(format!("round-{seed}"));
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out)?;
    let cluster = Arc::new(Cluster::start(options, folder.clone(), links.clone()).await?);
    let lived = live(options, seed, &cluster, &out).await;
    for node in cluster.numbers() {
        cluster.kill(node).await?;
        fs::copy(cluster.log(node), out.join(format!("node-{node}.log")))?;
        if !matches!(lived, Ok(true)) {
            let (data, kept) = (cluster.data(node), out.join(format!("node-{node}")));
            sh(&format!("cp -r {} {}", data.display(), kept.display())).await?;
        }
    }
    // Disks are unmounted with it.
    drop(cluster);
    fs::remove_dir_all(&folder)?;
    lived
}

async fn live(
    options: &Options,
    seed: u64,
    cluster: &Arc<Cluster>,
    out: &Path,
) -> anyhow::Result<bool> {
    let recorder = Arc::new(Recorder::new(&out.join("history.jsonl"))?);
    let clients = Clients::start(options, seed, cluster.clone(), recorder.clone()).await?;
    let mut rng = StdRng::seed_from_u64(seed);
    let figures = nemesis::run(options, &clients, &mut rng).await;
    let (shared, everybody) = (clients.shared.clone(), clients.everybody());
    clients.stop().await?;
    let mut wrong = cluster.take_ends();
    let figures = figures?;
    wrong.extend(figures.too_slow.iter().map(|what| format!("slow recovery: {what}")));
    if let Err(error) = finish::read_everything(&shared, &everybody).await {
        wrong.push(format!("the last reading failed: {error:#}"));
    }
    wrong.extend(cluster.take_ends());

    let history = recorder.history()?;
    let report = tokio::task::spawn_blocking(move || {
        let report = check(&history);
        (report.text(&history), report.verdict(), draw(&report, &history), report)
    })
    .await
    .context("the checker panicked")?;
    let (text, verdict, pictures, report) = report;
    for (name, picture) in pictures {
        fs::write(out.join(name), picture)?;
    }
    let text = format!("{}{}{text}", figures_text(&figures), lines("other: ", &wrong));
    fs::write(out.join("report.txt"), &text)?;
    say(&text);
    let sound = verdict == Verdict::Valid && wrong.is_empty();
    if !sound {
        say(&format!("NOT SOUND, seed {seed}; see {}", out.display()));
    }
    drop(report);
    Ok(sound)
}

fn draw(report: &roost_checker::Report, history: &roost_checker::History) -> Vec<(String, String)> {
    let pictures = report.violations.iter().enumerate().map(|(n, violation)| {
        let name = format!("{n:02}-{}.svg", violation.anomaly.replace(' ', "-"));
        (name, svg::draw(history, violation))
    });
    pictures.collect()
}

fn figures_text(figures: &Figures) -> String {
    let mut text = String::from("faults:\n");
    for (name, count) in &figures.faults {
        text += &format!("  {count:>4} {name}\n");
    }
    text += &format!(
        "writes resume after a leader's SIGKILL: {}\n",
        spread(&figures.after_leader_kill)
    );
    text += &format!(
        "writes resume on all nodes after the faults end: {}\n",
        spread(&figures.after_end)
    );
    text
}

/// Count, median and maximum.
fn spread(times: &[Duration]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    match sorted.last() {
        Some(most) => {
            let median = sorted[sorted.len() / 2];
            format!("{} times, median {median:.0?}, at most {most:.0?}", sorted.len())
        }
        None => "not measured".to_owned(),
    }
}

fn lines(before: &str, all: &[String]) -> String {
    all.iter().map(|line| format!("{before}{line}\n")).collect()
}

/// Tells whoever runs it.
fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
