//! The bytes of a segment are pinned: a log written by any build of this version is read by any other.
#![cfg(test)]

mod log_support;

use std::path::Path;

use log_support::{DIR, Model, Op, at, entry, open, run};
use roost_storage::fs::sim::SimDisk;
use roost_storage::fs::{Disk, OpenMode};

const SEGMENT_BYTES: u64 = 4096 + 256;
/// Two segments, a line of hex for each 32 bytes, `*` for lines of zeros.
const GOLDEN: &str = include_str!("golden/log-v1.hex");

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

fn hex_of(bytes: &[u8]) -> String {
    let mut text = String::new();
    for line in bytes.chunks(32) {
        if line.iter().any(|byte| *byte != 0) {
            text.extend(line.iter().map(|byte| format!("{byte:02x}")));
            text.push('\n');
        } else if !text.ends_with("*\n") {
            text.push_str("*\n");
        }
    }
    text
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

/// A disk with the golden files, zeros where there is a `*`.
fn golden_disk() -> SimDisk {
    let disk = SimDisk::new();
    let dir = Path::new(DIR);
    disk.create_dir_all(dir).unwrap();
    for part in GOLDEN.split_inclusive(".log\n").collect::<Vec<_>>().windows(2) {
        let name = part[0].lines().last().unwrap();
        let file = disk.open(&dir.join(name), OpenMode::CreateNew).unwrap();
        file.allocate(SEGMENT_BYTES).unwrap();
        let lines: Vec<&str> = part[1].lines().filter(|line| !line.ends_with(".log")).collect();
        let header_lines = lines.iter().position(|line| *line == "*").unwrap();
        let bytes_of = |lines: &[&str]| -> Vec<u8> {
            let text: String = lines.iter().filter(|line| **line != "*").copied().collect();
            let digits = text.as_bytes().chunks(2);
            digits
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
                .collect()
        };
        file.write_at(0, &bytes_of(&lines[..header_lines])).unwrap();
        file.write_at(4096, &bytes_of(&lines[header_lines..])).unwrap();
    }
    disk
}

#[test]
fn the_same_calls_give_the_golden_bytes() {
    let disk = SimDisk::new();
    let log = open(disk.clone(), SEGMENT_BYTES, 0).unwrap();
    for op in ops() {
        run(&log, &op).unwrap();
    }
    drop(log);
    let written = dump(&disk);
    assert!(written == GOLDEN, "the format changed; this build writes\n{written}");
}

#[test]
fn the_golden_bytes_give_the_same_log() {
    let mut model = Model::default();
    for op in ops() {
        model.apply(&op);
    }
    assert_eq!(Model::of(&open(golden_disk(), SEGMENT_BYTES, 0).unwrap()), model);
}
