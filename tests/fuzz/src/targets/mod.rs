//! The decoders, one file each.

mod disk;
mod envelopes;
mod frames;
mod journal;
mod log_records;
mod peer_calls;
mod snapshot;

use crate::Target;

/// All of them.
pub fn all() -> Vec<Box<dyn Target>> {
    vec![
        Box::new(frames::Frames),
        Box::new(envelopes::Envelopes),
        Box::new(peer_calls::PeerCalls),
        Box::new(log_records::LogRecords),
        Box::new(journal::Journal),
        Box::new(snapshot::Snapshot),
    ]
}

/// An error's kind, without what is particular to the input.
pub(crate) fn outcome<T, E: std::fmt::Display>(result: Result<T, E>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string().chars().take(120).collect(),
    }
}

/// The golden vectors of the protocol: (JSON, MessagePack).
pub(crate) fn golden() -> Vec<(Vec<u8>, Vec<u8>)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../protocol/tests/golden");
    let files = std::fs::read_dir(folder).expect("the golden vectors are in the repository");
    let mut paths: Vec<_> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    paths.sort();
    paths
        .into_iter()
        .filter_map(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            Some((line("json ")?.as_bytes().to_vec(), hex(line("msgpack ")?)?))
        })
        .collect()
}

/// Bytes from hexadecimal digits.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.trim().chars().map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
    Some(digits?.chunks(2).map(|pair| pair[0] << 4 | pair.get(1).unwrap_or(&0)).collect())
}
