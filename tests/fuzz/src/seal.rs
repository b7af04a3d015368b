//! The checksums of the log's segments and of journals and snapshots, made right again after a
//! mutation, by the formats' pages in `docs/storage.md`. What no longer looks like the format is
//! left alone.

use xxhash_rust::xxh3::xxh3_128;

const SEGMENT_HEADER_BYTES: usize = 4096;
const FRAME_MAGIC: &[u8] = b"\xf7RFM";

/// A log segment: the header's checksum, then each frame's and its records'.
pub(crate) fn segment(bytes: &mut [u8]) {
    let Some(salt) = segment_header(bytes) else { return };
    let mut at = SEGMENT_HEADER_BYTES;
    while bytes.len() >= at + 20 && bytes[at..].starts_with(FRAME_MAGIC) {
        let body_len = be32(&bytes[at + 4..]) as usize;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&salt), &bytes[at..at + 16]);
        bytes[at + 16..at + 20].copy_from_slice(&checksum.to_be_bytes());
        at += 20;
        let end = at.saturating_add(body_len).min(bytes.len());
        records(&mut bytes[at..end]);
        at = end;
    }
}

/// Seals the header; gives its salt.
fn segment_header(bytes: &mut [u8]) -> Option<[u8; 8]> {
    let header = bytes.get_mut(..SEGMENT_HEADER_BYTES)?;
    let end = 17_usize.checked_add(be32(&header[9..]) as usize)?;
    if end > header.len() {
        return None;
    }
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..13]), &header[17..end]);
    header[13..17].copy_from_slice(&checksum.to_be_bytes());
    header[29..37].try_into().ok()
}

fn records(mut bytes: &mut [u8]) {
    while bytes.len() >= 9 {
        let len = (9 + be32(bytes) as usize).min(bytes.len());
        let (record, rest) = bytes.split_at_mut(len);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..]);
        record[4..8].copy_from_slice(&checksum.to_be_bytes());
        bytes = rest;
    }
}

/// A journal or a snapshot: each frame's checksum, and the hash in the trailer, its last 16 bytes.
pub(crate) fn framed_file(bytes: &mut [u8]) {
    let mut at = 9;
    let mut last = None;
    while bytes.len() >= at + 8 {
        let size = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let Some(end) = (at + 8).checked_add(size as usize).filter(|end| *end <= bytes.len())
        else {
            break;
        };
        last = Some((at, end));
        at = end;
    }
    if let Some((start, end)) = last
        && end - start >= 8 + 18
    {
        let hash = xxh3_128(&bytes[..start]).to_le_bytes();
        bytes[end - 16..end].copy_from_slice(&hash);
    }
    let mut at = 9;
    while let Some(head) = bytes.get(at..at + 8) {
        let len = [head[0], head[1], head[2], head[3]];
        let Some(payload) = bytes.get(at + 8..at + 8 + u32::from_le_bytes(len) as usize) else {
            return;
        };
        let end = at + 8 + payload.len();
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&len), payload);
        bytes[at + 4..at + 8].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}
