//! What the cold tier's values are, and how they are read back.
//!
//! Values go through the codec and carry its version byte. The records of [`model`](crate::model)
//! are stored as they are; this file adds the segments' and the checkpoint's own types.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::AppliedState;
use super::dedup::DedupRecord;
use super::digest::{self, SetDigest};
use super::{Counts, Digest};
use crate::limits::{MAX_DEDUP_SEGMENT_BYTES, MAX_MESSAGE_SEGMENT_BYTES, MAX_RECORD_BYTES};
use crate::model::{LogPosition, Message};
use crate::{Fault, codec};

/// The version of the tables: which keys there are, and what their values mean. It stands before the
/// checkpoint's state, so that nobody reads the tables of another one.
const LAYOUT: u8 = 2;

/// What the store knows besides its records: the value that a checkpoint carries as its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    /// The newest applied entry.
    pub(super) applied: Option<LogPosition>,
    /// The membership's bytes, with the position of its entry.
    pub(super) membership: Option<(LogPosition, Vec<u8>)>,
    /// The store's time, in milliseconds since the Unix epoch.
    pub(super) now_ms: u64,
    /// How many conversation ids were assigned.
    pub(super) assigned: u64,
    /// The number of the oldest record in the dedup window.
    pub(super) dedup_head: u64,
    /// The number that the next dedup record gets.
    pub(super) dedup_next: u64,
    /// The sum over all records.
    pub(super) digest: SetDigest,
    /// How many records there are.
    pub(super) counts: StoredCounts,
}

/// [`Counts`], as a checkpoint stores them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoredCounts {
    pub(super) users: u64,
    pub(super) conversations: u64,
    pub(super) messages: u64,
    pub(super) references: u64,
    pub(super) devices: u64,
    pub(super) dedup: u64,
}

impl From<StoredCounts> for Counts {
    fn from(counts: StoredCounts) -> Self {
        let StoredCounts { users, conversations, messages, references, devices, dedup } = counts;
        Self { users, conversations, messages, references, devices, dedup }
    }
}

impl State {
    /// The part that callers see.
    pub(super) fn applied_state(&self) -> AppliedState {
        AppliedState { applied: self.applied, membership: self.membership.clone() }
    }

    /// The digest that goes with a sum over all records.
    pub(super) fn digest_with(&self, records: SetDigest) -> Digest {
        let applied = self.applied.map_or(0, |position| position.index + 1);
        let globals = digest::globals(&[
            applied,
            self.now_ms,
            self.assigned,
            self.dedup_head,
            self.dedup_next,
        ]);
        let mut sum = records;
        sum.add(globals);
        Digest(sum.0)
    }

    /// The bytes that a checkpoint carries.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![LAYOUT];
        codec::encode_into(self, &mut bytes);
        bytes
    }

    /// Reads what [`State::encode`] gave.
    ///
    /// # Errors
    /// [`Fault::Version`] for the state of another layout.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let what = "the layout of the stored state";
        match bytes.split_first() {
            Some((&LAYOUT, body)) => codec::decode_bare(what, body, MAX_RECORD_BYTES),
            Some((&found, _)) => {
                Err(Fault::Version { what: what.to_owned(), found, supported: LAYOUT })
            }
            None => Err(Fault::corrupt("the stored state is empty")),
        }
    }
}

/// Reads a record; `what` names it in errors.
pub(super) fn record<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Fault> {
    codec::decode(what, bytes, MAX_RECORD_BYTES)
}

/// Reads the segment of messages that starts at `first`.
///
/// # Errors
/// [`Fault::Corrupt`] unless it has at least one message and their sequences follow each other.
pub(super) fn messages(first: u64, bytes: &[u8]) -> Result<Vec<Message>, Fault> {
    let messages: Vec<Message> =
        codec::decode("a message segment", bytes, MAX_MESSAGE_SEGMENT_BYTES)?;
    let follow = messages.iter().zip(first..).all(|(message, seq)| message.seq == seq);
    if messages.is_empty() || !follow {
        return Err(Fault::corrupt("a message segment's sequences do not follow each other"));
    }
    Ok(messages)
}

/// Reads a segment of dedup records.
pub(super) fn dedup(bytes: &[u8]) -> Result<Vec<DedupRecord>, Fault> {
    codec::decode("a segment of dedup records", bytes, MAX_DEDUP_SEGMENT_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Attempt;
    use crate::store::dedup::{DedupKey, DedupOutcome};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn message(seq: u64) -> Message {
        Message {
            seq,
            sender: "al".parse().unwrap(),
            at_ms: 7,
            body: b"hi".to_vec().into(),
            content_type: None,
            client_id: "c".parse().unwrap(),
            expires_at_ms: Some(9),
        }
    }

    fn state() -> State {
        State {
            applied: Some(LogPosition { term: 2, index: 300 }),
            membership: Some((LogPosition { term: 1, index: 0 }, vec![0xaa])),
            now_ms: 5,
            assigned: 1,
            dedup_head: 2,
            dedup_next: 3,
            digest: SetDigest(4),
            counts: StoredCounts { users: 6, ..StoredCounts::default() },
        }
    }

    #[test]
    fn stored_values_keep_their_bytes() {
        let key = DedupKey { sender: "al".parse().unwrap(), client_id: "c".parse().unwrap() };
        let conversation: crate::model::ConversationId = "g-0-1".parse().unwrap();
        let dedup = |outcome| DedupRecord {
            key: key.clone(),
            at_ms: 2,
            attempt: Attempt(3),
            fingerprint: [0xee; 16],
            outcome,
        };
        let sent = DedupOutcome::Sent { conversation: conversation.clone(), seq: 4 };
        let created = DedupOutcome::Created { conversation, existed: true };
        let found = [
            hex(&state().encode()),
            hex(&codec::encode(&vec![message(1), message(2)])),
            hex(&codec::encode(&vec![dedup(sent), dedup(created)])),
        ];
        let golden = [
            "020102fb2c0101010001aa0501020304060000000000",
            "01020102616c0702686900016301090202616c070268690001630109",
            "010202616c01630203eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee0005672d302d3104\
             02616c01630203eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee0105672d302d3101",
        ];
        assert_eq!(found, golden);
    }

    #[test]
    fn the_tables_of_another_layout_are_refused() {
        let mut bytes = state().encode();
        bytes[0] = 1;
        let found = State::decode(&bytes);
        assert!(matches!(found, Err(Fault::Version { found: 1, supported: 2, .. })), "{found:?}");
    }

    #[test]
    fn what_is_stored_reads_back() {
        assert_eq!(State::decode(&state().encode()).unwrap(), state());
        let run = vec![message(4), message(5)];
        assert_eq!(messages(4, &codec::encode(&run)).unwrap(), run);
    }

    #[test]
    fn segments_whose_messages_do_not_follow_are_corrupt() {
        let runs = [vec![], vec![message(5)], vec![message(4), message(6)]];
        for run in runs {
            assert!(matches!(messages(4, &codec::encode(&run)), Err(Fault::Corrupt(_))));
        }
    }
}
