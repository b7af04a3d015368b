//! The wire's bytes are pinned: one file an envelope, JSON and MessagePack (in hex) together.
//!
//! A change here breaks clients in the field. `UPDATE_GOLDEN=1` writes the files anew.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use bytes::Bytes;
use roost_protocol::{Encoding, OperationKind};

use crate::samples::{frames, operations, replies, requests};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn check(name: &str, json: &Bytes, msgpack: &Bytes) {
    let path = folder().join(format!("{name}.txt"));
    let json = std::str::from_utf8(json).unwrap();
    let text = format!("json {json}\nmsgpack {}\n", hex(msgpack));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(folder()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(text, golden, "{name}: the wire format changed");
}

#[test]
fn requests_keep_their_bytes_and_are_read_back() {
    for (name, request) in requests() {
        let json = Encoding::Json.request_bytes(&request);
        let msgpack = Encoding::MessagePack.request_bytes(&request);
        check(&format!("request_{name}"), &json, &msgpack);
        assert_eq!(Encoding::Json.decode_request(&json).as_ref(), Ok(&request), "{name}");
        assert_eq!(Encoding::MessagePack.decode_request(&msgpack).as_ref(), Ok(&request), "{name}");
    }
}

#[test]
fn what_a_node_says_keeps_its_bytes_and_is_read_back() {
    for (name, kind, frame) in frames() {
        let json = Encoding::Json.server_bytes(&frame);
        let msgpack = Encoding::MessagePack.server_bytes(&frame);
        check(&name, &json, &msgpack);
        let asked = |id| (id == 7).then_some(kind);
        assert_eq!(Encoding::Json.decode_server(&json, &asked).unwrap().as_ref(), Some(&frame));
        let read = Encoding::MessagePack.decode_server(&msgpack, &asked).unwrap();
        assert_eq!(read.as_ref(), Some(&frame), "{name}");
    }
}

#[test]
fn every_operation_and_reply_has_a_golden_file() {
    let asked: BTreeSet<_> = operations().iter().map(|(_, o)| o.kind().as_str()).collect();
    let mut answered: BTreeSet<_> = replies().iter().map(|(_, kind, _)| kind.as_str()).collect();
    // It is answered like `add_members`.
    answered.insert(OperationKind::RemoveMembers.as_str());
    let all: BTreeSet<_> = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(asked, all);
    assert_eq!(answered, all);
}

#[test]
fn no_golden_file_is_left_over() {
    let mut expected: BTreeSet<_> =
        requests().iter().map(|(name, _)| format!("request_{name}.txt")).collect();
    expected.extend(frames().iter().map(|(name, ..)| format!("{name}.txt")));
    let found: BTreeSet<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}
