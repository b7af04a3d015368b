//! Sends: a message into its conversation, a reference into every member's queue.

use bytes::Bytes;
use compact_str::CompactString;

use super::create::{self, Wanted};
use super::{check_size, check_ttl};
use crate::command::{Attempt, Rejection, Reply, Target};
use crate::limits::{MAX_BODY_BYTES, MAX_CONTENT_TYPE_BYTES};
use crate::model::{ClientId, ConversationId, ConversationKind, Message, Retention, Role, UserId};
use crate::store::dedup::{self, DedupKeyRef, DedupOutcome};
use crate::store::tx::{Admission, Head, Refusal, SenderPlace, Tx};

/// What is sent.
pub(super) struct Content {
    pub(super) body: Bytes,
    pub(super) content_type: Option<CompactString>,
    pub(super) ttl_ms: Option<u64>,
}

pub(super) fn send(
    tx: &mut Tx<'_>,
    sender: &UserId,
    target: Target,
    client_id: &ClientId,
    attempt: Attempt,
    content: Content,
) -> Result<Reply, Refusal> {
    content.check()?;
    let (conversation, peer) = match target {
        Target::Conversation(conversation) => (conversation, None),
        Target::User(peer) => (ConversationId::direct(sender, &peer), Some(peer)),
    };
    let Content { body, content_type, ttl_ms } = &content;
    let fingerprint =
        dedup::send_fingerprint(&conversation, body, content_type.as_deref(), *ttl_ms);
    let ticket = match tx.admit(DedupKeyRef { sender, client_id }, fingerprint, attempt)? {
        Admission::Before(reply) => return Ok(reply),
        Admission::New(ticket) => ticket,
    };
    let (place, retention) = match tx.known_sender(sender, &conversation) {
        Some((head, role, place)) => {
            check_role(head, role)?;
            (place, head.retention)
        }
        None => load(tx, sender, &conversation, peer)?,
    };
    let at_ms = tx.now_ms();
    let expires_at_ms = content.expires_at_ms(retention, at_ms);
    Ok(tx.write(|to| {
        let seq = to.active.conversations[place.conversation].record.tail + 1;
        let Content { body, content_type, .. } = content;
        let (sender, client_id) = (sender.clone(), client_id.clone());
        to.send(
            place.conversation,
            Message { seq, sender, at_ms, body, content_type, client_id, expires_at_ms },
        );
        to.read(place, seq);
        to.remember(ticket, DedupOutcome::Sent { conversation: conversation.clone(), seq });
        Reply::Sent { conversation, seq, at_ms, duplicate: false }
    }))
}

/// Checks and loads what a sender's first send in a generation touches; a direct conversation that
/// is not there is made.
fn load(
    tx: &mut Tx<'_>,
    sender: &UserId,
    conversation: &ConversationId,
    peer: Option<UserId>,
) -> Result<(SenderPlace, Retention), Refusal> {
    let (slot, retention, found) = match (tx.head(conversation)?, peer) {
        (None, Some(peer)) => {
            let wanted = Wanted::direct(sender, &peer);
            (create::make(tx, conversation, wanted)?, Retention::Forever, None)
        }
        _ => {
            let head = tx.live(conversation)?;
            let membership = tx.require_membership(sender, conversation)?;
            check_role(head, membership.role)?;
            (tx.conversation_slot(conversation)?, head.retention, Some(membership))
        }
    };
    Ok((tx.load_sender(slot, sender, conversation, found)?, retention))
}

/// Members send, and in a channel only those who run it.
fn check_role(head: Head, role: Role) -> Result<(), Rejection> {
    if head.kind == ConversationKind::Channel && role == Role::Member {
        let reason = "only its owner and admins send to a channel";
        return Err(Rejection::Forbidden(reason.to_owned()));
    }
    Ok(())
}

impl Content {
    fn check(&self) -> Result<(), Rejection> {
        check_size("bytes of the body", self.body.len(), MAX_BODY_BYTES)?;
        let content_type = self.content_type.as_ref().map_or(0, |text| text.len());
        check_size("bytes of the content type", content_type, MAX_CONTENT_TYPE_BYTES)?;
        check_ttl(self.ttl_ms)
    }

    /// When the message's lifetime ends: the shorter of the sender's and the conversation's.
    fn expires_at_ms(&self, retention: Retention, at_ms: u64) -> Option<u64> {
        let kept_ms = match retention {
            Retention::Forever => None,
            Retention::Ttl { ttl_ms } => Some(ttl_ms),
        };
        let lifetime_ms = [self.ttl_ms, kept_ms].into_iter().flatten().min()?;
        Some(at_ms.saturating_add(lifetime_ms))
    }
}
