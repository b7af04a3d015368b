//! Clients: they connect anywhere, send, read, acknowledge, hang, vanish, and come back elsewhere.

mod burst;
mod members;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use roost_checker::history::{Answer, Op};
use roost_protocol::request::{Ack, Connect, CreateConversation, History, Pull, SendMessage};
use roost_protocol::{
    CompactString, ConversationKind, Device, DeviceKind, Encoding, OkBody, Operation, Target,
};
use tokio::time::{Instant, sleep};

use crate::connection::{CallError, Connection};
use crate::net::Net;
use crate::random::Random;
use crate::record::{Caller, Record};

/// A group's id, and its members.
type Group = (String, Vec<String>);

/// What clients share.
#[derive(Clone)]
pub(crate) struct Clients {
    /// The network.
    pub(crate) net: Net,
    /// Where they note what they see.
    pub(crate) record: Record,
    /// Nodes, numbered from 1.
    pub(crate) nodes: u64,
    /// Each user's name and token.
    pub(crate) users: Arc<Vec<(String, String)>>,
    /// Groups that exist, with their members.
    pub(crate) groups: Arc<Mutex<Vec<Group>>>,
    /// Set when they shall stop.
    pub(crate) stop: Arc<AtomicBool>,
    /// A client's pause between two calls, at most.
    pub(crate) pause_ms: u64,
}

/// A send that may have to be repeated.
#[derive(Debug, Clone)]
struct Letter {
    client_id: String,
    body: String,
    to: Result<String, String>,
    ttl_ms: Option<u64>,
}

/// One client.
pub(crate) struct Client {
    all: Clients,
    random: Random,
    process: u64,
    user: String,
    token: String,
    device: String,
    applied: u64,
    /// The newest item that it has without a gap.
    seen: u64,
    /// How long it waits for an answer.
    pub(crate) patience: Duration,
    /// Whether it asks for what comes after the tail that it saw, and for nothing else.
    pub(crate) only_new: bool,
    letters: u64,
    /// Sent, with an unknown outcome.
    unsettled: Vec<Letter>,
    settled: Option<Letter>,
}

impl Client {
    /// The client of this number.
    pub(crate) fn new(
        all: Clients,
        process: u64,
        user: usize,
        device: &str,
        random: Random,
    ) -> Self {
        let (user, token) = all.users[user].clone();
        Self {
            all,
            random,
            process,
            user,
            token,
            device: device.to_owned(),
            applied: 0,
            seen: 0,
            patience: Duration::from_secs(6),
            only_new: false,
            letters: 0,
            unsettled: Vec::new(),
            settled: None,
        }
    }

    /// Whether something that it sent was acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.is_some()
    }

    fn stopping(&self) -> bool {
        self.all.stop.load(Ordering::Relaxed)
    }

    /// Lives until clients shall stop.
    pub(crate) async fn live(mut self) {
        while !self.stopping() {
            let node = self.random.within(1, self.all.nodes);
            if let Some(mut connection) = self.connect(node).await {
                self.session(&mut connection, node).await;
                self.applied = self.applied.max(connection.applied);
                self.seen = self.seen.max(connection.seen);
                let quietly = self.random.percent(30);
                connection.leave(quietly);
            }
            sleep(Duration::from_millis(self.random.within(5, 300))).await;
        }
    }

    async fn session(&mut self, connection: &mut Connection, node: u64) {
        for _ in 0..self.random.within(1, 60) {
            let pause = self.random.within(1, self.all.pause_ms);
            connection.listen(Instant::now() + Duration::from_millis(pause)).await;
            if connection.has_ended() || self.stopping() {
                return;
            }
            let who = Caller { process: self.process, node };
            let went = match self.random.within(0, 99) {
                0..50 => self.send(connection, who).await,
                50..55 => self.burst(connection, who).await,
                55..70 => self.pull(connection, who).await,
                70..90 => self.acknowledge(connection, who).await,
                90..95 => self.history(connection, who).await,
                95 => self.create(connection, who).await,
                96 => self.change_members(connection, who).await,
                97 => {
                    let time = Duration::from_millis(self.random.within(100, 8_000));
                    connection.hang(time).await;
                    true
                }
                _ => {
                    let time = Duration::from_millis(self.random.within(100, 2_000));
                    connection.listen(Instant::now() + time).await;
                    true
                }
            };
            if !went {
                return;
            }
        }
    }

    /// Connects; none if it did not work.
    pub(crate) async fn connect(&mut self, node: u64) -> Option<Connection> {
        let encoding = *self.random.pick(&[Encoding::Json, Encoding::MessagePack]);
        let who = Caller { process: self.process, node };
        let after = self.random.percent(40).then_some(self.seen);
        let window = *self.random.pick(&[None, Some(1), Some(3), Some(20), Some(0)]);
        let (after, window) = if self.only_new { (Some(self.seen), None) } else { (after, window) };
        let (user, device) = (self.user.clone(), self.device.clone());
        let op = Op::Connect { user, device, after, window };
        let mut connection = Connection::open(
            self.all.net.clone(),
            self.all.record.clone(),
            who,
            self.user.clone(),
            encoding,
        );
        let call = self.all.record.begin(who, op);
        connection.call = call;
        connection.patience = self.patience;
        let kind = DeviceKind::App;
        let request = Connect {
            token: self.token.clone().into(),
            device: Device { id: CompactString::new(&self.device), kind },
            after,
            window,
            applied: self.random.percent(80).then_some(self.applied),
        };
        match connection.call(Operation::Connect(request)).await {
            Ok(OkBody::Connected(connected)) => {
                let start = after.unwrap_or(connected.cursor);
                connection.start = start;
                connection.seen = connection.seen.max(start);
                connection.applied = connected.applied;
                if self.only_new {
                    self.seen = connected.tail;
                }
                let answer = Answer::Connected {
                    head: connected.head,
                    tail: connected.tail,
                    cursor: connected.cursor,
                    resumed: connected.resumed,
                    applied: connected.applied,
                };
                self.all.record.ok(who, call, answer);
                Some(connection)
            }
            result => {
                self.failed(who, call, result);
                connection.leave(self.random.percent(50));
                None
            }
        }
    }

    /// Notes why a call has no answer; whether the connection is still good.
    fn failed(&self, who: Caller, call: u64, result: Result<OkBody, CallError>) -> bool {
        match result {
            Ok(_) => {
                self.all.record.unknown(who, call, "an answer to something else");
                false
            }
            Err(CallError::Gone(why)) => {
                self.all.record.unknown(who, call, why);
                false
            }
            Err(CallError::Answered(error)) if error.code.outcome_unknown() => {
                self.all.record.unknown(who, call, error.code.as_str());
                true
            }
            Err(CallError::Answered(error)) => {
                self.all.record.fail(who, call, error.code.as_str());
                true
            }
        }
    }

    fn letter(&mut self) -> Letter {
        if self.random.percent(70)
            && let Some(letter) = self.unsettled.pop()
        {
            return letter;
        }
        if self.random.percent(5)
            && let Some(letter) = self.settled.clone()
        {
            return letter;
        }
        self.new_letter()
    }

    fn new_letter(&mut self) -> Letter {
        self.letters += 1;
        let groups: Vec<String> = {
            let all = self.all.groups.lock();
            let mine = all.iter().filter(|(_, members)| members.contains(&self.user));
            mine.map(|(id, _)| id.clone()).collect()
        };
        let to = if groups.is_empty() || self.random.percent(30) {
            Err(self.random.pick(&self.all.users).0.clone())
        } else {
            Ok(self.random.pick(&groups).clone())
        };
        let client_id = format!("{}-{}", self.process, self.letters);
        let long = *self.random.pick(&[0, 0, 0, 40, 400, 3_000]);
        let body = format!("{client_id} {}", "x".repeat(long));
        // Some end within the run, some when a clock jumps, some never.
        let lifetimes = [300, 5_000, 60_000, 2 * 3_600_000, 10 * 24 * 3_600_000];
        let ttl_ms = self.random.percent(20).then(|| *self.random.pick(&lifetimes));
        Letter { client_id, body, to, ttl_ms }
    }

    /// Sends something new, or something old again.
    pub(crate) async fn send(&mut self, connection: &mut Connection, who: Caller) -> bool {
        let letter = self.letter();
        let (op, operation) = self.sending(&letter);
        let call = self.all.record.begin(who, op);
        let result = connection.call(operation).await;
        self.sent(who, call, letter, result)
    }

    /// A letter as it is noted, and as it is sent.
    fn sending(&self, letter: &Letter) -> (Op, Operation) {
        let op = Op::Send {
            user: self.user.clone(),
            client_id: letter.client_id.clone(),
            body: letter.body.clone(),
            conversation: letter.to.clone().ok(),
            to: letter.to.clone().err(),
            ttl_ms: letter.ttl_ms,
        };
        let target = match &letter.to {
            Ok(conversation) => Target::Conversation(CompactString::new(conversation)),
            Err(user) => Target::User(CompactString::new(user)),
        };
        let request = SendMessage {
            target,
            client_id: CompactString::new(&letter.client_id),
            body: letter.body.clone().into_bytes().into(),
            content_type: None,
            ttl_ms: letter.ttl_ms,
        };
        (op, Operation::Send(request))
    }

    /// Notes what became of a letter; whether the connection is still good.
    fn sent(
        &mut self,
        who: Caller,
        call: u64,
        letter: Letter,
        result: Result<OkBody, CallError>,
    ) -> bool {
        match result {
            Ok(OkBody::Sent(sent)) => {
                self.applied = self.applied.max(sent.applied);
                self.settled = Some(letter);
                let answer = Answer::Sent {
                    conversation: sent.conversation.into(),
                    seq: sent.seq,
                    at_ms: sent.at_ms,
                    duplicate: sent.duplicate,
                    applied: sent.applied,
                };
                self.all.record.ok(who, call, answer);
                true
            }
            result => {
                self.unsettled.push(letter);
                self.failed(who, call, result)
            }
        }
    }

    async fn pull(&mut self, connection: &mut Connection, who: Caller) -> bool {
        let after = if self.random.percent(50) { 0 } else { self.random.within(0, self.seen) };
        let linearizable = self.random.percent(40);
        let limit = Some(u32::try_from(self.random.within(1, 80)).expect("a small number"));
        self.page(connection, who, after, limit, linearizable, false).await.is_some()
    }

    /// A page of the own queue: the newest sequence of it, and whether more is there.
    pub(crate) async fn page(
        &mut self,
        connection: &mut Connection,
        who: Caller,
        after: u64,
        limit: Option<u32>,
        linearizable: bool,
        last: bool,
    ) -> Option<(u64, bool)> {
        self.applied = self.applied.max(connection.applied);
        let applied = Some(self.applied);
        let op = Op::Pull { user: self.user.clone(), after, linearizable, applied, last };
        let call = self.all.record.begin(who, op);
        match connection.call(Operation::Pull(Pull { after, limit, linearizable, applied })).await {
            Ok(OkBody::Page(page)) => {
                self.applied = self.applied.max(page.applied);
                let newest = page.items.last().map_or(after, |item| item.seq);
                let (items, head, tail) = (page.items, page.head, page.tail);
                let (more, applied) = (page.more, page.applied);
                self.all.record.ok(who, call, Answer::Items { items, head, tail, more, applied });
                Some((newest, more))
            }
            result => self.failed(who, call, result).then_some((after, false)),
        }
    }

    async fn acknowledge(&mut self, connection: &mut Connection, who: Caller) -> bool {
        if connection.seen == 0 {
            return true;
        }
        let low =
            if self.random.percent(80) { connection.seen.saturating_sub(3).max(1) } else { 1 };
        let seq = self.random.within(low, connection.seen);
        let op = Op::Ack { user: self.user.clone(), device: self.device.clone(), seq };
        let call = self.all.record.begin(who, op);
        match connection.call(Operation::Ack(Ack { seq })).await {
            Ok(OkBody::Acked(acked)) => {
                self.applied = self.applied.max(acked.applied);
                self.all.record.ok(who, call, Answer::Acked { cursor: acked.cursor });
                true
            }
            result => self.failed(who, call, result),
        }
    }

    async fn history(&mut self, connection: &mut Connection, who: Caller) -> bool {
        let group =
            self.all.groups.lock().iter().find(|(_, all)| all.contains(&self.user)).cloned();
        let Some((conversation, _)) = group else { return true };
        let op = Op::History {
            user: self.user.clone(),
            conversation: conversation.clone(),
            after: 0,
            last: false,
        };
        let call = self.all.record.begin(who, op);
        let conversation = CompactString::new(&conversation);
        let applied = Some(self.applied);
        let request =
            History { conversation, before: None, after: Some(0), limit: Some(100), applied };
        match connection.call(Operation::History(request)).await {
            Ok(OkBody::History(page)) => {
                let (messages, more) = (page.messages, page.more);
                self.all.record.ok(who, call, Answer::Messages { messages, more });
                true
            }
            result => self.failed(who, call, result),
        }
    }

    /// Makes a group with some users.
    pub(crate) async fn create(&mut self, connection: &mut Connection, who: Caller) -> bool {
        self.letters += 1;
        let client_id = format!("{}-{}", self.process, self.letters);
        let mut members: Vec<String> =
            self.all.users.iter().map(|(user, _)| user.clone()).collect();
        self.random.shuffle(&mut members);
        let some = self.random.within(1, members.len() as u64);
        members.truncate(usize::try_from(some).expect("a few users"));
        members.retain(|user| *user != self.user);
        let request = CreateConversation {
            kind: ConversationKind::Group,
            members: members.iter().map(CompactString::new).collect(),
            name: None,
            retention: None,
            client_id: CompactString::new(&client_id),
        };
        members.push(self.user.clone());
        let op = Op::Create { user: self.user.clone(), client_id, members: members.clone() };
        let call = self.all.record.begin(who, op);
        match connection.call(Operation::CreateConversation(request)).await {
            Ok(OkBody::Created(created)) => {
                self.applied = self.applied.max(created.applied);
                let conversation = String::from(created.conversation);
                self.all.groups.lock().push((conversation.clone(), members));
                self.all.record.ok(who, call, Answer::Created { conversation });
                true
            }
            result => self.failed(who, call, result),
        }
    }
}
