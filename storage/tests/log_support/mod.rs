//! What the log's tests share: a naive model of the log, and calls that wait for their outcome.
#![allow(dead_code)] // Each test file uses a part of it.

pub(crate) mod gate;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use roost_storage::Fault;
use roost_storage::fs::Disk;
use roost_storage::log::{Done, Log, LogEntry, LogOptions, LogState};
use roost_storage::model::LogPosition;

/// One call of the log.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Append(Vec<LogEntry>),
    Vote(Bytes),
    Committed(Option<LogPosition>),
    Truncate(Option<LogPosition>),
    Purge(LogPosition),
}

/// The log as a map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) state: LogState,
    pub(crate) entries: BTreeMap<u64, LogEntry>,
}

impl Model {
    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(entries) => {
                for entry in entries {
                    self.entries.insert(entry.position.index, entry.clone());
                    self.state.last = Some(entry.position);
                }
            }
            Op::Vote(vote) => self.state.vote = Some(vote.clone()),
            Op::Committed(committed) => self.state.committed = *committed,
            Op::Truncate(last) => {
                self.entries.retain(|index, _| last.is_some_and(|last| *index <= last.index));
                self.state.last = *last;
            }
            Op::Purge(position) => {
                self.entries.retain(|index, _| *index > position.index);
                self.state.purged = self.state.purged.max(Some(*position));
                if self.state.last.is_none_or(|last| last.index < position.index) {
                    self.state.last = Some(*position);
                }
            }
        }
    }

    /// What an opened log holds.
    pub(crate) fn of(log: &Log) -> Self {
        let entries = log.read(0, u64::MAX, usize::MAX).unwrap();
        Self {
            state: log.state(),
            entries: entries.into_iter().map(|entry| (entry.position.index, entry)).collect(),
        }
    }
}

pub(crate) fn at(term: u64, index: u64) -> LogPosition {
    LogPosition { term, index }
}

pub(crate) fn entry(term: u64, index: u64, payload: impl Into<Bytes>) -> LogEntry {
    let mut payload: Bytes = payload.into();
    // The first byte of an entry's content is its kind.
    let kind = if payload.is_empty() { 0 } else { payload.get_u8() };
    LogEntry { position: at(term, index), kind, payload }
}

pub(crate) const DIR: &str = "log";

pub(crate) fn open(disk: impl Disk, segment_bytes: u64, cache_bytes: usize) -> Result<Log, Fault> {
    // Without a thread more, so that operations of the disk come in one order.
    let options =
        LogOptions { segment_bytes, cache_bytes, zeros_ahead: false, recycled_segments: 2 };
    Log::open(Arc::new(disk), Path::new(DIR), options)
}

/// A callback, and where its outcome arrives.
pub(crate) fn done() -> (Done, Receiver<Result<(), Fault>>) {
    let (sender, receiver) = sync_channel(1);
    (Box::new(move |outcome| sender.send(outcome).unwrap_or_default()), receiver)
}

/// The outcome, which must come soon.
pub(crate) fn wait(receiver: &Receiver<Result<(), Fault>>) -> Result<(), Fault> {
    receiver.recv_timeout(Duration::from_secs(60)).expect("every call is told its outcome")
}

/// Makes a call; `None` for a commit position, which nobody waits for.
pub(crate) fn submit(log: &Log, op: &Op) -> Result<Option<Receiver<Result<(), Fault>>>, Fault> {
    let (done, receiver) = done();
    match op.clone() {
        Op::Append(entries) => log.append(entries, done)?,
        Op::Vote(vote) => log.save_vote(vote, done)?,
        Op::Truncate(last) => log.truncate_after(last, done)?,
        Op::Purge(position) => log.purge(position, done)?,
        Op::Committed(committed) => return log.save_committed(committed).map(|()| None),
    }
    Ok(Some(receiver))
}

/// Makes a call, and waits until it is durable.
pub(crate) fn run(log: &Log, op: &Op) -> Result<(), Fault> {
    submit(log, op)?.map_or(Ok(()), |receiver| wait(&receiver))
}

pub(crate) fn entries(range: std::ops::Range<u64>, len: usize) -> Vec<LogEntry> {
    range.map(|index| entry(1, index, vec![index as u8; len])).collect()
}

pub(crate) fn append(log: &Log, range: std::ops::Range<u64>, len: usize) {
    run(log, &Op::Append(entries(range, len))).unwrap();
}
