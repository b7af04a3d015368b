//! A made-up service in a few lines that keeps every promise, seen by clients whose calls overlap,
//! fail and time out: histories that a checker must find nothing in.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roost_checker::{Answer, Event, History, Op, Stage};
use roost_protocol::{Item, ItemContent, Message};

const USERS: [&str; 4] = ["u0", "u1", "u2", "u3"];
const GROUP: &str = "g";
const NODES: u64 = 3;
/// More than users: some share one.
const CLIENTS: usize = 6;

/// What the service holds after some prefix of its log.
#[derive(Clone, Default)]
struct State {
    queues: BTreeMap<&'static str, Vec<Item>>,
    tails: BTreeMap<String, u64>,
    dedup: BTreeMap<(String, String), (String, u64, u64, u64)>,
    cursors: BTreeMap<&'static str, u64>,
    applied: u64,
}

/// A call that is under way.
struct Open {
    event: Event,
    /// Its answer, once it has taken effect.
    answer: Option<Answer>,
    /// How it will end.
    ends: Stage,
}

struct Service {
    rng: StdRng,
    /// The state after each entry, so that a node may lag.
    states: Vec<State>,
    open: Vec<Option<Open>>,
    carried: Vec<u64>,
    /// Sends to repeat, because their outcome was unknown.
    repeat: Vec<Option<Op>>,
    events: Vec<Event>,
    calls: u64,
}

/// The history of `steps` beginnings and ends, then of a last reading.
pub(crate) fn history(seed: u64, steps: usize) -> History {
    let mut service = Service {
        rng: StdRng::seed_from_u64(seed),
        states: vec![State::default()],
        open: (0..CLIENTS).map(|_| None).collect(),
        carried: vec![0; CLIENTS],
        repeat: vec![None; CLIENTS],
        events: Vec::new(),
        calls: 0,
    };
    let members = USERS.map(str::to_owned).to_vec();
    let op = Op::Create { user: "u0".into(), client_id: "g".into(), members };
    service.whole(op, 1, Answer::Created { conversation: GROUP.into() });
    for _ in 0..steps {
        service.step();
    }
    service.last_reading();
    History { events: service.events }
}

impl Service {
    fn state(&self) -> &State {
        self.states.last().unwrap()
    }

    fn event(&mut self, event: Event) {
        let time_ns = self.events.len() as u64 * 1_000;
        self.events.push(Event { time_ns, ..event });
    }

    fn begun(&mut self, process: u64, node: u64, op: Op) -> Event {
        self.calls += 1;
        Event {
            time_ns: 0,
            process,
            node,
            call: self.calls,
            stage: Stage::Invoke,
            op: Some(op),
            answer: None,
            error: None,
        }
    }

    fn whole(&mut self, op: Op, node: u64, answer: Answer) {
        let event = self.begun(99, node, op);
        self.event(event.clone());
        self.event(Event { stage: Stage::Ok, op: None, answer: Some(answer), ..event });
    }

    /// One client begins a call, or one call takes effect or ends.
    fn step(&mut self) {
        let client = self.rng.random_range(0..CLIENTS);
        let Some(mut open) = self.open[client].take() else {
            let op = self.repeat[client].take().unwrap_or_else(|| self.op(client));
            let node = self.rng.random_range(1..=NODES);
            let event = self.begun(client as u64, node, op);
            self.event(event.clone());
            let ends = match self.rng.random_range(0..10) {
                0 if matches!(event.op, Some(Op::Send { .. })) => Stage::Fail,
                1 => Stage::Unknown,
                _ => Stage::Ok,
            };
            self.open[client] = Some(Open { event, answer: None, ends });
            return;
        };
        let takes_effect = match open.ends {
            Stage::Ok => true,
            Stage::Unknown => self.rng.random(),
            Stage::Fail | Stage::Invoke => false,
        };
        if open.answer.is_none() && takes_effect {
            open.answer = Some(self.effect(client, &open.event));
            if self.rng.random() {
                // It ends later.
                self.open[client] = Some(open);
                return;
            }
        }
        self.end(client, open);
    }

    fn end(&mut self, client: usize, open: Open) {
        let op = open.event.op.clone();
        if open.ends == Stage::Unknown && matches!(op, Some(Op::Send { .. })) {
            self.repeat[client] = op;
        }
        let answer = open.answer.filter(|_| open.ends == Stage::Ok);
        if let Some(Answer::Items { applied, .. } | Answer::Sent { applied, .. }) = &answer {
            self.carried[client] = self.carried[client].max(*applied);
        }
        let error = (open.ends != Stage::Ok).then(|| "deadline_exceeded".to_owned());
        self.event(Event { stage: open.ends, op: None, answer, error, ..open.event });
    }

    fn op(&mut self, client: usize) -> Op {
        let user = USERS[client % USERS.len()];
        let tail = self.state().queues.get(user).map_or(0, Vec::len) as u64;
        match self.rng.random_range(0..10) {
            0..=4 => {
                let client_id = format!("c{}-{}", client, self.calls);
                let direct = self.rng.random_bool(0.3);
                Op::Send {
                    user: user.into(),
                    body: format!("body {user} {client_id}"),
                    client_id,
                    conversation: (!direct).then(|| GROUP.into()),
                    to: direct.then(|| USERS[(client + 1) % USERS.len()].into()),
                    ttl_ms: None,
                }
            }
            5..=7 => Op::Pull {
                user: user.into(),
                after: self.rng.random_range(0..=tail),
                linearizable: self.rng.random(),
                applied: self.rng.random_bool(0.7).then_some(self.carried[client]),
                last: false,
            },
            8 if tail > 0 => {
                let seq = self.rng.random_range(1..=tail);
                Op::Ack { user: user.into(), device: "d".into(), seq }
            }
            _ => Op::Connect { user: user.into(), device: "d".into(), after: None, window: None },
        }
    }

    /// The call takes effect now.
    fn effect(&mut self, client: usize, event: &Event) -> Answer {
        match event.op.as_ref().unwrap() {
            Op::Send { .. } => self.send(event),
            Op::Ack { seq, .. } => {
                let mut state = self.state().clone();
                state.applied += 1;
                let cursor = state.cursors.entry(USERS[client % USERS.len()]).or_default();
                *cursor = (*cursor).max(*seq);
                let cursor = *cursor;
                self.states.push(state);
                Answer::Acked { cursor }
            }
            Op::Pull { user, after, linearizable, applied, .. } => {
                // The node may lag, but not behind what the client carries.
                let newest = self.states.len() - 1;
                let oldest = match (linearizable, applied) {
                    (true, _) => newest,
                    (false, Some(applied)) => *applied as usize,
                    (false, None) => 0,
                };
                let at = self.rng.random_range(oldest..=newest);
                items(&self.states[at], user, *after)
            }
            Op::Connect { user, .. } => {
                let state = self.state();
                Answer::Connected {
                    head: 1,
                    tail: state.queues.get(user.as_str()).map_or(0, Vec::len) as u64,
                    cursor: state.cursors.get(user.as_str()).copied().unwrap_or(0),
                    resumed: true,
                    applied: state.applied,
                }
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn send(&mut self, event: &Event) -> Answer {
        let Some(Op::Send { user, client_id, body, to, .. }) = &event.op else { unreachable!() };
        let key = (user.clone(), client_id.clone());
        if let Some((conversation, seq, at_ms, applied)) = self.state().dedup.get(&key).cloned() {
            return Answer::Sent { conversation, seq, at_ms, duplicate: true, applied };
        }
        let mut state = self.state().clone();
        state.applied += 1;
        let (conversation, members) = match to {
            None => (GROUP.to_owned(), USERS.to_vec()),
            Some(to) => {
                let both = |name: &&str| *name == user || name == to;
                (format!("{user}+{to}"), USERS.into_iter().filter(both).collect())
            }
        };
        let seq = *state.tails.entry(conversation.clone()).and_modify(|seq| *seq += 1).or_insert(1);
        let at_ms = state.applied * 10;
        let message = Message {
            seq,
            sender: user.as_str().into(),
            at_ms,
            body: body.as_str().into(),
            content_type: None,
            client_id: client_id.as_str().into(),
            expires_at_ms: None,
        };
        for member in members {
            let queue = state.queues.entry(member).or_default();
            let conversation = conversation.as_str().into();
            let content = ItemContent::Message { conversation, message: message.clone() };
            queue.push(Item { seq: queue.len() as u64 + 1, content });
        }
        let applied = state.applied;
        state.dedup.insert(key, (conversation.clone(), seq, at_ms, applied));
        self.states.push(state);
        Answer::Sent { conversation, seq, at_ms, duplicate: false, applied }
    }

    fn last_reading(&mut self) {
        let state = self.state().clone();
        for node in 1..=NODES {
            for user in USERS {
                let op = crate::support::last_pull(user);
                self.whole(op, node, items(&state, user, 0));
            }
            let messages = state.tails.values().sum();
            let references = state.queues.values().map(Vec::len).sum::<usize>() as u64;
            let answer = Answer::Status {
                applied: state.applied,
                digest: "same".into(),
                users: USERS.len() as u64,
                conversations: state.tails.len() as u64,
                messages,
                references,
            };
            self.whole(Op::Status {}, node, answer);
        }
    }
}

fn items(state: &State, user: &str, after: u64) -> Answer {
    let queue = state.queues.get(user).cloned().unwrap_or_default();
    let tail = queue.len() as u64;
    let items = queue.into_iter().skip(after as usize).collect();
    Answer::Items { items, head: 1, tail, more: false, applied: state.applied }
}
