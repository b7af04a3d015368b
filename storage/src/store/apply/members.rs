//! Who is in a conversation: joining, leaving, removal, and the end of a conversation.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::check_size;
use crate::Fault;
use crate::command::{Actor, Rejection, Reply};
use crate::limits::{MAX_FAN_OUT, MAX_MEMBERS, MAX_MEMBERS_PER_COMMAND};
use crate::model::{ConversationId, ConversationKind, MemberChange, Members, Role, UserId};
use crate::store::lookup::Lookup;
use crate::store::tx::{Refusal, Tx};

pub(super) fn add(
    tx: &mut Tx<'_>,
    actor: &Actor,
    conversation: &ConversationId,
    users: Vec<UserId>,
) -> Result<Reply, Refusal> {
    check_size("members in one command", users.len(), MAX_MEMBERS_PER_COMMAND)?;
    let (kind, role) = authorise(tx, actor, conversation)?;
    if kind == ConversationKind::Channel && role == Role::Member {
        return Err(forbidden("only its owner and admins add members to a channel"));
    }
    let members = tx.members(conversation)?;
    let new: BTreeSet<UserId> =
        users.into_iter().filter(|user| !members.contains_key(user)).collect();
    let count = members.len() + new.len();
    check_size("members", count, MAX_MEMBERS)?;
    check_size("references", (members.len() + 1).saturating_mul(new.len()), MAX_FAN_OUT)?;
    drop(members);
    join(tx, conversation, &new)?;
    Ok(members_reply(count))
}

fn join(
    tx: &mut Tx<'_>,
    conversation: &ConversationId,
    new: &BTreeSet<UserId>,
) -> Result<(), Fault> {
    if new.is_empty() {
        return Ok(());
    }
    let place = tx.conversation_slot(conversation)?;
    let ownerless = tx.load_members(place)?.is_empty();
    let mut joining = Vec::with_capacity(new.len());
    for user in new {
        joining.push((user, tx.load_membership(user, conversation)?));
    }
    tx.write(|to| {
        for member in to.active.conversations[place].fan_out.clone() {
            for (_, user) in &joining {
                to.tell(member.user as usize, place, *user, MemberChange::Joined);
            }
        }
        for (i, (id, user)) in joining.into_iter().enumerate() {
            let role = if ownerless && i == 0 { Role::Owner } else { Role::Member };
            to.join(place, (id, user), role);
            to.tell(user, place, user, MemberChange::Joined);
        }
    });
    Ok(())
}

pub(super) fn remove(
    tx: &mut Tx<'_>,
    actor: &Actor,
    conversation: &ConversationId,
    users: Vec<UserId>,
) -> Result<Reply, Refusal> {
    check_size("members in one command", users.len(), MAX_MEMBERS_PER_COMMAND)?;
    let users: BTreeSet<UserId> = users.into_iter().collect();
    if let Actor::User(user) = actor
        && users.len() == 1
        && users.contains(user)
    {
        return leave(tx, user, conversation);
    }
    let (_, role) = authorise(tx, actor, conversation)?;
    if role == Role::Member {
        return Err(forbidden("only owner and admins remove other members"));
    }
    let members = tx.members(conversation)?;
    let gone: BTreeSet<UserId> =
        users.into_iter().filter(|user| members.contains_key(user)).collect();
    let owned = gone.iter().any(|user| members[user].role == Role::Owner);
    if owned && matches!(actor, Actor::User(_)) {
        return Err(forbidden("nobody removes the owner"));
    }
    let remaining = members.len() - gone.len();
    check_size("references", (remaining + 1).saturating_mul(gone.len()), MAX_FAN_OUT)?;
    drop(members);
    part(tx, conversation, &gone, MemberChange::Removed)?;
    Ok(members_reply(remaining))
}

pub(super) fn leave(
    tx: &mut Tx<'_>,
    user: &UserId,
    conversation: &ConversationId,
) -> Result<Reply, Refusal> {
    authorise(tx, &Actor::User(user.clone()), conversation)?;
    let remaining = tx.members(conversation)?.len().saturating_sub(1);
    part(tx, conversation, &BTreeSet::from([user.clone()]), MemberChange::Left)?;
    Ok(members_reply(remaining))
}

/// Ends the memberships of `gone`, who are all members: tells those who stay and those who go, and
/// hands on the ownership if it went.
fn part(
    tx: &mut Tx<'_>,
    conversation: &ConversationId,
    gone: &BTreeSet<UserId>,
    change: MemberChange,
) -> Result<(), Fault> {
    if gone.is_empty() {
        return Ok(());
    }
    let place = tx.conversation_slot(conversation)?;
    let members = tx.load_members(place)?;
    let mut leaving = Vec::with_capacity(gone.len());
    for user in gone {
        leaving.push((user, tx.load_membership(user, conversation)?));
    }
    let heir = match heir(&members, gone) {
        Some(heir) => Some((heir, tx.load_membership(heir, conversation)?)),
        None => None,
    };
    let heir = heir.map(|(id, user)| (id.clone(), user));
    // The set of members is copied on its change only if somebody else holds it.
    let staying = staying(tx, place, &members, gone);
    drop(members);
    tx.write(|to| {
        for member in staying {
            for (_, user) in &leaving {
                to.tell(member as usize, place, *user, change);
            }
        }
        for (id, user) in leaving {
            to.part(place, (id, user));
            to.tell(user, place, user, change);
        }
        if let Some((id, user)) = heir {
            to.set_role(place, (&id, user), Role::Owner);
        }
    });
    Ok(())
}

/// Who owns the conversation next, if its owner is among those who go.
fn heir<'a>(members: &'a Members, gone: &BTreeSet<UserId>) -> Option<&'a UserId> {
    let owner = members.iter().find(|(_, member)| member.role == Role::Owner)?.0;
    if !gone.contains(owner) {
        return None;
    }
    let mut staying = members.iter().filter(|(user, _)| !gone.contains(*user));
    let first = staying.clone().next();
    let admin = staying.find(|(_, member)| member.role == Role::Admin);
    admin.or(first).map(|(user, _)| user)
}

/// The slots of the members who are not among those who go.
fn staying(tx: &Tx<'_>, place: usize, members: &Members, gone: &BTreeSet<UserId>) -> Vec<u32> {
    let both = members.keys().zip(&tx.hot.active.conversations[place].fan_out);
    both.filter(|(user, _)| !gone.contains(*user)).map(|(_, member)| member.user).collect()
}

pub(super) fn delete(tx: &mut Tx<'_>, conversation: &ConversationId) -> Result<Reply, Refusal> {
    tx.live(conversation)?;
    let place = tx.conversation_slot(conversation)?;
    let members: Arc<Members> = tx.load_members(place)?;
    let users: Vec<UserId> = members.keys().cloned().collect();
    drop(members);
    let mut leaving = Vec::with_capacity(users.len());
    for user in &users {
        leaving.push((user, tx.load_membership(user, conversation)?));
    }
    tx.write(|to| {
        for (id, user) in leaving {
            to.part(place, (id, user));
            to.tell(user, place, user, MemberChange::Removed);
        }
        to.delete_conversation(place);
    });
    Ok(Reply::Deleted)
}

/// The kind of a conversation whose members may change, and the rights of whoever asks.
fn authorise(
    tx: &Tx<'_>,
    actor: &Actor,
    conversation: &ConversationId,
) -> Result<(ConversationKind, Role), Refusal> {
    let head = tx.live(conversation)?;
    let role = match actor {
        Actor::User(user) => tx.require_membership(user, conversation)?.role,
        Actor::Admin => Role::Owner,
    };
    if head.kind == ConversationKind::Direct {
        return Err(forbidden("the members of a direct conversation never change"));
    }
    Ok((head.kind, role))
}

fn forbidden(reason: &str) -> Refusal {
    Rejection::Forbidden(reason.to_owned()).into()
}

fn members_reply(count: usize) -> Reply {
    Reply::Members { count: u32::try_from(count).expect("a conversation has few members") }
}
