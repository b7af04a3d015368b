//! What the checks look things up in, made in one pass over the history.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roost_protocol::limits::DEDUP_WINDOW_MS;
use roost_protocol::{Item, ItemContent, Message};

use crate::history::{Answer, Event, History, Op, Stage};

/// A message's own name: its sender's, and the sender's name for the send.
pub(crate) type Key<'h> = (&'h str, &'h str);

/// A call with both its ends.
#[derive(Debug)]
pub(crate) struct Call<'h> {
    pub(crate) id: u64,
    pub(crate) process: u64,
    pub(crate) node: u64,
    pub(crate) op: &'h Op,
    /// The place of its first event.
    pub(crate) begin: usize,
    /// The place of its last event, if it has ended.
    pub(crate) end: Option<usize>,
    pub(crate) stage: Stage,
    pub(crate) answer: Option<&'h Answer>,
    pub(crate) error: Option<&'h str>,
}

/// Items that somebody saw.
#[derive(Debug)]
pub(crate) struct Seen<'h> {
    /// The place of the event that showed them.
    pub(crate) event: usize,
    pub(crate) user: &'h str,
    pub(crate) items: &'h [Item],
}

/// Messages of a conversation that somebody saw in its history.
#[derive(Debug)]
pub(crate) struct SeenMessages<'h> {
    pub(crate) event: usize,
    pub(crate) conversation: &'h str,
    pub(crate) messages: &'h [Message],
}

/// What the last reading found of one queue at one node.
#[derive(Debug, Default)]
pub(crate) struct Drain {
    pub(crate) head: u64,
    pub(crate) tail: u64,
    pub(crate) seqs: BTreeSet<u64>,
    /// The place of its last page.
    pub(crate) event: usize,
    /// Whether the reading came to the tail.
    pub(crate) whole: bool,
}

/// A change of a group's members that may have had an effect.
#[derive(Debug)]
struct Change<'h> {
    user: &'h str,
    joins: bool,
    begin: usize,
    /// The place of its answer; none if nobody knows.
    end: Option<usize>,
}

/// A group: who was in it when it was made, and what changed, in the order of the beginnings.
#[derive(Debug, Default)]
struct Group<'h> {
    initial: &'h [String],
    changes: Vec<Change<'h>>,
}

/// Where a message stands: its conversation, and its sequence there.
pub(crate) type Position<'h> = (&'h str, u64);

/// The attempts of one message.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    /// Places in [`Index::calls`], in the order of their beginning.
    pub(crate) calls: Vec<usize>,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Index<'h> {
    pub(crate) events: &'h [Event],
    pub(crate) calls: Vec<Call<'h>>,
    pub(crate) attempts: HashMap<Key<'h>, Attempts>,
    pub(crate) seen: Vec<Seen<'h>>,
    pub(crate) histories: Vec<SeenMessages<'h>>,
    /// Queue → sequence → the first sight of it.
    pub(crate) queues: HashMap<&'h str, BTreeMap<u64, (&'h Item, usize)>>,
    /// Conversation → sequence → the first sight of it, in a queue or a history.
    pub(crate) conversations: HashMap<&'h str, BTreeMap<u64, (&'h Message, usize)>>,
    /// Queue and message → its sequence at the first sight.
    pub(crate) places: HashMap<(&'h str, Position<'h>), (u64, usize)>,
    /// Message → every position that a reply or a sight gave it, with its time and the event. More
    /// than one is no violation where the dedup window had ended between them.
    pub(crate) positions: HashMap<Key<'h>, BTreeMap<Position<'h>, (u64, usize)>>,
    /// Conversations with messages that expire.
    pub(crate) expiring: BTreeSet<&'h str>,
    groups: HashMap<&'h str, Group<'h>>,
    /// Queue → node → the last reading.
    pub(crate) drains: HashMap<&'h str, BTreeMap<u64, Drain>>,
}

impl<'h> Index<'h> {
    pub(crate) fn new(history: &'h History) -> Self {
        let mut index = Self { events: &history.events, ..Self::default() };
        index.pair();
        for at in 0..index.calls.len() {
            index.take(at);
        }
        for at in 0..index.calls.len() {
            index.take_change(at);
        }
        index.seen.sort_by_key(|seen| seen.event);
        index.first_sights();
        index
    }

    /// Brings each call's events together.
    fn pair(&mut self) {
        let mut open: HashMap<u64, usize> = HashMap::new();
        for (place, event) in self.events.iter().enumerate() {
            if let Some(op) = &event.op {
                open.insert(event.call, self.calls.len());
                let done = event.stage != Stage::Invoke;
                self.calls.push(Call {
                    id: event.call,
                    process: event.process,
                    node: event.node,
                    op,
                    begin: place,
                    end: done.then_some(place),
                    stage: if done { event.stage } else { Stage::Unknown },
                    answer: event.answer.as_ref(),
                    error: event.error.as_deref(),
                });
            } else if let Some(&at) = open.get(&event.call) {
                let call = &mut self.calls[at];
                call.end = Some(place);
                call.stage = event.stage;
                call.answer = event.answer.as_ref();
                call.error = event.error.as_deref();
            }
        }
    }

    fn take(&mut self, at: usize) {
        let call = &self.calls[at];
        let (begin, end, node, op, answer) =
            (call.begin, call.end.unwrap_or(call.begin), call.node, call.op, call.answer);
        match (op, answer) {
            (Op::Send { user, client_id, ttl_ms, .. }, answer) => {
                self.attempts.entry((user, client_id)).or_default().calls.push(at);
                if let Some(Answer::Sent { conversation, seq, at_ms, .. }) = answer {
                    let positions = self.positions.entry((user, client_id)).or_default();
                    positions.entry((conversation, *seq)).or_insert((*at_ms, end));
                    self.expiring.extend(ttl_ms.map(|_| conversation.as_str()));
                }
            }
            (Op::Create { members, .. }, Some(Answer::Created { conversation })) => {
                self.groups.entry(conversation).or_default().initial = members;
            }
            (
                Op::Pull { user, last, after, .. },
                Some(Answer::Items { items, head, tail, more, .. }),
            ) => {
                self.seen.push(Seen { event: end, user, items });
                if *last {
                    let drain = self.drains.entry(user).or_default().entry(node).or_default();
                    drain.seqs.extend(items.iter().map(|item| item.seq));
                    drain.head = *head;
                    drain.tail = drain.tail.max(*tail);
                    drain.event = end;
                    let reached = items.last().map_or(*after, |item| item.seq);
                    drain.whole = !more && reached >= *tail;
                }
            }
            (Op::Push { user, .. }, Some(Answer::Items { items, .. })) => {
                self.seen.push(Seen { event: begin, user, items });
            }
            (Op::History { conversation, .. }, Some(Answer::Messages { messages, .. })) => {
                self.histories.push(SeenMessages { event: end, conversation, messages });
            }
            _ => {}
        }
    }

    /// Members that come and go. What failed changed nothing.
    fn take_change(&mut self, at: usize) {
        let call = &self.calls[at];
        let (conversation, users, joins) = match call.op {
            Op::AddMembers { conversation, members, .. } => (conversation, &members[..], true),
            Op::RemoveMembers { conversation, members, .. } => (conversation, &members[..], false),
            Op::Leave { user, conversation } => (conversation, std::slice::from_ref(user), false),
            _ => return,
        };
        if call.stage == Stage::Fail {
            return;
        }
        let (begin, end) = (call.begin, call.end.filter(|_| call.stage == Stage::Ok));
        let group = self.groups.entry(conversation).or_default();
        group.changes.extend(users.iter().map(|user| Change { user, joins, begin, end }));
    }

    fn first_sights(&mut self) {
        for seen in &self.seen {
            for item in seen.items {
                let queue = self.queues.entry(seen.user).or_default();
                let first = queue.entry(item.seq).or_insert((item, seen.event));
                if first.0.content == ItemContent::Expired {
                    // Somebody may have seen it while it was shown.
                    *first = (item, seen.event);
                }
                if let ItemContent::Message { conversation, message } = &item.content {
                    let messages = self.conversations.entry(conversation).or_default();
                    messages.entry(message.seq).or_insert((message, seen.event));
                    let position = (conversation.as_str(), message.seq);
                    self.places.entry((seen.user, position)).or_insert((item.seq, seen.event));
                    let positions = self.positions.entry(key_of(message)).or_default();
                    positions.entry(position).or_insert((message.at_ms, seen.event));
                    self.expiring.extend(message.expires_at_ms.map(|_| conversation.as_str()));
                }
            }
        }
        for seen in &self.histories {
            let messages = self.conversations.entry(seen.conversation).or_default();
            for message in seen.messages {
                messages.entry(message.seq).or_insert((message, seen.event));
                let positions = self.positions.entry(key_of(message)).or_default();
                let position = (seen.conversation, message.seq);
                positions.entry(position).or_insert((message.at_ms, seen.event));
            }
        }
    }

    /// Who must get what a send sends that took effect within the span of events: nobody of whom
    /// that is not sure, because the group is not known or was changing.
    pub(crate) fn recipients(&self, op: &'h Op, span: (usize, usize)) -> Vec<&'h str> {
        let mut candidates = self.candidates(op);
        if let Op::Send { conversation: Some(conversation), .. } = op {
            candidates.retain(|user| self.is_member(conversation, user, span) == Some(true));
        }
        candidates
    }

    /// Who may get it.
    pub(crate) fn candidates(&self, op: &'h Op) -> Vec<&'h str> {
        let Op::Send { user, conversation, to, .. } = op else { return Vec::new() };
        match (conversation, to) {
            (_, Some(to)) if to == user => vec![user],
            (_, Some(to)) => vec![user, to],
            (Some(conversation), None) => {
                let Some(group) = self.groups.get(conversation.as_str()) else { return Vec::new() };
                let initial = group.initial.iter().map(String::as_str);
                let joined = group.changes.iter().filter(|change| change.joins);
                let all: BTreeSet<&str> = initial.chain(joined.map(|change| change.user)).collect();
                all.into_iter().collect()
            }
            (None, None) => Vec::new(),
        }
    }

    /// Whether a user was a member from one event to another; none if that is not sure.
    fn is_member(
        &self,
        conversation: &str,
        user: &str,
        (from, until): (usize, usize),
    ) -> Option<bool> {
        let group = self.groups.get(conversation).filter(|group| !group.initial.is_empty())?;
        let mut member = group.initial.iter().any(|name| name == user);
        let mut settled = 0;
        let changes = group.changes.iter().filter(|change| change.user == user);
        for change in changes.take_while(|change| change.begin < until) {
            let end = change.end.filter(|end| *end < from)?;
            if change.begin < settled {
                return None;
            }
            (member, settled) = (change.joins, end);
        }
        Some(member)
    }

    /// Whether this user may be one of a send's recipients.
    pub(crate) fn may_receive(&self, op: &'h Op, user: &str, span: (usize, usize)) -> bool {
        match op {
            Op::Send { conversation: Some(conversation), to: None, .. } => {
                self.is_member(conversation, user, span) != Some(false)
            }
            op => self.candidates(op).contains(&user),
        }
    }

    /// From a message's first attempt to an event: when it took effect, if the event shows that it
    /// has.
    pub(crate) fn span(&self, attempts: &Attempts, until: usize) -> (usize, usize) {
        let begin = attempts.calls.first().map_or(0, |&at| self.calls[at].begin);
        (begin, until)
    }

    /// Whether all places of a message are of one dedup window, as far as anybody saw: then there may
    /// be only one.
    pub(crate) fn is_stored_once(&self, key: Key<'h>) -> bool {
        let times = self.positions.get(&key).into_iter().flat_map(|positions| positions.values());
        let times = times.map(|(at_ms, _)| *at_ms);
        match (times.clone().min(), times.max()) {
            (Some(first_ms), Some(last_ms)) => last_ms - first_ms < DEDUP_WINDOW_MS,
            _ => true,
        }
    }

    /// The acknowledged attempts of a message, with their answers' places.
    pub(crate) fn acknowledged<'a>(
        &'a self,
        attempts: &'a Attempts,
    ) -> impl Iterator<Item = (&'a Call<'h>, usize)> {
        attempts.calls.iter().map(|&at| &self.calls[at]).filter_map(|call| match call.stage {
            Stage::Ok => Some((call, call.end?)),
            _ => None,
        })
    }

    /// The places of a call's events.
    pub(crate) fn both_ends(&self, call: &Call<'h>) -> Vec<usize> {
        std::iter::once(call.begin).chain(call.end).collect()
    }
}

/// A message's own name.
pub(crate) fn key_of(message: &Message) -> Key<'_> {
    (&message.sender, &message.client_id)
}

/// The message of an item, if it is one.
pub(crate) fn message_of(item: &Item) -> Option<(&str, &Message)> {
    match &item.content {
        ItemContent::Message { conversation, message } => Some((conversation, message)),
        _ => None,
    }
}
