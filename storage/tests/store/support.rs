//! What the store's tests share: short names for commands, and a node with its log.

use std::path::Path;
use std::sync::Arc;

use roost_storage::codec;
use roost_storage::command::{Actor, Attempt, Batch, Command, Outcome, Reply, Target};
use roost_storage::engine::Engine;
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::sim::SimDisk;
use roost_storage::fs::{Disk as _, OpenMode};
use roost_storage::model::{
    ClientId, ConversationId, ConversationKind, DeviceId, DeviceKind, Item, ItemContent,
    LogPosition, MemberChange, Retention, UserId,
};
use roost_storage::store::{Applied, Payload, Store, StoreOptions};

pub(crate) const DIR: &str = "store";

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

pub(crate) fn users(names: &[&str]) -> Vec<UserId> {
    names.iter().map(|name| user(name)).collect()
}

pub(crate) fn device(name: &str) -> DeviceId {
    name.parse().unwrap()
}

pub(crate) fn conversation(name: &str) -> ConversationId {
    name.parse().unwrap()
}

pub(crate) fn client_id(name: &str) -> ClientId {
    name.parse().unwrap()
}

pub(crate) fn send(sender: &str, to: &str, name: &str, body: &str) -> Command {
    send_as(sender, Target::Conversation(conversation(to)), name, 1, body)
}

pub(crate) fn send_to(sender: &str, to: &str, name: &str, body: &str) -> Command {
    send_as(sender, Target::User(user(to)), name, 1, body)
}

pub(crate) fn send_as(
    sender: &str,
    target: Target,
    name: &str,
    attempt: u64,
    body: &str,
) -> Command {
    Command::Send {
        sender: user(sender),
        target,
        client_id: client_id(name),
        attempt: Attempt(attempt),
        body: body.as_bytes().to_vec().into(),
        content_type: None,
        ttl_ms: None,
    }
}

pub(crate) fn create(owner: &str, kind: ConversationKind, members: &[&str], name: &str) -> Command {
    Command::CreateConversation {
        owner: user(owner),
        kind,
        members: users(members),
        name: Some("a name".to_owned()),
        retention: Retention::Forever,
        client_id: client_id(name),
        attempt: Attempt(1),
    }
}

pub(crate) fn group(owner: &str, members: &[&str], name: &str) -> Command {
    create(owner, ConversationKind::Group, members, name)
}

pub(crate) fn add(actor: Actor, to: &str, members: &[&str]) -> Command {
    Command::AddMembers { actor, conversation: conversation(to), members: users(members) }
}

pub(crate) fn remove(actor: Actor, from: &str, members: &[&str]) -> Command {
    Command::RemoveMembers { actor, conversation: conversation(from), members: users(members) }
}

pub(crate) fn leave(who: &str, from: &str) -> Command {
    Command::Leave { user: user(who), conversation: conversation(from) }
}

pub(crate) fn delete(id: &str) -> Command {
    Command::DeleteConversation { conversation: conversation(id) }
}

pub(crate) fn register(who: &str, name: &str) -> Command {
    Command::RegisterDevice { user: user(who), device: device(name), kind: DeviceKind::App }
}

pub(crate) fn acknowledge(who: &str, name: &str, seq: u64) -> Command {
    Command::Acknowledge { user: user(who), device: device(name), seq }
}

pub(crate) fn by(name: &str) -> Actor {
    Actor::User(user(name))
}

/// One log entry: a batch, or nothing.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) position: LogPosition,
    pub(crate) batch: Option<Batch>,
}

impl Entry {
    pub(crate) fn apply(&self, store: &Store) -> Result<Applied, roost_storage::Fault> {
        match &self.batch {
            None => store.apply(self.position, Payload::Blank),
            Some(batch) => {
                let bytes = codec::encode_batch(batch).unwrap();
                store.apply(self.position, Payload::Batch(&bytes))
            }
        }
    }
}

/// A store on a simulated disk, with the log that made its state.
pub(crate) struct Node {
    pub(crate) disk: SimDisk,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) options: StoreOptions,
    pub(crate) store: Arc<Store>,
    pub(crate) log: Vec<Entry>,
}

impl Node {
    pub(crate) fn new() -> Self {
        Self::with(Arc::new(MemoryEngine::new()), options())
    }

    pub(crate) fn with(engine: Arc<dyn Engine>, options: StoreOptions) -> Self {
        let disk = SimDisk::new();
        let store = Arc::new(open(&disk, &engine, &options));
        Self { disk, engine, options, store, log: Vec::new() }
    }

    /// The position of the next entry.
    pub(crate) fn next(&self) -> LogPosition {
        LogPosition { term: 1, index: self.log.len() as u64 }
    }

    pub(crate) fn apply_at(&mut self, at_ms: u64, commands: Vec<Command>) -> Applied {
        let entry = Entry { position: self.next(), batch: Some(Batch { at_ms, commands }) };
        self.log.push(entry.clone());
        entry.apply(&self.store).unwrap()
    }

    /// Applies one command as an entry of its own.
    pub(crate) fn run(&mut self, command: Command) -> Outcome {
        self.run_at(0, command)
    }

    pub(crate) fn run_at(&mut self, at_ms: u64, command: Command) -> Outcome {
        self.apply_at(at_ms, vec![command]).outcomes.pop().unwrap()
    }

    /// Makes a group; its id.
    pub(crate) fn group(&mut self, owner: &str, members: &[&str]) -> String {
        let name = format!("make-{}", self.log.len());
        match self.run(group(owner, members, &name)) {
            Ok(Reply::Created { conversation, .. }) => conversation.as_str().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    /// Opens the store again, from its checkpoint and the log.
    pub(crate) fn reopen(&mut self) {
        self.store = Arc::new(open(&self.disk, &self.engine, &self.options));
        replay(&self.store, &self.log);
    }

    /// Exports a snapshot, and opens a new node with it.
    pub(crate) fn clone_by_snapshot(&self, engine: Arc<dyn Engine>) -> Self {
        let mut other = Self::with(engine, self.options.clone());
        let snapshot = self.store.export_snapshot().unwrap();
        let path = other.store.incoming_snapshot_path();
        copy(&self.disk, &snapshot.path, &other.disk, &path);
        let state = other.store.import_snapshot(&path).unwrap();
        assert_eq!(state, snapshot.state);
        assert_eq!(other.store.applied_state(), state);
        other.log.clone_from(&self.log);
        replay(&other.store, &other.log);
        other
    }

    /// All items of a queue, in short form.
    pub(crate) fn queue(&self, who: &str) -> Vec<String> {
        queue(&self.store, who, self.store.now_ms()).iter().map(short).collect()
    }
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions { inline_checkpoints: true, ..StoreOptions::default() }
}

pub(crate) fn open(disk: &SimDisk, engine: &Arc<dyn Engine>, options: &StoreOptions) -> Store {
    let disk = Arc::new(disk.clone());
    Store::open(disk, Path::new(DIR), Arc::clone(engine), options.clone()).unwrap()
}

/// Applies what the store does not have yet.
pub(crate) fn replay(store: &Store, log: &[Entry]) {
    let next = store.applied_state().applied.map_or(0, |applied| applied.index + 1);
    for entry in &log[usize::try_from(next).unwrap()..] {
        entry.apply(store).unwrap();
    }
}

pub(crate) fn copy(from: &SimDisk, source: &Path, to: &SimDisk, target: &Path) {
    let source = from.open(source, OpenMode::Existing).unwrap();
    let mut bytes = vec![0; usize::try_from(source.len().unwrap()).unwrap()];
    source.read_at(0, &mut bytes).unwrap();
    let file = to.open(target, OpenMode::CreateNew).unwrap();
    file.write_at(0, &bytes).unwrap();
}

/// A whole queue, in pages of an odd size.
pub(crate) fn queue(store: &Store, who: &str, now_ms: u64) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    loop {
        let after = items.last().map_or(0, |item| item.seq);
        let page = store.queue_page(&user(who), after, 7, now_ms).unwrap();
        items.extend(page.items);
        if !page.more {
            assert_eq!(items.len() as u64, page.bounds.tail);
            return items;
        }
    }
}

/// An item as a short text.
pub(crate) fn short(item: &Item) -> String {
    let what = match &item.content {
        ItemContent::Message { conversation, message } => {
            let body = String::from_utf8_lossy(&message.body);
            format!("{conversation}#{} {}: {body}", message.seq, message.sender)
        }
        ItemContent::Member { conversation, user, change } => {
            let change = match change {
                MemberChange::Joined => "joined",
                MemberChange::Left => "left",
                MemberChange::Removed => "removed from",
            };
            format!("{user} {change} {conversation}")
        }
        ItemContent::Expired => "expired".to_owned(),
    };
    format!("{} {what}", item.seq)
}
