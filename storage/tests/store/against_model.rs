//! Random commands against the store and against the model, with checkpoints, restarts and
//! snapshots in between: equal answers, equal queues, equal digests.

use std::sync::Arc;
use std::thread;

use proptest::prelude::*;
use proptest::sample::select;
use roost_storage::command::{Actor, Attempt, Batch, Command, Effect, Target};
use roost_storage::engine::Engine;
use roost_storage::engine::fjall::FjallEngine;
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::engine::sled::SledEngine;
use roost_storage::limits::{DEDUP_WINDOW_MS, LAST_MESSAGE_LOOKBACK};
use roost_storage::model::{
    ConversationId, ConversationKind, DeviceKind, Message, Retention, UserId,
};
use roost_storage::store::{HistoryRange, Store, StoreOptions};

use crate::model::{Model, kind};
use crate::pausing::{Pause, PausingEngine};
use crate::support::*;

#[derive(Debug, Clone)]
enum Step {
    Apply {
        later_ms: u64,
        commands: Vec<Command>,
    },
    Checkpoint,
    /// A checkpoint, in the middle of which entries are applied and everything is compared.
    CheckpointAround {
        later_ms: u64,
        batches: Vec<Vec<Command>>,
    },
    Reopen,
    Snapshot,
    Check,
}

const USERS: [&str; 6] =
    ["alice", "bob", "carol", "dave", "erin", "a-user-whose-name-is-quite-long"];

fn a_user() -> impl Strategy<Value = UserId> {
    select(&USERS[..]).prop_map(user)
}

fn a_conversation() -> impl Strategy<Value = ConversationId> {
    prop_oneof![
        6 => (1..6u32).prop_map(|n| conversation(&format!("g-0-{n}"))),
        2 => (1..6u32).prop_map(|n| conversation(&format!("c-0-{n}"))),
        2 => (a_user(), a_user()).prop_map(|(a, b)| ConversationId::direct(&a, &b)),
        1 => Just(conversation("g-9-9")),
    ]
}

fn a_target() -> impl Strategy<Value = Target> {
    prop_oneof![
        3 => a_conversation().prop_map(Target::Conversation),
        1 => a_user().prop_map(Target::User),
    ]
}

fn an_actor() -> impl Strategy<Value = Actor> {
    prop_oneof![3 => a_user().prop_map(Actor::User), 1 => Just(Actor::Admin)]
}

fn some_users() -> impl Strategy<Value = Vec<UserId>> {
    prop::collection::vec(a_user(), 0..4)
}

fn a_body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => select(vec![b"hi".to_vec(), b"ho".to_vec(), Vec::new()]),
        1 => (0..20_000_usize).prop_map(|len| vec![b'x'; len]),
        1 => Just(vec![0; 64 * 1024 + 1]),
    ]
}

fn a_send() -> impl Strategy<Value = Command> {
    let ttl_ms = select(vec![None, None, None, Some(0), Some(50), Some(5_000)]);
    let content_type = select(vec![None, None, Some("text/plain".into())]);
    (a_user(), a_target(), 0..200_u32, 1..3_u64, a_body(), content_type, ttl_ms).prop_map(
        |(sender, target, name, attempt, body, content_type, ttl_ms)| Command::Send {
            sender,
            target,
            // A few names come often, so that some sends are retries and some are clashes.
            client_id: client_id(&format!("c{}", if name < 100 { name % 8 } else { name })),
            attempt: Attempt(attempt),
            body: body.into(),
            content_type,
            ttl_ms,
        },
    )
}

fn a_creation() -> impl Strategy<Value = Command> {
    let kinds = vec![ConversationKind::Direct, ConversationKind::Group, ConversationKind::Channel];
    let retentions = vec![
        Retention::Forever,
        Retention::Forever,
        Retention::Ttl { ttl_ms: 3_000 },
        Retention::Ttl { ttl_ms: 0 },
    ];
    (a_user(), select(kinds), some_users(), 0..30_u32, select(retentions)).prop_map(
        |(owner, kind, members, name, retention)| Command::CreateConversation {
            owner,
            kind,
            members,
            name: (name % 2 == 0).then(|| format!("name {name}")),
            retention,
            client_id: client_id(&format!("c{name}")),
            attempt: Attempt(u64::from(name % 3)),
        },
    )
}

fn a_command() -> impl Strategy<Value = Command> {
    let devices = || select(vec!["phone", "tv", "watch"]).prop_map(device);
    let kinds = select(vec![DeviceKind::App, DeviceKind::Web, DeviceKind::MiniProgram]);
    prop_oneof![
        20 => a_send(),
        3 => a_creation(),
        3 => (an_actor(), a_conversation(), some_users())
            .prop_map(|(actor, conversation, members)| {
                Command::AddMembers { actor, conversation, members }
            }),
        2 => (an_actor(), a_conversation(), some_users())
            .prop_map(|(actor, conversation, members)| {
                Command::RemoveMembers { actor, conversation, members }
            }),
        2 => (a_user(), a_conversation())
            .prop_map(|(user, conversation)| Command::Leave { user, conversation }),
        1 => (0..8_u32, a_conversation()).prop_map(|(n, conversation)| match n {
            // Rare, or nothing would be left to send to.
            0 => Command::DeleteConversation { conversation },
            _ => Command::DeleteConversation { conversation: crate::support::conversation("g-9-9") },
        }),
        2 => (a_user(), devices(), kinds)
            .prop_map(|(user, device, kind)| Command::RegisterDevice { user, device, kind }),
        3 => (a_user(), devices(), 0..30_u64)
            .prop_map(|(user, device, seq)| Command::Acknowledge { user, device, seq }),
    ]
}

fn a_step() -> impl Strategy<Value = Step> {
    let later_ms = prop_oneof![
        8 => 0..200_u64,
        1 => Just(DEDUP_WINDOW_MS / 2),
        1 => Just(DEDUP_WINDOW_MS + 1),
    ];
    prop_oneof![
        14 => (later_ms, prop::collection::vec(a_command(), 0..10))
            .prop_map(|(later_ms, commands)| Step::Apply { later_ms, commands }),
        3 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
        1 => Just(Step::Snapshot),
        2 => Just(Step::Check),
    ]
}

fn a_step_around() -> impl Strategy<Value = Step> {
    let batch = prop::collection::vec(a_command(), 0..6);
    let around = (0..200_u64, prop::collection::vec(batch, 0..4))
        .prop_map(|(later_ms, batches)| Step::CheckpointAround { later_ms, batches });
    prop_oneof![2 => a_step(), 1 => around]
}

fn steps(len: usize, a_step: impl Strategy<Value = Step>) -> impl Strategy<Value = Vec<Step>> {
    let start = (0..3_u32, 0..3_u32).prop_map(|(groups, channels)| {
        let all = &USERS[..5];
        let mut commands = Vec::new();
        for n in 0..=groups {
            commands.push(group("alice", all, &format!("first-group-{n}")));
        }
        for n in 0..channels {
            let name = format!("first-channel-{n}");
            commands.push(create("bob", ConversationKind::Channel, all, &name));
        }
        Step::Apply { later_ms: 1, commands }
    });
    (start, prop::collection::vec(a_step, 1..len)).prop_map(|(start, mut steps)| {
        steps.insert(0, start);
        steps
    })
}

/// The store, one that never checkpoints, and the model, side by side.
struct Trio {
    node: Node,
    shadow: Node,
    model: Model,
    fresh_engine: Box<dyn FnMut() -> Arc<dyn Engine>>,
    pause: Pause,
}

impl Trio {
    fn new(dirty_bytes: usize, mut fresh_engine: Box<dyn FnMut() -> Arc<dyn Engine>>) -> Self {
        let node = Node::with(fresh_engine(), StoreOptions { dirty_bytes, ..options() });
        Self {
            node,
            shadow: Node::new(),
            model: Model::default(),
            fresh_engine,
            pause: Pause::default(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Apply { later_ms, commands } => self.apply(later_ms, commands),
            Step::Checkpoint => {
                let state = self.node.store.checkpoint().unwrap();
                assert_eq!(state, self.node.store.applied_state());
            }
            Step::CheckpointAround { later_ms, batches } => {
                // Without anything to write there would be no middle.
                self.apply(0, Vec::new());
                let (reached, go_on) = self.pause.arm();
                let store = Arc::clone(&self.node.store);
                let checkpoint = thread::spawn(move || store.checkpoint().unwrap());
                reached.recv().unwrap();
                self.check();
                for commands in batches {
                    self.apply(later_ms, commands);
                }
                self.check();
                go_on.send(()).unwrap();
                checkpoint.join().unwrap();
            }
            Step::Reopen => self.node.reopen(),
            Step::Snapshot => self.node = self.node.clone_by_snapshot((self.fresh_engine)()),
            Step::Check => self.check(),
        }
    }

    fn apply(&mut self, later_ms: u64, commands: Vec<Command>) {
        let at_ms = self.model.now_ms + later_ms;
        let before: Vec<(UserId, u64)> =
            USERS.iter().map(|name| (user(name), self.model.tail(&user(name)))).collect();
        let applied = self.node.apply_at(at_ms, commands.clone());
        assert_eq!(applied, self.shadow.apply_at(at_ms, commands.clone()));
        let outcomes = self.model.apply(Batch { at_ms, commands });
        let kinds: Vec<_> = applied.outcomes.iter().map(kind).collect();
        assert_eq!(kinds, outcomes);
        let mut grown: Vec<(UserId, u64)> = applied
            .effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::QueueGrew { user, seq } => Some((user, seq)),
                Effect::CursorMoved { .. } => None,
            })
            .collect();
        grown.sort();
        let tail = |user: UserId| (user.clone(), self.model.tail(&user));
        let mut due: Vec<(UserId, u64)> = before
            .into_iter()
            .filter(|(user, before)| self.model.tail(user) > *before)
            .map(|(user, _)| tail(user))
            .collect();
        due.sort();
        assert_eq!(grown, due);
        assert_eq!(self.node.store.digest(), self.shadow.store.digest());
    }

    /// Compares everything that can be asked.
    fn check(&self) {
        let (store, model) = (&self.node.store, &self.model);
        for now_ms in [model.now_ms, model.now_ms + 1_000] {
            for who in model.users() {
                assert_eq!(queue(store, who.as_str(), now_ms), model.queue(who, now_ms));
                check_list(store, model, who, now_ms);
            }
            for id in model.conversation_ids() {
                check_history(store, id, &model.history(id, now_ms), now_ms);
            }
        }
        for who in model.users() {
            let devices = store.devices(who).unwrap();
            let devices: Vec<_> =
                devices.into_iter().map(|(id, record)| (id, record.kind, record.cursor)).collect();
            assert_eq!(devices, model.devices(who));
        }
        for id in model.conversation_ids() {
            let members = store.members(id).unwrap();
            let members: Vec<_> =
                members.iter().map(|(user, member)| (user.clone(), member.role)).collect();
            assert_eq!(members, model.members(id));
        }
        let counts = store.counts();
        let main = (counts.users, counts.conversations, counts.messages, counts.references);
        assert_eq!(main, model.counts());
    }

    /// Counts all anew, in the store and in the one that has its first checkpoint only now.
    fn finish(&self) {
        self.check();
        for node in [&self.node, &self.shadow] {
            let (applied, digest) = node.store.digest();
            let counts = node.store.counts();
            assert_eq!(node.store.recount().unwrap(), (applied, digest, counts));
            assert_eq!(node.store.digest(), (applied, digest));
        }
        self.check();
    }
}

fn check_list(store: &Store, model: &Model, who: &UserId, now_ms: u64) {
    let mut listed = Vec::new();
    loop {
        let after = listed.last().map(|(id, ..): &crate::model::Listed| id.clone());
        let (page, more) = store.conversations(who, after.as_ref(), 2, now_ms).unwrap();
        assert!(page.len() <= 2);
        listed.extend(
            page.into_iter()
                .map(|each| (each.id, each.role, each.read, each.record.tail, each.last)),
        );
        if !more {
            break;
        }
    }
    let mut due = model.list(who, now_ms);
    for (_, _, _, tail, last) in &mut due {
        let oldest = tail.saturating_sub(LAST_MESSAGE_LOOKBACK);
        last.take_if(|last| last.seq <= oldest);
    }
    assert_eq!(listed, due);
}

fn check_history(store: &Store, id: &ConversationId, due: &[Message], now_ms: u64) {
    let page = |range, limit| store.history(id, range, limit, now_ms).unwrap();
    let newest = page(HistoryRange::Newest, 5);
    assert_eq!(newest.messages, due[due.len().saturating_sub(5)..]);
    assert_eq!(newest.more, due.len() > 5);
    let mut up: Vec<Message> = Vec::new();
    loop {
        let next = page(HistoryRange::After(up.last().map_or(0, |last| last.seq)), 7);
        up.extend(next.messages);
        if !next.more {
            break;
        }
    }
    assert_eq!(up, due);
    let mut down: Vec<Message> = Vec::new();
    loop {
        let before = down.last().map_or(u64::MAX, |last| last.seq);
        let next = page(HistoryRange::Before(before), 3);
        down.extend(next.messages.into_iter().rev());
        if !next.more {
            break;
        }
    }
    down.reverse();
    assert_eq!(down, due);
}

fn run(mut trio: Trio, steps: Vec<Step>) {
    for step in steps {
        trio.step(step);
    }
    trio.finish();
}

fn memory() -> Box<dyn FnMut() -> Arc<dyn Engine>> {
    Box::new(|| Arc::new(MemoryEngine::new()))
}

/// Engines in a folder of their own each, which go with the closure.
fn on_disk<E: Engine>(
    open: impl Fn(&std::path::Path) -> E + 'static,
) -> Box<dyn FnMut() -> Arc<dyn Engine>> {
    let folder = tempfile::tempdir().unwrap();
    let mut n = 0;
    Box::new(move || {
        n += 1;
        Arc::new(open(&folder.path().join(n.to_string())))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_the_model_does(
        steps in steps(40, a_step()),
        dirty_bytes in select(vec![1, 20_000, 200_000, 64 << 20]),
    ) {
        run(Trio::new(dirty_bytes, memory()), steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn so_it_does_in_the_middle_of_a_checkpoint(steps in steps(30, a_step_around())) {
        let pause = Pause::default();
        let fresh = {
            let pause = pause.clone();
            move || Arc::new(PausingEngine::under(&pause)) as Arc<dyn Engine>
        };
        // Under this bound no entry waits for the checkpoint that waits for it.
        let mut trio = Trio::new(64 << 20, Box::new(fresh));
        trio.pause = pause;
        run(trio, steps);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 6,
        max_shrink_iters: 20,
        ..ProptestConfig::default()
    })]

    #[test]
    fn so_it_does_over_many_commands(steps in steps(400, a_step())) {
        run(Trio::new(100_000, memory()), steps);
    }

    #[test]
    fn so_it_does_on_sled(steps in steps(30, a_step())) {
        run(Trio::new(20_000, on_disk(|path| SledEngine::open(path).unwrap())), steps);
    }

    #[test]
    fn so_it_does_on_fjall(steps in steps(30, a_step())) {
        run(Trio::new(20_000, on_disk(|path| FjallEngine::open(path).unwrap())), steps);
    }
}
