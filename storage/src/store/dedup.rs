//! The dedup window: the same client id gives the same reply, or is refused.
//!
//! Each of these rules is there for a way in which such windows fail:
//!
//! - A record is made only by an accepted command, in the same step as its effect: there is no
//!   moment in which a message exists without its record.
//! - Sends and creations share one namespace for each sender, and the fingerprint says which of the
//!   two it was: an id can't name both.
//! - The fingerprint covers the conversation that the send *resolved* to, so naming the other user
//!   and naming the direct conversation are the same send.
//! - Time is the log's. A lookup checks a record's age itself, so it does not matter when expired
//!   records are removed; they are removed in the order of the log, a few with each command, so
//!   that no command pays for a long backlog.
//! - A client id that is used again after it expired gets a new record under a new number, which the
//!   index leads to from then on. The old record goes when its turn comes, and leaves the new one's
//!   place in the index alone.
//!
//! Records lie in the order of their numbers, each written once. The index leads from a hash of
//! sender and client id to the newest number: a few bytes in the place of a record, since the keys of
//! a log-structured engine are written again and again. A record has its sender and client id too, so
//! a hash that two requests shared would at worst hide the older one from its own retries; as half a
//! SHA-256, none is known to.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::command::{Attempt, Rejection, Reply};
use crate::limits::DEDUP_WINDOW_MS;
use crate::model::{ClientId, ConversationId, ConversationKind, Members, Retention, UserId};
use crate::planted::{self, Bug};

/// Names a request: its sender and the sender's name for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct DedupKey {
    /// Who asked.
    pub(super) sender: UserId,
    /// The sender's name for the request.
    pub(super) client_id: ClientId,
}

/// A [`DedupKey`] that borrows its parts, for lookups.
#[derive(Debug, Clone, Copy)]
pub(super) struct DedupKeyRef<'a> {
    /// Who asked.
    pub(super) sender: &'a UserId,
    /// The sender's name for the request.
    pub(super) client_id: &'a ClientId,
}

impl DedupKeyRef<'_> {
    /// The key itself.
    pub(super) fn to_key(self) -> DedupKey {
        DedupKey { sender: self.sender.clone(), client_id: self.client_id.clone() }
    }

    /// Whether it names what the key names.
    pub(super) fn names(self, key: &DedupKey) -> bool {
        *self.client_id == key.client_id && *self.sender == key.sender
    }

    /// What stands for it in the index.
    pub(super) fn hash(self) -> DedupHash {
        let print = Print(Sha256::new()).field(self.sender.as_str().as_bytes());
        DedupHash(print.field(self.client_id.as_str().as_bytes()).finish())
    }
}

impl DedupKey {
    /// The same, borrowing.
    pub(super) fn as_ref(&self) -> DedupKeyRef<'_> {
        DedupKeyRef { sender: &self.sender, client_id: &self.client_id }
    }
}

/// Stands for a [`DedupKey`] in the index: the first half of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DedupHash(pub(super) [u8; 16]);

impl DedupHash {
    /// A part of it, for maps and filters: what more there is tells apart what they mix up.
    pub(super) fn word(&self) -> u64 {
        let (word, _) = self.0.split_first_chunk().expect("sixteen bytes have eight");
        u64::from_le_bytes(*word)
    }
}

impl Hash for DedupHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.word());
    }
}

/// For maps by [`DedupHash`], which is as mixed as any hash of it could be.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Unhashed(u64);

impl Hasher for Unhashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("a DedupHash writes one word");
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

/// What tells one request from another: the first half of a SHA-256.
pub(super) type Fingerprint = [u8; 16];

/// What is remembered of an accepted request. Its number says where it stands in the window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DedupRecord {
    /// The request.
    pub(super) key: DedupKey,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub(super) at_ms: u64,
    /// The attempt that was accepted.
    pub(super) attempt: Attempt,
    /// What it asked for.
    pub(super) fingerprint: Fingerprint,
    /// What it was answered.
    pub(super) outcome: DedupOutcome,
}

/// The answer that is given again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum DedupOutcome {
    /// A message was stored, at the record's time.
    Sent {
        /// In this conversation.
        conversation: ConversationId,
        /// With this sequence.
        seq: u64,
    },
    /// A conversation was made, or was there.
    Created {
        /// Which.
        conversation: ConversationId,
        /// Whether it was there.
        existed: bool,
    },
}

/// Whether something accepted at `at_ms` has left the window.
pub(super) fn expired(at_ms: u64, now_ms: u64) -> bool {
    let window_ms =
        if planted::is(Bug::WindowEndsEarly) { DEDUP_WINDOW_MS / 24 } else { DEDUP_WINDOW_MS };
    now_ms.saturating_sub(at_ms) >= window_ms
}

impl DedupRecord {
    /// The reply to a request that names this record, which is still in the window.
    pub(super) fn answer(
        &self,
        fingerprint: &Fingerprint,
        attempt: Attempt,
    ) -> Result<Reply, Rejection> {
        if *fingerprint != self.fingerprint {
            return Err(Rejection::ClientIdReused);
        }
        let again = attempt != self.attempt;
        Ok(match &self.outcome {
            DedupOutcome::Sent { conversation, seq } => Reply::Sent {
                conversation: conversation.clone(),
                seq: *seq,
                at_ms: self.at_ms,
                duplicate: again,
            },
            DedupOutcome::Created { conversation, existed } => {
                Reply::Created { conversation: conversation.clone(), duplicate: *existed || again }
            }
        })
    }
}

/// Hashes fields so that no two different lists of fields give the same input.
struct Print(Sha256);

impl Print {
    fn of(request: &[u8]) -> Self {
        Self(Sha256::new()).field(request)
    }

    fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    fn optional(self, bytes: Option<&[u8]>) -> Self {
        match bytes {
            Some(bytes) => self.field(&[1]).field(bytes),
            None => self.field(&[0]),
        }
    }

    fn finish(self) -> Fingerprint {
        let hash = self.0.finalize();
        let (half, _) = hash.split_first_chunk().expect("a SHA-256 has 32 bytes");
        *half
    }
}

/// The fingerprint of a send to the conversation that it resolved to.
pub(super) fn send_fingerprint(
    conversation: &ConversationId,
    body: &[u8],
    content_type: Option<&str>,
    ttl_ms: Option<u64>,
) -> Fingerprint {
    Print::of(b"send")
        .field(conversation.as_str().as_bytes())
        .field(body)
        .optional(content_type.map(str::as_bytes))
        .optional(ttl_ms.map(u64::to_le_bytes).as_ref().map(<[u8; 8]>::as_slice))
        .finish()
}

/// The fingerprint of a creation; `members` has the owner too.
pub(super) fn create_fingerprint(
    kind: ConversationKind,
    members: &Members,
    name: Option<&str>,
    retention: Retention,
) -> Fingerprint {
    let kind: &[u8] = match kind {
        ConversationKind::Direct => b"direct",
        ConversationKind::Group => b"group",
        ConversationKind::Channel => b"channel",
    };
    let ttl_ms = match retention {
        Retention::Forever => None,
        Retention::Ttl { ttl_ms } => Some(ttl_ms.to_le_bytes()),
    };
    let print = Print::of(b"create")
        .field(kind)
        .optional(name.map(str::as_bytes))
        .optional(ttl_ms.as_ref().map(<[u8; 8]>::as_slice));
    members.keys().fold(print, |print, member| print.field(member.as_str().as_bytes())).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_send_counts() {
        let (a, b): (ConversationId, ConversationId) =
            ("g-0-1".parse().unwrap(), "g-0-2".parse().unwrap());
        let prints = [
            send_fingerprint(&a, b"hi", None, None),
            send_fingerprint(&b, b"hi", None, None),
            send_fingerprint(&a, b"ho", None, None),
            send_fingerprint(&a, b"hi", Some(""), None),
            send_fingerprint(&a, b"hi", Some("text/plain"), None),
            send_fingerprint(&a, b"hi", None, Some(0)),
            send_fingerprint(&a, b"hi", None, Some(1)),
        ];
        for (i, print) in prints.iter().enumerate() {
            assert!(!prints[..i].contains(print));
        }
    }

    #[test]
    fn a_request_is_told_from_one_that_only_reads_the_same() {
        let hash = |sender: &str, client_id: &str| {
            let (sender, client_id) = (sender.parse().unwrap(), client_id.parse().unwrap());
            DedupKeyRef { sender: &sender, client_id: &client_id }.hash()
        };
        assert_eq!(hash("al", "c"), hash("al", "c"));
        assert_ne!(hash("al", "c"), hash("a", "lc"));
    }

    #[test]
    fn the_window_ends_when_it_says() {
        assert!(!expired(1_000, 1_000 + DEDUP_WINDOW_MS - 1));
        assert!(expired(1_000, 1_000 + DEDUP_WINDOW_MS));
        assert!(!expired(5, 1));
    }
}
