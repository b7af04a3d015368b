//! The log's hot piece: an append until it is durable, alone and with others under one sync.
//!
//! On the disk of the folder for temporary files: the figures are its figures.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use roost_storage::fs::real::RealDisk;
use roost_storage::log::{Log, LogEntry, LogOptions};
use roost_storage::model::LogPosition;
use tempfile::TempDir;

fn main() {
    divan::main();
}

fn open() -> (TempDir, Log) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = Arc::new(RealDisk::open(folder.path().to_owned()).expect("a folder to write to"));
    let log = Log::open(disk, Path::new("log"), LogOptions::default()).expect("a new log");
    (folder, log)
}

/// Appends so many entries, each with a call of its own, and waits until all are durable.
fn append(log: &Log, next: &mut u64, count: usize, payload: &Bytes) {
    let (sender, receiver) = sync_channel(count);
    for _ in 0..count {
        let position = LogPosition { term: 1, index: *next };
        *next += 1;
        let entry = LogEntry { position, kind: 1, payload: payload.clone() };
        let sender = sender.clone();
        let done = Box::new(move |outcome| sender.send(outcome).unwrap_or_default());
        log.append(vec![entry], done).expect("no fault");
    }
    for _ in 0..count {
        receiver.recv().expect("every call is told its outcome").expect("no fault");
    }
}

/// One entry, by its bytes.
#[divan::bench(args = [256, 4_096, 65_536], sample_count = 500, sample_size = 1)]
fn append_one(bencher: Bencher<'_, '_>, bytes: usize) {
    let (_folder, log) = open();
    let (payload, mut next) = (Bytes::from(vec![7; bytes]), 0);
    bencher.bench_local(|| append(&log, &mut next, 1, &payload));
}

/// Entries of 4 KiB that are under way together, by their number.
#[divan::bench(args = [8, 64], sample_count = 200, sample_size = 1)]
fn append_together(bencher: Bencher<'_, '_>, count: usize) {
    let (_folder, log) = open();
    let (payload, mut next) = (Bytes::from(vec![7; 4_096]), 0);
    bencher
        .counter(ItemsCount::new(count))
        .bench_local(|| append(&log, &mut next, count, &payload));
}
