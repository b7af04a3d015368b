//! A segment of the log: recovery takes any bytes for it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use roost_storage::codec;
use roost_storage::fs::sim::SimDisk;
use roost_storage::log::{Log, LogDriver, LogEntry, LogOptions};
use roost_storage::model::LogPosition;

use super::{disk, outcome};
use crate::{Target, seal};

pub(super) struct LogRecords;

const FOLDER: &str = "log";

fn options() -> LogOptions {
    LogOptions {
        segment_bytes: 64 * 1024,
        cache_bytes: 1 << 20,
        zeros_ahead: false,
        recycled_segments: 2,
    }
}

fn open(disk: &SimDisk) -> Result<(Log, LogDriver), roost_storage::Fault> {
    Log::open_driven(Arc::new(disk.clone()), Path::new(FOLDER), options(), || {})
}

impl Target for LogRecords {
    fn name(&self) -> &'static str {
        "log-records"
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let disk = SimDisk::new();
        let (log, mut driver) = open(&disk).expect("an empty disk");
        let at = |index| LogPosition { term: 1, index };
        for (index, payload) in (0..).zip(disk::batches()) {
            let entry = LogEntry { position: at(index), kind: 1, payload: payload.into() };
            log.append(vec![entry], Box::new(|_| {})).expect("an open log");
            driver.write_waiting();
        }
        log.save_vote(Bytes::from_static(b"a vote"), Box::new(|_| {})).expect("an open log");
        log.save_committed(Some(at(1))).expect("an open log");
        log.truncate_after(Some(at(1)), Box::new(|_| {})).expect("an open log");
        driver.write_waiting();
        let full = disk::read(&disk, &disk::only_file(&disk, FOLDER)).expect("the segment");
        let used = full.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        vec![full[..used].to_vec(), full[..4096].to_vec()]
    }

    fn run(&self, input: &[u8]) -> String {
        let probe = SimDisk::new();
        drop(open(&probe).expect("an empty disk"));
        let path = disk::only_file(&probe, FOLDER);
        let disk = disk::with_file(&path, input);
        let (log, _driver) = match open(&disk) {
            Ok(open) => open,
            Err(fault) => return outcome::<(), _>(Err(fault)),
        };
        let entries = log.read(0, u64::MAX, usize::MAX).expect("what recovery took can be read");
        let state = log.state();
        for pair in entries.windows(2) {
            assert_eq!(pair[0].position.index + 1, pair[1].position.index, "a hole in the log");
        }
        let decoded = entries.iter().filter(|entry| codec::decode_batch(&entry.payload).is_ok());
        let (count, decoded) = (entries.len().min(4), decoded.count().min(4));
        drop((log, _driver));
        let (again, _driver) = open(&disk).expect("what was recovered can be recovered again");
        assert_eq!(again.state(), state, "a second recovery differs");
        format!("{} {}", "e".repeat(count), "d".repeat(decoded))
    }

    fn seal(&self, input: &mut Vec<u8>) {
        seal::segment(input);
    }
}
