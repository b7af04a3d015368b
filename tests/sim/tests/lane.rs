//! The simulation's lane: fresh seeds, the seeds that once found something, and that a seed gives
//! the same run again.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seeds that no run had before.
const FRESH: u64 = 64;
/// Processes at a time.
const JOBS: &str = "2";

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_roost-sim")).args(arguments).output().expect("it runs")
}

fn assert_well(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The kept seeds, one a line, each with what it found.
fn kept() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds.txt");
    let text = std::fs::read_to_string(path).expect("seeds.txt reads");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn fresh_seeds_break_no_promise() {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let first = (now_s * FRESH).to_string();
    assert_well(&sim(&[&first, "--seeds", &FRESH.to_string(), "--jobs", JOBS]));
}

#[test]
fn seeds_that_found_something_find_nothing_any_more() {
    let seeds = kept();
    assert!(!seeds.is_empty());
    for seed in seeds {
        assert_well(&sim(&[&seed]));
    }
}

#[test]
fn a_seed_gives_the_same_trace_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    for seed in ["2", "3", "10"] {
        let traces = ["one", "two"].map(|name| {
            let path = folder.path().join(name);
            sim(&[seed, "--trace", path.to_str().unwrap()]);
            std::fs::read(path).unwrap()
        });
        assert!(traces[0].len() > 10_000, "seed {seed}: a trace of {} bytes", traces[0].len());
        assert!(traces[0] == traces[1], "seed {seed} gave two traces");
    }
}
