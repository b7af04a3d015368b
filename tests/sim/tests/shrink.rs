//! A planted bug's failing seed is shrunk, and what is printed replays the failure. Needs the feature
//! `planted`: `just planted` runs it.

use std::process::Command;

/// A bug that single seeds show.
const BUG: &str = "cursor-by-push";

/// Whether all was well, and what was said.
fn sim(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roost-sim"));
    let output = command.args(arguments).output().expect("it runs");
    (output.status.success(), String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn a_failing_seed_shrinks_to_a_smaller_run_that_fails_in_the_same_way() {
    let (well, said) = sim(&["1", "--seeds", "40", "--planted", BUG]);
    assert!(!well, "no seed showed {BUG}");
    let line = said.lines().find(|line| line.starts_with("the smallest run found"));
    let line = line.unwrap_or_else(|| panic!("nothing was shrunk:\n{said}"));
    let (about, command) = line.split_once(": cargo run ").expect("a command");
    let rule = about.trim_start_matches("the smallest run found that breaks ");
    let rule = rule.trim_start_matches("client: ");
    let (_, arguments) = command.split_once("-- ").expect("arguments");
    let arguments: Vec<&str> = arguments.split(' ').collect();

    let (well, again) = sim(&arguments);
    assert!(!well && again.contains(rule), "{command} does not break {rule}:\n{again}");

    // Smaller: this bug needs no fault and no second client.
    let after = |name: &str| {
        let at = arguments.iter().position(|argument| *argument == name);
        at.and_then(|at| arguments.get(at + 1)).copied()
    };
    let faults = after("--keep").expect("faults are named");
    assert!(faults.split(',').count() <= 2, "{faults} are left");
    assert!(after("--clients").is_some_and(|clients| clients.parse().is_ok_and(|n: u64| n <= 3)));
    assert!(after("--until-ms").is_some());
}
