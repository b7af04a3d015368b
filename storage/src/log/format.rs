//! The bytes of a segment: header, frames, records. Integers are big-endian.
//!
//! ```text
//! segment  header block (4,096 bytes) | frame | frame | … | end
//! header   "ROOSTLOG" | version u8 | body length u32 | crc32c u32 | body
//!   body   segment number u32 | first frame's sequence u64 | salt u64
//!          | purged | last | committed (positions) | vote
//! frame    "\xf7RFM" | body length u32 | sequence u64 | crc32c u32 | body: records
//! record   body length u32 | crc32c u32 | kind u8 | body
//!   1 entry      term u64 | index u64 | kind u8 | payload
//!   2 vote       vote
//!   3 truncate   position
//!   4 purge      position
//!   5 committed  position
//! position 0 u8, or 1 u8 | term u64 | index u64
//! vote     0 u8, or 1 u8 | length u32 | bytes
//! end      zeros, a frame header's length or up to the file's end | anything
//! ```
//!
//! Version 1 had zeros up to the file's end. Since version 2 a segment may lie in the file of one that
//! was purged, whose frames are still behind the end. They are no frames of this one: its salt differs.
//!
//! A frame is what one sync made durable, and sequences of frames ascend by one over all segments.
//! A frame is written only after the one before it was synced: so where a frame's *header* can be
//! read, everything before it was durable once, and what can't be read there is corrupt, not torn.
//!
//! The frame header's checksum also covers the segment's salt, which depends on everything logged
//! before that segment: nobody can smuggle in bytes that look like a frame inside a payload (a log's
//! first segment, with nothing before it, has a constant one). A record's checksum covers its
//! length, kind and body.
//!
//! This module turns values into bytes and back; files and order belong to its neighbours.

use bytes::{Buf, BufMut, Bytes};

use super::{KIND_BYTES, LogEntry, LogState};
use crate::limits::MAX_ENTRY_BYTES;
use crate::model::LogPosition;

/// The format that this build writes.
pub(super) const VERSION: u8 = 2;
/// The oldest format that it reads.
const OLDEST_VERSION: u8 = 1;
/// What the kernel reads before a part of it is written over; a power of two.
pub(super) const PAGE_BYTES: usize = 4096;
/// Where a segment's first frame begins.
pub(super) const HEADER_BYTES: u64 = 4096;
/// Bytes of a frame before its records.
pub(super) const FRAME_HEADER_BYTES: usize = 20;
/// Bytes of a record before its body.
pub(super) const RECORD_HEADER_BYTES: usize = 9;
/// Bytes of an entry's record that are not payload.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = RECORD_HEADER_BYTES + 16 + KIND_BYTES;
/// Longest vote.
pub(super) const MAX_VOTE_BYTES: usize = 1024;
/// Longest record, with its header.
pub(super) const MAX_RECORD_BYTES: usize = ENTRY_OVERHEAD_BYTES + MAX_ENTRY_BYTES;
/// Longest body of a frame; the writer closes a frame before it gets longer.
pub(super) const MAX_FRAME_BYTES: usize = 2 * MAX_RECORD_BYTES;
/// The salt of a log's first segment.
pub(super) const FIRST_SALT: u64 = 0;

const SEGMENT_MAGIC: [u8; 8] = *b"ROOSTLOG";
/// Its first byte is never part of UTF-8, so that it is rare in what people write.
pub(super) const FRAME_MAGIC: [u8; 4] = *b"\xf7RFM";
const HEADER_PREFIX_BYTES: usize = 17;

const _: () =
    assert!(HEADER_PREFIX_BYTES + 20 + 3 * 17 + 5 + MAX_VOTE_BYTES <= HEADER_BYTES as usize);
const _: () = assert!(MAX_FRAME_BYTES < u32::MAX as usize / 4);

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// Nothing was written, or something else.
    Bytes(&'static str),
    /// Whole, but of another version.
    Version(u8),
}

/// One step of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Entry(LogEntry),
    Vote(Bytes),
    Truncate(Option<LogPosition>),
    Purge(LogPosition),
    Committed(Option<LogPosition>),
}

impl Record {
    /// Length of the encoded record in bytes.
    pub(super) fn encoded_len(&self) -> usize {
        let body = match self {
            Self::Entry(entry) => 16 + KIND_BYTES + entry.payload.len(),
            Self::Vote(vote) => 5 + vote.len(),
            Self::Truncate(position) | Self::Committed(position) => position_len(*position),
            Self::Purge(position) => position_len(Some(*position)),
        };
        RECORD_HEADER_BYTES + body
    }

    /// Appends the encoded record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let body_len = self.encoded_len() - RECORD_HEADER_BYTES;
        out.put_u32(u32::try_from(body_len).expect("records are far below 4 GiB"));
        out.put_u32(0);
        out.put_u8(self.kind());
        match self {
            Self::Entry(entry) => {
                out.put_u64(entry.position.term);
                out.put_u64(entry.position.index);
                out.put_u8(entry.kind);
                out.put_slice(&entry.payload);
            }
            Self::Vote(vote) => put_vote(out, Some(vote)),
            Self::Truncate(position) | Self::Committed(position) => put_position(out, *position),
            Self::Purge(position) => put_position(out, Some(*position)),
        }
        let checksum = record_checksum(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&checksum.to_be_bytes());
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Entry(_) => 1,
            Self::Vote(_) => 2,
            Self::Truncate(_) => 3,
            Self::Purge(_) => 4,
            Self::Committed(_) => 5,
        }
    }

    /// Decodes the record at the front of `bytes`; gives it and its whole length.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, usize), Invalid> {
        let header = bytes.get(..RECORD_HEADER_BYTES).ok_or(Invalid::Bytes("record cut short"))?;
        let body_len = (&header[..4]).get_u32() as usize;
        let len = RECORD_HEADER_BYTES + body_len;
        let bytes = bytes.get(..len).ok_or(Invalid::Bytes("record longer than its frame"))?;
        if record_checksum(bytes) != (&bytes[4..8]).get_u32() {
            return Err(Invalid::Bytes("record checksum"));
        }
        let mut body = &bytes[RECORD_HEADER_BYTES..];
        let record =
            Self::decode_body(bytes[8], &mut body).ok_or(Invalid::Bytes("record content"))?;
        if body.is_empty() { Ok((record, len)) } else { Err(Invalid::Bytes("record content")) }
    }

    fn decode_body(kind: u8, body: &mut &[u8]) -> Option<Self> {
        Some(match kind {
            1 => {
                let position =
                    LogPosition { term: body.try_get_u64().ok()?, index: body.try_get_u64().ok()? };
                Self::Entry(LogEntry {
                    position,
                    // An entry of no bytes at all, which the format had once, is of the first kind.
                    kind: body.try_get_u8().unwrap_or(0),
                    payload: Bytes::copy_from_slice(std::mem::take(body)),
                })
            }
            2 => Self::Vote(get_vote(body)??),
            3 => Self::Truncate(get_position(body)?),
            4 => Self::Purge(get_position(body)??),
            5 => Self::Committed(get_position(body)?),
            _ => return None,
        })
    }
}

/// What precedes the records of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Bytes of records.
    pub(super) body_len: usize,
    /// The frame's place in the log's history.
    pub(super) sequence: u64,
}

impl FrameHeader {
    /// Fills in the header at the front of a frame, whose records are in place behind it.
    pub(super) fn seal(frame: &mut [u8], sequence: u64, salt: u64) {
        let body_len = frame.len() - FRAME_HEADER_BYTES;
        let mut header = &mut frame[..FRAME_HEADER_BYTES - 4];
        header.put_slice(&FRAME_MAGIC);
        header.put_u32(u32::try_from(body_len).expect("frames are far below 4 GiB"));
        header.put_u64(sequence);
        let checksum = frame_checksum(&frame[..FRAME_HEADER_BYTES - 4], salt);
        frame[FRAME_HEADER_BYTES - 4..FRAME_HEADER_BYTES].copy_from_slice(&checksum.to_be_bytes());
    }

    /// Reads the header at the front of `bytes`, if there is one.
    pub(super) fn decode(bytes: &[u8], salt: u64) -> Option<Self> {
        let checked = bytes.get(..FRAME_HEADER_BYTES - 4)?;
        let mut rest = bytes.get(..FRAME_HEADER_BYTES)?.strip_prefix(&FRAME_MAGIC)?;
        let body_len = rest.get_u32() as usize;
        let sequence = rest.get_u64();
        let whole = body_len <= MAX_FRAME_BYTES && rest.get_u32() == frame_checksum(checked, salt);
        whole.then_some(Self { body_len, sequence })
    }
}

/// What a segment knows of the log before it, so that older segments can go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The segment's number, counted from 1.
    pub(super) number: u32,
    /// The sequence of its first frame.
    pub(super) first_sequence: u64,
    /// Covered by the checksums of its frames' headers.
    pub(super) salt: u64,
    /// What the log held when the segment was begun.
    pub(super) state: LogState,
}

impl SegmentHeader {
    /// The encoded header, shorter than [`HEADER_BYTES`].
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_slice(&SEGMENT_MAGIC);
        out.put_u8(VERSION);
        out.put_u64(0); // length and checksum, below
        out.put_u32(self.number);
        out.put_u64(self.first_sequence);
        out.put_u64(self.salt);
        put_position(&mut out, self.state.purged);
        put_position(&mut out, self.state.last);
        put_position(&mut out, self.state.committed);
        put_vote(&mut out, self.state.vote.as_ref());
        let body_len =
            u32::try_from(out.len() - HEADER_PREFIX_BYTES).expect("a header is one block");
        out[9..13].copy_from_slice(&body_len.to_be_bytes());
        let checksum = header_checksum(&out);
        out[13..17].copy_from_slice(&checksum.to_be_bytes());
        out
    }

    /// Decodes the header out of a segment's first block.
    pub(super) fn decode(block: &[u8]) -> Result<Self, Invalid> {
        let rest = block.strip_prefix(&SEGMENT_MAGIC).ok_or(Invalid::Bytes("segment magic"))?;
        let mut fields = rest.get(..9).ok_or(Invalid::Bytes("segment header cut short"))?;
        let version = fields.get_u8();
        let len = HEADER_PREFIX_BYTES.saturating_add(fields.get_u32() as usize);
        let header = block.get(..len).ok_or(Invalid::Bytes("segment header cut short"))?;
        if fields.get_u32() != header_checksum(header) {
            return Err(Invalid::Bytes("segment header checksum"));
        }
        if !(OLDEST_VERSION..=VERSION).contains(&version) {
            return Err(Invalid::Version(version));
        }
        Self::decode_body(&header[HEADER_PREFIX_BYTES..])
            .ok_or(Invalid::Bytes("segment header content"))
    }

    fn decode_body(mut body: &[u8]) -> Option<Self> {
        Some(Self {
            number: body.try_get_u32().ok()?,
            first_sequence: body.try_get_u64().ok()?,
            salt: body.try_get_u64().ok()?,
            state: LogState {
                purged: get_position(&mut body)?,
                last: get_position(&mut body)?,
                committed: get_position(&mut body)?,
                vote: get_vote(&mut body)?,
            },
        })
    }
}

/// Up to where a frame's write goes if its last byte lies before `end`, with the zeros behind it: whole
/// pages, because the kernel would read the rest of one from the disk first.
pub(super) fn end_of_write(end: u64, file_len: u64) -> u64 {
    (end + FRAME_HEADER_BYTES as u64).next_multiple_of(PAGE_BYTES as u64).min(file_len)
}

/// Carries the digest of all frames so far on by one whole frame; the next segment's salt.
pub(super) fn chain(before: u64, frame: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(frame, before)
}

fn record_checksum(record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&record[..4]), &record[8..])
}

fn frame_checksum(header: &[u8], salt: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&salt.to_be_bytes()), header)
}

fn header_checksum(header: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..13]), &header[17..])
}

fn position_len(position: Option<LogPosition>) -> usize {
    if position.is_some() { 17 } else { 1 }
}

fn put_position(out: &mut Vec<u8>, position: Option<LogPosition>) {
    out.put_u8(u8::from(position.is_some()));
    if let Some(position) = position {
        out.put_u64(position.term);
        out.put_u64(position.index);
    }
}

fn put_vote(out: &mut Vec<u8>, vote: Option<&Bytes>) {
    out.put_u8(u8::from(vote.is_some()));
    if let Some(vote) = vote {
        out.put_u32(u32::try_from(vote.len()).expect("votes are checked when they are saved"));
        out.put_slice(vote);
    }
}

/// `None` for bytes that are no position.
fn get_position(body: &mut &[u8]) -> Option<Option<LogPosition>> {
    match body.try_get_u8().ok()? {
        0 => Some(None),
        1 => Some(Some(LogPosition {
            term: body.try_get_u64().ok()?,
            index: body.try_get_u64().ok()?,
        })),
        _ => None,
    }
}

/// `None` for bytes that are no vote.
fn get_vote(body: &mut &[u8]) -> Option<Option<Bytes>> {
    match body.try_get_u8().ok()? {
        0 => Some(None),
        1 => {
            let len = body.try_get_u32().ok()? as usize;
            let vote = body.split_off(..len)?;
            Some(Some(Bytes::copy_from_slice(vote)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = LogPosition> {
        (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogPosition { term, index })
    }

    fn payload() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            (position(), any::<u8>(), payload()).prop_map(|(position, kind, payload)| {
                Record::Entry(LogEntry { position, kind, payload })
            }),
            payload().prop_map(Record::Vote),
            prop::option::of(position()).prop_map(Record::Truncate),
            position().prop_map(Record::Purge),
            prop::option::of(position()).prop_map(Record::Committed),
        ]
    }

    proptest! {
        #[test]
        fn a_record_decodes_to_itself_and_no_flipped_bit_goes_unseen(record in record(), flip in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), record.encoded_len());
            prop_assert_eq!(Record::decode(&bytes).unwrap(), (record, bytes.len()));
            let bit = flip.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Record::decode(&bytes).is_err());
        }

        #[test]
        fn nonsense_is_no_record_no_frame_and_no_segment(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Record::decode(&bytes).is_err());
            prop_assert!(FrameHeader::decode(&bytes, 1).is_none());
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
        }

        #[test]
        fn a_segment_header_decodes_to_itself(
            (number, first_sequence, salt) in any::<(u32, u64, u64)>(),
            (purged, last, committed) in (prop::option::of(position()), prop::option::of(position()), prop::option::of(position())),
            vote in prop::option::of(payload()),
        ) {
            let header = SegmentHeader { number, first_sequence, salt, state: LogState { purged, last, vote, committed } };
            prop_assert_eq!(SegmentHeader::decode(&header.encode()).unwrap(), header);
        }
    }

    #[test]
    fn a_frame_header_is_one_only_in_a_segment_of_its_salt() {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        Record::Vote(Bytes::from_static(b"v")).encode(&mut frame);
        FrameHeader::seal(&mut frame, 7, 1234);
        let header = FrameHeader { body_len: frame.len() - FRAME_HEADER_BYTES, sequence: 7 };
        assert_eq!(FrameHeader::decode(&frame, 1234), Some(header));
        assert_eq!(FrameHeader::decode(&frame, 1235), None);
        assert_eq!(FrameHeader::decode(&frame[1..], 1234), None);
        assert_eq!(FrameHeader::decode(&frame[..FRAME_HEADER_BYTES - 1], 1234), None);
    }

    #[test]
    fn another_version_is_told_from_damage() {
        let header =
            SegmentHeader { number: 1, first_sequence: 1, salt: 0, state: LogState::default() };
        let mut bytes = header.encode();
        bytes[8] = VERSION + 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(Invalid::Bytes("segment header checksum")));
        let checksum = header_checksum(&bytes);
        bytes[13..17].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(Invalid::Version(VERSION + 1)));
    }
}
