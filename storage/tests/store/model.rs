//! A naive model of the store: plain maps and vectors, one rule after the other, no tiers.
//!
//! Written from the commands' descriptions, sharing nothing with the store but the words. It is
//! slow on purpose: each queue holds every reference by itself, and nothing ever expires but by
//! looking at the time.

use std::collections::{BTreeMap, BTreeSet};

use roost_storage::command::{Actor, Attempt, Batch, Command, Outcome, Rejection, Reply, Target};
use roost_storage::limits::{
    DEDUP_WINDOW_MS, MAX_BODY_BYTES, MAX_CONTENT_TYPE_BYTES, MAX_DEVICES_PER_USER, MAX_FAN_OUT,
    MAX_MEMBERS, MAX_MEMBERS_PER_COMMAND, MAX_NAME_BYTES, MAX_TTL_MS,
};
use roost_storage::model::{
    ClientId, ConversationId, ConversationKind, DeviceId, DeviceKind, Item, ItemContent,
    MemberChange, Message, Retention, Role, ShardId, UserId,
};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Reference {
    Message(ConversationId, usize),
    Member(ConversationId, UserId, MemberChange),
}

#[derive(Debug, Default)]
struct User {
    queue: Vec<Reference>,
    devices: BTreeMap<DeviceId, (DeviceKind, u64)>,
}

#[derive(Debug)]
struct Conversation {
    kind: ConversationKind,
    retention: Retention,
    members: BTreeMap<UserId, (Role, u64)>,
    messages: Vec<Message>,
    deleted: bool,
}

/// What a request asked for, to tell whether another one is the same.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Request {
    Send(ConversationId, Vec<u8>, Option<String>, Option<u64>),
    Create(ConversationKind, BTreeSet<UserId>, Option<String>, Retention),
}

#[derive(Debug, Clone)]
struct Remembered {
    at_ms: u64,
    attempt: Attempt,
    request: Request,
    reply: Reply,
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) now_ms: u64,
    assigned: u64,
    users: BTreeMap<UserId, User>,
    conversations: BTreeMap<ConversationId, Conversation>,
    remembered: BTreeMap<(UserId, ClientId), Remembered>,
}

/// One conversation in a list, as the model knows it: id, role, read, tail, newest shown.
pub(crate) type Listed = (ConversationId, Role, u64, u64, Option<Message>);

fn no_conversation() -> Rejection {
    Rejection::NotFound("conversation".to_owned())
}

/// Rejections are compared by kind; the texts are for people.
pub(crate) fn kind(outcome: &Outcome) -> Outcome {
    outcome.clone().map_err(|rejection| match rejection {
        Rejection::BadRequest(_) => Rejection::BadRequest(String::new()),
        Rejection::Forbidden(_) => Rejection::Forbidden(String::new()),
        Rejection::TooLarge(_) => Rejection::TooLarge(String::new()),
        other => other,
    })
}

fn bad() -> Rejection {
    Rejection::BadRequest(String::new())
}

fn forbidden() -> Rejection {
    Rejection::Forbidden(String::new())
}

fn too_large() -> Rejection {
    Rejection::TooLarge(String::new())
}

impl Model {
    pub(crate) fn apply(&mut self, batch: Batch) -> Vec<Outcome> {
        self.now_ms = self.now_ms.max(batch.at_ms);
        batch.commands.into_iter().map(|command| self.command(command)).collect()
    }

    fn command(&mut self, command: Command) -> Outcome {
        match command {
            Command::Send { sender, target, client_id, attempt, body, content_type, ttl_ms } => {
                if body.len() > MAX_BODY_BYTES
                    || content_type.as_ref().is_some_and(|text| text.len() > MAX_CONTENT_TYPE_BYTES)
                {
                    return Err(too_large());
                }
                if ttl_ms.is_some_and(|ttl_ms| ttl_ms == 0 || ttl_ms > MAX_TTL_MS) {
                    return Err(bad());
                }
                let id = match &target {
                    Target::Conversation(id) => id.clone(),
                    Target::User(peer) => ConversationId::direct(&sender, peer),
                };
                let text = content_type.as_ref().map(ToString::to_string);
                let request = Request::Send(id.clone(), body.to_vec(), text, ttl_ms);
                if let Some(outcome) = self.recall(&sender, &client_id, &request, attempt) {
                    return outcome;
                }
                if let Target::User(peer) = &target
                    && !self.conversations.contains_key(&id)
                {
                    let members = BTreeSet::from([sender.clone(), peer.clone()]);
                    self.make(&id, ConversationKind::Direct, Retention::Forever, &members, None);
                }
                let now_ms = self.now_ms;
                let conversation = self.live(&id)?;
                let (role, read) =
                    conversation.members.get_mut(&sender).ok_or(Rejection::NotAMember)?;
                if conversation.kind == ConversationKind::Channel && *role == Role::Member {
                    return Err(forbidden());
                }
                let seq = conversation.messages.len() as u64 + 1;
                *read = seq;
                let kept_ms = match conversation.retention {
                    Retention::Ttl { ttl_ms } => ttl_ms,
                    Retention::Forever => u64::MAX,
                };
                let lifetime_ms = kept_ms.min(ttl_ms.unwrap_or(u64::MAX));
                conversation.messages.push(Message {
                    seq,
                    sender: sender.clone(),
                    at_ms: now_ms,
                    body,
                    content_type,
                    client_id: client_id.clone(),
                    expires_at_ms: (lifetime_ms < u64::MAX).then(|| now_ms + lifetime_ms),
                });
                let members: Vec<UserId> = conversation.members.keys().cloned().collect();
                for member in members {
                    self.tell(&member, Reference::Message(id.clone(), seq as usize - 1));
                }
                let reply = Reply::Sent { conversation: id, seq, at_ms: now_ms, duplicate: false };
                self.remember(sender, client_id, request, attempt, reply)
            }
            Command::CreateConversation {
                owner,
                kind,
                members,
                name,
                retention,
                client_id,
                attempt,
            } => {
                if members.len() > MAX_MEMBERS_PER_COMMAND
                    || name.as_ref().is_some_and(|name| name.len() > MAX_NAME_BYTES)
                {
                    return Err(too_large());
                }
                if let Retention::Ttl { ttl_ms } = retention
                    && (ttl_ms == 0 || ttl_ms > MAX_TTL_MS)
                {
                    return Err(bad());
                }
                let names_owner = members.contains(&owner);
                let mut all: BTreeSet<UserId> = members.into_iter().collect();
                all.insert(owner.clone());
                let direct = kind == ConversationKind::Direct;
                if direct && !(all.len() == 2 || all.len() == 1 && names_owner) {
                    return Err(bad());
                }
                let request = Request::Create(kind, all.clone(), name, retention);
                if let Some(outcome) = self.recall(&owner, &client_id, &request, attempt) {
                    return outcome;
                }
                let mut duplicate = false;
                let id = if direct {
                    let id = ConversationId::direct(all.first().unwrap(), all.last().unwrap());
                    if self.conversations.contains_key(&id) {
                        self.live(&id)?;
                        duplicate = true;
                    } else {
                        self.make(&id, kind, retention, &all, None);
                    }
                    id
                } else {
                    self.assigned += 1;
                    let id = ConversationId::assigned(kind, ShardId(0), self.assigned);
                    self.make(&id, kind, retention, &all, Some(&owner));
                    for member in &all {
                        self.tell_member(member, &id, member, MemberChange::Joined);
                    }
                    id
                };
                let reply = Reply::Created { conversation: id, duplicate };
                self.remember(owner, client_id, request, attempt, reply)
            }
            Command::AddMembers { actor, conversation, members } => {
                self.add(&actor, &conversation, members)
            }
            Command::RemoveMembers { actor, conversation, members } => {
                self.remove(&actor, &conversation, members)
            }
            Command::Leave { user, conversation } => {
                self.change_rights(&Actor::User(user.clone()), &conversation)?;
                self.part(&conversation, &BTreeSet::from([user]), MemberChange::Left)
            }
            Command::DeleteConversation { conversation } => {
                let members = std::mem::take(&mut self.live(&conversation)?.members);
                self.live(&conversation)?.deleted = true;
                for member in members.keys() {
                    self.tell_member(member, &conversation, member, MemberChange::Removed);
                }
                Ok(Reply::Deleted)
            }
            Command::RegisterDevice { user, device, kind } => {
                let known = self.users.get(&user);
                let devices = known.map_or(0, |user| user.devices.len());
                let there = known.is_some_and(|user| user.devices.contains_key(&device));
                if !there && devices == MAX_DEVICES_PER_USER {
                    return Err(too_large());
                }
                let devices = &mut self.users.entry(user).or_default().devices;
                let (known_kind, cursor) = devices.entry(device).or_insert((kind, 0));
                *known_kind = kind;
                Ok(Reply::Cursor { cursor: *cursor })
            }
            Command::Acknowledge { user, device, seq } => {
                let not_found = || Rejection::NotFound("device".to_owned());
                let user = self.users.get_mut(&user).ok_or_else(not_found)?;
                let (_, cursor) = user.devices.get_mut(&device).ok_or_else(not_found)?;
                if seq > user.queue.len() as u64 {
                    return Err(bad());
                }
                *cursor = seq.max(*cursor);
                Ok(Reply::Cursor { cursor: *cursor })
            }
        }
    }

    fn add(&mut self, actor: &Actor, id: &ConversationId, members: Vec<UserId>) -> Outcome {
        if members.len() > MAX_MEMBERS_PER_COMMAND {
            return Err(too_large());
        }
        let role = self.change_rights(actor, id)?;
        let conversation = self.live(id)?;
        if conversation.kind == ConversationKind::Channel && role == Role::Member {
            return Err(forbidden());
        }
        let old: Vec<UserId> = conversation.members.keys().cloned().collect();
        let new: BTreeSet<UserId> =
            members.into_iter().filter(|user| !conversation.members.contains_key(user)).collect();
        let count = old.len() + new.len();
        if count > MAX_MEMBERS || (old.len() + 1) * new.len() > MAX_FAN_OUT {
            return Err(too_large());
        }
        let tail = conversation.messages.len() as u64;
        for user in &new {
            let alone = old.is_empty() && Some(user) == new.first();
            let role = if alone { Role::Owner } else { Role::Member };
            conversation.members.insert(user.clone(), (role, tail));
        }
        for told in &old {
            for user in &new {
                self.tell_member(told, id, user, MemberChange::Joined);
            }
        }
        for user in &new {
            self.tell_member(user, id, user, MemberChange::Joined);
        }
        Ok(Reply::Members { count: count as u32 })
    }

    fn remove(&mut self, actor: &Actor, id: &ConversationId, members: Vec<UserId>) -> Outcome {
        if members.len() > MAX_MEMBERS_PER_COMMAND {
            return Err(too_large());
        }
        let mut gone: BTreeSet<UserId> = members.into_iter().collect();
        let role = self.change_rights(actor, id)?;
        if let Actor::User(user) = actor {
            if gone == BTreeSet::from([user.clone()]) {
                return self.part(id, &gone, MemberChange::Left);
            }
            if role == Role::Member {
                return Err(forbidden());
            }
        }
        let conversation = self.live(id)?;
        gone.retain(|user| conversation.members.contains_key(user));
        let owned = gone.iter().any(|user| conversation.members[user].0 == Role::Owner);
        if owned && *actor != Actor::Admin {
            return Err(forbidden());
        }
        self.part(id, &gone, MemberChange::Removed)
    }

    fn part(
        &mut self,
        id: &ConversationId,
        gone: &BTreeSet<UserId>,
        change: MemberChange,
    ) -> Outcome {
        let conversation = self.live(id)?;
        let mut owned = false;
        for user in gone {
            let (role, _) = conversation.members.remove(user).unwrap();
            owned |= role == Role::Owner;
        }
        if owned {
            let admin = conversation.members.iter().find(|(_, (role, _))| *role == Role::Admin);
            let heir = admin.or(conversation.members.iter().next()).map(|(user, _)| user.clone());
            if let Some(heir) = heir {
                conversation.members.get_mut(&heir).unwrap().0 = Role::Owner;
            }
        }
        let left: Vec<UserId> = conversation.members.keys().cloned().collect();
        for told in &left {
            for user in gone {
                self.tell_member(told, id, user, change);
            }
        }
        for user in gone {
            self.tell_member(user, id, user, change);
        }
        Ok(Reply::Members { count: left.len() as u32 })
    }

    fn change_rights(&mut self, actor: &Actor, id: &ConversationId) -> Result<Role, Rejection> {
        let conversation = self.live(id)?;
        let role = match actor {
            Actor::Admin => Role::Owner,
            Actor::User(user) => conversation.members.get(user).ok_or(Rejection::NotAMember)?.0,
        };
        if conversation.kind == ConversationKind::Direct { Err(forbidden()) } else { Ok(role) }
    }

    fn live(&mut self, id: &ConversationId) -> Result<&mut Conversation, Rejection> {
        let known = self.conversations.get_mut(id);
        known.filter(|conversation| !conversation.deleted).ok_or_else(no_conversation)
    }

    fn make(
        &mut self,
        id: &ConversationId,
        kind: ConversationKind,
        retention: Retention,
        members: &BTreeSet<UserId>,
        owner: Option<&UserId>,
    ) {
        let member = |user: &UserId| {
            self.users.entry(user.clone()).or_default();
            let role = if Some(user) == owner { Role::Owner } else { Role::Member };
            (user.clone(), (role, 0))
        };
        let members = members.iter().map(member).collect();
        let conversation =
            Conversation { kind, retention, members, messages: Vec::new(), deleted: false };
        self.conversations.insert(id.clone(), conversation);
    }

    fn tell(&mut self, user: &UserId, reference: Reference) {
        self.users.entry(user.clone()).or_default().queue.push(reference);
    }

    fn tell_member(
        &mut self,
        told: &UserId,
        id: &ConversationId,
        user: &UserId,
        change: MemberChange,
    ) {
        self.tell(told, Reference::Member(id.clone(), user.clone(), change));
    }

    fn recall(
        &self,
        sender: &UserId,
        client_id: &ClientId,
        request: &Request,
        attempt: Attempt,
    ) -> Option<Outcome> {
        let known = self.remembered.get(&(sender.clone(), client_id.clone()))?;
        if self.now_ms - known.at_ms >= DEDUP_WINDOW_MS {
            return None;
        }
        if known.request != *request {
            return Some(Err(Rejection::ClientIdReused));
        }
        let again = known.attempt != attempt;
        let mut reply = known.reply.clone();
        match &mut reply {
            Reply::Sent { duplicate, .. } | Reply::Created { duplicate, .. } => *duplicate |= again,
            _ => unreachable!(),
        }
        Some(Ok(reply))
    }

    fn remember(
        &mut self,
        sender: UserId,
        client_id: ClientId,
        request: Request,
        attempt: Attempt,
        reply: Reply,
    ) -> Outcome {
        let remembered = Remembered { at_ms: self.now_ms, attempt, request, reply: reply.clone() };
        self.remembered.insert((sender, client_id), remembered);
        Ok(reply)
    }

    pub(crate) fn users(&self) -> impl Iterator<Item = &UserId> {
        self.users.keys()
    }

    pub(crate) fn conversation_ids(&self) -> impl Iterator<Item = &ConversationId> {
        self.conversations.keys()
    }

    pub(crate) fn tail(&self, user: &UserId) -> u64 {
        self.users.get(user).map_or(0, |user| user.queue.len() as u64)
    }

    pub(crate) fn queue(&self, user: &UserId, now_ms: u64) -> Vec<Item> {
        let queue = self.users.get(user).map(|user| user.queue.as_slice()).unwrap_or_default();
        let item = |(seq, reference): (u64, &Reference)| {
            let content = match reference.clone() {
                Reference::Member(conversation, user, change) => {
                    ItemContent::Member { conversation, user, change }
                }
                Reference::Message(id, place) => {
                    let conversation = &self.conversations[&id];
                    let message = conversation.messages[place].clone();
                    if conversation.deleted || !shown(&message, now_ms) {
                        ItemContent::Expired
                    } else {
                        ItemContent::Message { conversation: id, message }
                    }
                }
            };
            Item { seq, content }
        };
        (1..).zip(queue).map(item).collect()
    }

    pub(crate) fn devices(&self, user: &UserId) -> Vec<(DeviceId, DeviceKind, u64)> {
        let devices = self.users.get(user).map(|user| user.devices.iter());
        let device =
            |(id, (kind, cursor)): (&DeviceId, &(DeviceKind, u64))| (id.clone(), *kind, *cursor);
        devices.into_iter().flatten().map(device).collect()
    }

    pub(crate) fn history(&self, id: &ConversationId, now_ms: u64) -> Vec<Message> {
        let live = self.conversations.get(id).filter(|conversation| !conversation.deleted);
        let messages =
            live.map(|conversation| conversation.messages.as_slice()).unwrap_or_default();
        messages.iter().filter(|message| shown(message, now_ms)).cloned().collect()
    }

    pub(crate) fn members(&self, id: &ConversationId) -> Vec<(UserId, Role)> {
        let members = self.conversations.get(id).map(|conversation| conversation.members.iter());
        members.into_iter().flatten().map(|(user, (role, _))| (user.clone(), *role)).collect()
    }

    pub(crate) fn list(&self, user: &UserId, now_ms: u64) -> Vec<Listed> {
        let listed = |(id, conversation): (&ConversationId, &Conversation)| {
            let (role, read) = *conversation.members.get(user)?;
            let last = self.history(id, now_ms).pop();
            Some((id.clone(), role, read, conversation.messages.len() as u64, last))
        };
        self.conversations.iter().filter_map(listed).collect()
    }

    pub(crate) fn counts(&self) -> (u64, u64, u64, u64) {
        let live = self.conversations.values().filter(|conversation| !conversation.deleted).count();
        let messages: usize = self.conversations.values().map(|each| each.messages.len()).sum();
        let references: usize = self.users.values().map(|user| user.queue.len()).sum();
        (self.users.len() as u64, live as u64, messages as u64, references as u64)
    }
}

fn shown(message: &Message, now_ms: u64) -> bool {
    message.expires_at_ms.is_none_or(|expires_at_ms| expires_at_ms > now_ms)
}
