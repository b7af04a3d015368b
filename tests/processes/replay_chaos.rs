//! `roost replay` while nodes are killed: nothing lost, nothing twice, nothing out of order, every
//! queue dense, and at the end the same state on every node.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;

use crate::harness::{Cluster, said};
use crate::trace::{self, Shape};

/// The time between two kills.
const KILL_EVERY: Duration = Duration::from_secs(2);
/// The least time that the made-up trace takes, so that a fast machine has time for the kills too.
const AT_LEAST: Duration = Duration::from_secs(14);
/// How long a replay may take, with all that is done to it.
const REPLAY_DEADLINE: Duration = Duration::from_secs(20 * 60);
/// The environment variable with the folder of the real trace, which is no part of the project.
const TRACE_FOLDER: &str = "ROOST_TRACE_DIR";
/// Lines of the real trace.
const REAL_LINES: usize = 60_000;

#[test]
fn a_made_up_trace_arrives_whole_while_nodes_are_killed() {
    let text = trace::generate(&Shape { days: 6, messages_per_day: 1_500, users: 60 });
    let messages = trace::messages(&text);
    let cluster = Cluster::start(3, &[]);
    let file = cluster.folder().join("trace.tsv");
    fs::write(&file, text).unwrap();
    let speed = (trace::MINUTES * 60 / AT_LEAST.as_secs()).to_string();
    replay_under_kills(cluster, &file, messages, &["--speed", &speed, "--verify-nodes", "all"]);
}

#[test]
#[ignore = "needs the real chat trace, in the folder that ROOST_TRACE_DIR names"]
fn the_real_trace_arrives_whole_while_nodes_are_killed() {
    let folder = std::env::var_os(TRACE_FOLDER).expect("ROOST_TRACE_DIR names the trace's folder");
    let packed = fs::File::open(PathBuf::from(folder).join("ubuntu-irc.tsv.gz")).unwrap();
    let lines = BufReader::new(GzDecoder::new(packed)).lines().take(REAL_LINES);
    let text: String = lines.map(|line| line.unwrap() + "\n").collect();
    let messages = trace::messages(&text);
    let cluster = Cluster::start(3, &[]);
    let file = cluster.folder().join("trace.tsv");
    fs::write(&file, text).unwrap();
    replay_under_kills(cluster, &file, messages, &[]);
}

/// Plays the file, kills as it goes, and requires what is promised.
fn replay_under_kills(mut cluster: Cluster, file: &Path, messages: u64, how: &[&str]) {
    let mut command = cluster.command("replay");
    command.arg(file).args(how).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut replay = command.spawn().expect("the binary was built");
    let kills = kill_until_done(&mut cluster, &mut replay);
    let output = replay.wait_with_output().unwrap();
    println!("{messages} messages; killed: {}", kills.join(", "));
    check_report(&output, messages);
    assert!(kills.iter().any(|kill| kill == "the leader"), "too fast for the test: {kills:?}");
    assert!(kills.iter().any(|kill| kill == "all"), "too fast for the test: {kills:?}");
    for node in 0..cluster.len() {
        cluster.await_ready(node);
    }
    let held = cluster.await_equal_states();
    assert_eq!(held["counts"]["messages"].as_u64(), Some(messages), "{held}");
}

/// Kills in turn until the replay has ended: each node, the leader, all at once, and again.
fn kill_until_done(cluster: &mut Cluster, replay: &mut Child) -> Vec<String> {
    let began = Instant::now();
    let mut kills = Vec::new();
    loop {
        let next_kill = Instant::now() + KILL_EVERY;
        while Instant::now() < next_kill {
            if replay.try_wait().unwrap().is_some() {
                return kills;
            }
            thread::sleep(Duration::from_millis(20));
        }
        if began.elapsed() > REPLAY_DEADLINE {
            replay.kill().unwrap();
            panic!("the replay did not end; killed: {}", kills.join(", "));
        }
        kills.push(kill(cluster, kills.len()));
    }
}

fn kill(cluster: &mut Cluster, number: usize) -> String {
    let (name, victims) = match number % 5 {
        0 => ("the leader".to_owned(), vec![cluster.leader()]),
        2 => ("all".to_owned(), (0..cluster.len()).collect()),
        other => (format!("node {}", other % 3 + 1), vec![other % 3]),
    };
    for &node in &victims {
        cluster.kill(node);
    }
    for node in victims {
        cluster.restart(node);
    }
    name
}

fn check_report(output: &Output, messages: u64) {
    let shown = said(output);
    assert!(output.status.success(), "{shown}");
    let report = String::from_utf8_lossy(&output.stdout).replace([',', '_'], "");
    for finding in ["lost 0", "duplicated 0", "out of order 0"] {
        assert!(report.contains(finding), "no {finding:?} in:\n{shown}");
    }
    assert!(report.contains("dense"), "nothing about density in:\n{shown}");
    assert!(report.contains(&messages.to_string()), "no {messages} messages in:\n{shown}");
}
