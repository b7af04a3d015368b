//! A store whose engine lost something that it had reported durable, as sled may when power is cut.

use std::fs;
use std::path::Path;
use std::process::Output;

use roost_storage::engine::{self, Change, EngineKind};
use tempfile::TempDir;

use crate::node::{Node, SETTINGS};
use crate::process::{failure, run};

fn set(folder: &TempDir, settings: &str) {
    fs::write(folder.path().join("roost.toml"), settings).unwrap();
}

/// As if the machine had been started since.
fn start_the_machine_again(folder: &TempDir) {
    let boot = folder.path().join("roost-data/boot");
    let known = fs::read_to_string(&boot).unwrap();
    let current = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(known.trim(), current.trim());
    fs::write(boot, "another").unwrap();
}

fn lose_the_last_record(folder: &Path) {
    let engine = engine::open(EngineKind::Sled, &folder.join("roost-data/shards/0/engine"));
    let engine = engine.unwrap();
    let (key, _) = engine.scan_back(&[], &[0xff; 64], 1).unwrap().pop().unwrap();
    engine.write(vec![Change::Delete(key)]).unwrap();
    engine.flush().unwrap();
}

fn serve(folder: &TempDir) -> Output {
    run(folder.path(), &[&["serve"], &SETTINGS[..]].concat())
}

#[test]
fn a_store_on_sled_is_read_whole_once_the_machine_was_started_again() {
    let folder = TempDir::new().unwrap();
    set(&folder, "engine = 'sled'\n");
    let node = Node::start_in(folder);
    node.lines(&["send", "--as", "alice", "--to", "bob", "hi"]);
    let folder = node.stop();
    start_the_machine_again(&folder);
    let folder = Node::start_in(folder).stop();

    lose_the_last_record(folder.path());
    let folder = Node::start_in(folder).stop();
    start_the_machine_again(&folder);
    for _ in 0..2 {
        let why = failure(&serve(&folder));
        assert!(why.contains("does not hold what its newest checkpoint says"), "{why}");
    }

    set(&folder, "verify_store = false\n");
    let folder = Node::start_in(folder).stop();
    set(&folder, "verify_store = true\n");
    failure(&serve(&folder));
}

#[test]
fn a_store_on_fjall_is_read_whole_where_that_is_asked_for() {
    let folder = TempDir::new().unwrap();
    set(&folder, "verify_store = true\n");
    let node = Node::start_in(folder);
    node.lines(&["send", "--as", "alice", "--to", "bob", "hi"]);
    let folder = Node::start_in(node.stop()).stop();
    assert!(!folder.path().join("roost-data/boot").exists());
}
