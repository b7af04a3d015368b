//! The bytes of a segment are pinned: a log written by any build of this version is read by any other.
#![cfg(test)]

mod log_support;

use std::path::Path;

use log_support::{DIR, Model, Op, at, entry, open, run};
use roost_storage::fs::sim::SimDisk;
use roost_storage::fs::{Disk, OpenMode};

const SEGMENT_BYTES: u64 = 2 * 4096 + 256;
const LINE_BYTES: usize = 32;
/// Two segments as the first version wrote them: a line of hex for each 32 bytes, `* n` for n lines
/// of zeros.
const GOLDEN_V1: &str = include_str!("golden/log-v1.hex");
/// Of this version: the last segment lies in the file of a purged one, another such file is kept.
const GOLDEN: &str = include_str!("golden/log-v2.hex");

fn ops() -> Vec<Op> {
    vec![
        Op::Vote(b"vote".as_slice().into()),
        Op::Append(vec![entry(1, 0, "first"), entry(1, 1, ""), entry(2, 2, "third")]),
        Op::Truncate(Some(at(1, 1))),
        Op::Append(vec![entry(0x0102_0304_0506_0708, 2, "instead of the third")]),
        Op::Committed(Some(at(1, 1))),
        Op::Purge(at(1, 0)),
        Op::Append(vec![entry(0x0102_0304_0506_0708, 3, "in the next segment")]),
    ]
}

/// Then long entries, whose last bytes are not zero, and after a purge one that needs a new segment.
fn recycling_ops() -> Vec<Op> {
    let long = |index, len| {
        let mut payload = vec![0; len];
        payload[len - 10..].fill(index as u8);
        Op::Append(vec![entry(0x0102_0304_0506_0708, index, payload)])
    };
    let mut ops = ops();
    ops.extend([long(4, 4300), long(5, 4000)]);
    ops.push(Op::Purge(at(0x0102_0304_0506_0708, 4)));
    ops.push(long(6, 300));
    ops
}

fn hex_of(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut zeros = 0;
    for line in bytes.chunks(LINE_BYTES) {
        if line.iter().all(|byte| *byte == 0) {
            zeros += 1;
            continue;
        }
        put_zeros(&mut text, &mut zeros);
        text.extend(line.iter().map(|byte| format!("{byte:02x}")));
        text.push('\n');
    }
    put_zeros(&mut text, &mut zeros);
    text
}

fn put_zeros(text: &mut String, lines: &mut usize) {
    match std::mem::take(lines) {
        0 => {}
        lines => text.push_str(&format!("* {lines}\n")),
    }
}

fn bytes_of(line: &str) -> Vec<u8> {
    if let Some(lines) = line.strip_prefix("* ") {
        return vec![0; LINE_BYTES * lines.parse::<usize>().unwrap()];
    }
    let digits = line.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn dump(disk: &SimDisk) -> String {
    let dir = Path::new(DIR);
    let dump_file = |name: String| {
        let file = disk.open(&dir.join(&name), OpenMode::Existing).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        format!("{name}\n{}", hex_of(&bytes))
    };
    disk.list(dir).unwrap().into_iter().map(dump_file).collect()
}

/// A disk with the golden files.
fn disk_of(golden: &str) -> SimDisk {
    let disk = SimDisk::new();
    let dir = Path::new(DIR);
    disk.create_dir_all(dir).unwrap();
    let mut file = None;
    for line in golden.lines() {
        if line.contains('.') {
            file = Some(disk.open(&dir.join(line), OpenMode::CreateNew).unwrap());
        } else {
            let file = file.as_ref().unwrap();
            file.write_at(file.len().unwrap(), &bytes_of(line)).unwrap();
        }
    }
    disk
}

fn played(ops: Vec<Op>) -> (SimDisk, Model) {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    let mut model = Model::default();
    for op in ops {
        run(&log, &op).unwrap();
        model.apply(&op);
    }
    (disk, model)
}

#[test]
fn the_same_calls_give_the_golden_bytes() {
    let written = dump(&played(recycling_ops()).0);
    assert!(written == GOLDEN, "the format changed; this build writes\n{written}");
}

#[test]
fn the_golden_bytes_give_the_same_log() {
    let log = open(disk_of(GOLDEN), SEGMENT_BYTES, 0).unwrap();
    assert_eq!(Model::of(&log), played(recycling_ops()).1);
}

#[test]
fn a_log_of_the_first_version_is_read_and_goes_on() {
    let disk = disk_of(GOLDEN_V1);
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    let mut model = played(ops()).1;
    assert_eq!(Model::of(&log), model);
    let next = Op::Append(vec![entry(0x0102_0304_0506_0708, 4, "by a later version")]);
    run(&log, &next).unwrap();
    model.apply(&next);
    drop(log);
    assert_eq!(Model::of(&open(disk, SEGMENT_BYTES, 0).unwrap()), model);
}
