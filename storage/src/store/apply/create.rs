//! New conversations.

use super::{check_size, check_ttl};
use crate::Fault;
use crate::command::{Attempt, Rejection, Reply};
use crate::limits::{MAX_MEMBERS_PER_COMMAND, MAX_NAME_BYTES};
use crate::model::{
    ClientId, ConversationId, ConversationKind, ConversationRecord, Member, MemberChange, Members,
    Retention, Role, UserId,
};
use crate::store::dedup::{self, DedupKeyRef, DedupOutcome};
use crate::store::tx::{Admission, Refusal, Tx};

/// The conversation that is asked for, checked as far as that needs no state.
pub(super) struct Wanted {
    kind: ConversationKind,
    /// All members, with their roles; they join when the conversation is made.
    members: Members,
    name: Option<String>,
    retention: Retention,
}

impl Wanted {
    /// Checks a request.
    pub(super) fn new(
        owner: &UserId,
        kind: ConversationKind,
        others: Vec<UserId>,
        name: Option<String>,
        retention: Retention,
    ) -> Result<Self, Rejection> {
        check_size("members", others.len(), MAX_MEMBERS_PER_COMMAND)?;
        check_size("bytes of the name", name.as_ref().map_or(0, String::len), MAX_NAME_BYTES)?;
        if let Retention::Ttl { ttl_ms } = retention {
            check_ttl(Some(ttl_ms))?;
        }
        let role = match kind {
            ConversationKind::Direct => Role::Member,
            ConversationKind::Group | ConversationKind::Channel => Role::Owner,
        };
        let member = |role| Member { role, joined_at_ms: 0 };
        let names_owner = others.contains(owner);
        let mut members: Members =
            others.into_iter().map(|other| (other, member(Role::Member))).collect();
        members.insert(owner.clone(), member(role));
        let alone = members.len() == 1 && names_owner;
        if kind == ConversationKind::Direct && members.len() != 2 && !alone {
            let reason = "a direct conversation has exactly one other member";
            return Err(Rejection::BadRequest(reason.to_owned()));
        }
        Ok(Self { kind, members, name, retention })
    }

    /// The direct conversation that a send to a user makes.
    pub(super) fn direct(sender: &UserId, peer: &UserId) -> Self {
        let member = Member { role: Role::Member, joined_at_ms: 0 };
        let members =
            [sender, peer].into_iter().map(|user| (user.clone(), member.clone())).collect();
        Self { kind: ConversationKind::Direct, members, name: None, retention: Retention::Forever }
    }
}

pub(super) fn create(
    tx: &mut Tx<'_>,
    owner: &UserId,
    wanted: Wanted,
    client_id: &ClientId,
    attempt: Attempt,
) -> Result<Reply, Refusal> {
    let Wanted { kind, members, name, retention } = &wanted;
    let fingerprint = dedup::create_fingerprint(*kind, members, name.as_deref(), *retention);
    let key = DedupKeyRef { sender: owner, client_id };
    let ticket = match tx.admit(key, fingerprint, attempt)? {
        Admission::Before(reply) => return Ok(reply),
        Admission::New(ticket) => ticket,
    };
    let (conversation, existed) = match kind {
        ConversationKind::Direct => direct(tx, owner, wanted)?,
        ConversationKind::Group | ConversationKind::Channel => (assigned(tx, wanted)?, false),
    };
    tx.write(|to| {
        let outcome = DedupOutcome::Created { conversation: conversation.clone(), existed };
        to.remember(ticket, outcome);
    });
    Ok(Reply::Created { conversation, duplicate: existed })
}

/// Finds or makes a direct conversation; says whether it was there.
fn direct(
    tx: &mut Tx<'_>,
    owner: &UserId,
    wanted: Wanted,
) -> Result<(ConversationId, bool), Refusal> {
    let peer = wanted.members.keys().find(|member| *member != owner).unwrap_or(owner);
    let id = ConversationId::direct(owner, peer);
    if tx.head(&id)?.is_some() {
        tx.live(&id)?;
        return Ok((id, true));
    }
    make(tx, &id, wanted)?;
    Ok((id, false))
}

/// Makes a group or channel under the next id, and tells its members.
fn assigned(tx: &mut Tx<'_>, wanted: Wanted) -> Result<ConversationId, Fault> {
    let id = ConversationId::assigned(wanted.kind, tx.shard, tx.ledger.state.assigned + 1);
    let place = make(tx, &id, wanted)?;
    drop(tx.load_members(place)?);
    tx.write(|to| {
        to.ledger.state.assigned += 1;
        for member in to.active.conversations[place].fan_out.clone() {
            let user = member.user as usize;
            to.tell(user, place, user, MemberChange::Joined);
        }
    });
    Ok(id)
}

/// Makes a conversation whose id is free, with its members; returns its slot.
pub(super) fn make(tx: &mut Tx<'_>, id: &ConversationId, wanted: Wanted) -> Result<usize, Fault> {
    let Wanted { kind, members, name, retention } = wanted;
    let mut joining = Vec::with_capacity(members.len());
    for (user, member) in &members {
        joining.push((user, tx.user_slot(user)?, member.role));
    }
    let created_at_ms = tx.now_ms();
    let record =
        ConversationRecord { kind, name, retention, created_at_ms, tail: 0, deleted: false };
    Ok(tx.write(|to| {
        let place = to.create_conversation(id, record);
        for (id, user, role) in joining {
            to.join(place, (id, user), role);
        }
        place
    }))
}
