//! The network: between nodes, and between clients and nodes.
//!
//! What nodes send each other may be late, lost, doubled and overtaken. A client's connection is a
//! stream: its frames keep their order, and it works or is gone. A direction that is cut loses what
//! is sent into it, or keeps some of it until it is mended, as a sender's retransmissions do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use roost_protocol::Encoding;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::plan::Weather;
use crate::random::Random;
use crate::trace::Trace;

/// A node's number; 0 stands for all clients.
pub(crate) type Place = u64;
/// Silence after which a peer connection is given up, in milliseconds (QUIC's idle time-out).
const IDLE_MS: u64 = 5_000;
/// How often a full socket looks whether its client reads again.
const SLOW_LOOK: Duration = Duration::from_millis(50);
/// The clients' place.
pub(crate) const CLIENTS: Place = 0;

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum What {
    /// A node wants a connection to a peer.
    Connect { call: u64, conn: u64 },
    /// A request on a peer connection.
    Request { call: u64, conn: u64, bytes: Bytes },
    /// An answer; `None` resets the connection.
    Reply { call: u64, bytes: Option<Bytes> },
    /// A peer connection ends.
    Close { conn: u64 },
    /// A client comes.
    Open { conn: u64, encoding: Encoding },
    /// A client's frame.
    FromClient { conn: u64, bytes: Bytes },
    /// A client goes.
    Gone { conn: u64 },
    /// A node's frame for a client; `None` at the end.
    ToClient { conn: u64, bytes: Option<Bytes> },
}

impl What {
    /// The client connection that it belongs to, and whether it goes to the node.
    fn stream(&self) -> Option<(u64, bool)> {
        match self {
            Self::Open { conn, .. } | Self::FromClient { conn, .. } | Self::Gone { conn } => {
                Some((*conn, true))
            }
            Self::ToClient { conn, .. } => Some((*conn, false)),
            _ => None,
        }
    }
}

/// What travels, and between whom.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    /// Who sent it.
    pub(crate) from: Place,
    /// Who gets it.
    pub(crate) to: Place,
    /// What it is.
    pub(crate) what: What,
}

struct Call {
    caller: Place,
    target: Place,
    conn: u64,
    reply: oneshot::Sender<Option<Bytes>>,
}

struct State {
    now_ms: u64,
    next: u64,
    random: Random,
    weather: Weather,
    calm: bool,
    under_way: BTreeMap<(u64, u64), Envelope>,
    held: Vec<Envelope>,
    cut: BTreeSet<(Place, Place)>,
    inboxes: BTreeMap<Place, mpsc::UnboundedSender<Envelope>>,
    calls: BTreeMap<u64, Call>,
    peer_connections: BTreeMap<u64, (Place, Arc<AtomicBool>)>,
    clients: BTreeMap<u64, mpsc::UnboundedSender<Option<Bytes>>>,
    /// When a client connection's newest frame arrives, by direction.
    fifo: BTreeMap<(u64, bool), u64>,
    /// Client connections whose frames vanish.
    mute: BTreeSet<u64>,
    /// Directions of client connections that lost something: a stream brings nothing past a hole.
    torn: BTreeSet<(u64, bool)>,
    /// Client connections that nobody reads from.
    slow: BTreeSet<u64>,
    doors: BTreeMap<Place, mpsc::UnboundedSender<Envelope>>,
    delivered: u64,
}

/// The network. Clones share it.
#[derive(Clone)]
pub(crate) struct Net {
    state: Arc<Mutex<State>>,
    trace: Trace,
}

impl Net {
    /// A network in such weather.
    pub(crate) fn new(random: Random, weather: Weather, trace: Trace) -> Self {
        let state = State {
            now_ms: 0,
            next: 1,
            random,
            weather,
            calm: true,
            under_way: BTreeMap::new(),
            held: Vec::new(),
            cut: BTreeSet::new(),
            inboxes: BTreeMap::new(),
            calls: BTreeMap::new(),
            peer_connections: BTreeMap::new(),
            clients: BTreeMap::new(),
            fifo: BTreeMap::new(),
            mute: BTreeSet::new(),
            torn: BTreeSet::new(),
            slow: BTreeSet::new(),
            doors: BTreeMap::new(),
            delivered: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), trace }
    }

    /// Whether the weather plays no part.
    pub(crate) fn set_calm(&self, calm: bool) {
        self.state.lock().calm = calm;
    }

    /// Messages delivered so far.
    pub(crate) fn delivered(&self) -> u64 {
        self.state.lock().delivered
    }

    /// A number that nobody else has.
    pub(crate) fn number(&self) -> u64 {
        let mut state = self.state.lock();
        state.next += 1;
        state.next
    }

    /// Cuts these directions and mends all others.
    pub(crate) fn cut(&self, directions: BTreeSet<(Place, Place)>) {
        let mut state = self.state.lock();
        state.cut = directions;
        for envelope in std::mem::take(&mut state.held) {
            if state.cut.contains(&(envelope.from, envelope.to)) {
                state.held.push(envelope);
            } else {
                state.send(envelope);
            }
        }
    }

    /// Where a node's messages go from now on.
    pub(crate) fn listen(&self, place: Place) -> mpsc::UnboundedReceiver<Envelope> {
        let (inbox, messages) = mpsc::unbounded_channel();
        self.state.lock().inboxes.insert(place, inbox);
        messages
    }

    /// Where its clients' messages go.
    pub(crate) fn listen_clients(&self, place: Place) -> mpsc::UnboundedReceiver<Envelope> {
        let (inbox, messages) = mpsc::unbounded_channel();
        self.state.lock().doors.insert(place, inbox);
        messages
    }

    /// From now on a client reads nothing of its connection, until it is told otherwise.
    pub(crate) fn set_slow(&self, conn: u64, slow: bool) {
        let mut state = self.state.lock();
        if slow {
            state.slow.insert(conn);
        } else {
            state.slow.remove(&conn);
        }
    }

    /// Waits until the client at the other end reads again.
    pub(crate) async fn wait_for_reader(&self, conn: u64) {
        loop {
            let slow = self.state.lock().slow.contains(&conn);
            if !slow {
                return;
            }
            sleep(SLOW_LOOK).await;
        }
    }

    /// A node is gone with all that it waited for. Who waits for it learns that from the silence.
    pub(crate) fn forget(&self, place: Place) {
        let mut state = self.state.lock();
        for (call, caller) in state.calls_to(place) {
            let noticed = state.now_ms + IDLE_MS + state.random.within(0, 500);
            let what = What::Reply { call, bytes: None };
            state.put(noticed, Envelope { from: caller, to: caller, what });
        }
        state.inboxes.remove(&place);
        state.doors.remove(&place);
        state.calls.retain(|_, call| call.caller != place);
        state.peer_connections.retain(|_, (caller, _)| *caller != place);
    }

    /// A node takes its leave of its peers, who hear of it: what waits for it gets no answer.
    pub(crate) fn leave(&self, place: Place) {
        let mut state = self.state.lock();
        state.inboxes.remove(&place);
        for (call, caller) in state.calls_to(place) {
            let what = What::Reply { call, bytes: None };
            state.send(Envelope { from: place, to: caller, what });
        }
    }

    /// Sends.
    pub(crate) fn send(&self, from: Place, to: Place, what: What) {
        self.state.lock().send(Envelope { from, to, what });
    }

    /// Sends something that is answered.
    pub(crate) fn call(
        &self,
        from: Place,
        to: Place,
        conn: u64,
        what: impl FnOnce(u64) -> What,
    ) -> oneshot::Receiver<Option<Bytes>> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.state.lock();
        state.next += 1;
        let call = state.next;
        state.calls.insert(call, Call { caller: from, target: to, conn, reply });
        state.send(Envelope { from, to, what: what(call) });
        answer
    }

    /// Keeps a peer connection's end in mind, so that the other side can end it.
    pub(crate) fn watch(&self, conn: u64, caller: Place, closed: Arc<AtomicBool>) {
        self.state.lock().peer_connections.insert(conn, (caller, closed));
    }

    /// A node ends a peer connection: what waits on it gets no answer any more.
    pub(crate) fn reset(&self, conn: u64) {
        let mut state = self.state.lock();
        let waiting = state.calls.iter().filter(|(_, call)| call.conn == conn);
        let waiting: Vec<u64> = waiting.map(|(number, _)| *number).collect();
        for number in waiting {
            if let Some(call) = state.calls.remove(&number) {
                let _ = call.reply.send(None);
            }
        }
    }

    /// A client's way to a node: what comes back, `None` at the end.
    pub(crate) fn open(
        &self,
        node: Place,
        encoding: Encoding,
    ) -> (u64, mpsc::UnboundedReceiver<Option<Bytes>>) {
        let conn = self.number();
        let (to_client, frames) = mpsc::unbounded_channel();
        self.state.lock().clients.insert(conn, to_client);
        self.send(CLIENTS, node, What::Open { conn, encoding });
        (conn, frames)
    }

    /// From now on nothing passes a client's connection, and nobody is told.
    pub(crate) fn mute(&self, conn: u64) {
        self.state.lock().mute.insert(conn);
    }

    /// Brings what has arrived by now.
    pub(crate) fn deliver(&self, now_ms: u64) {
        let mut state = self.state.lock();
        state.now_ms = now_ms;
        while let Some(entry) = state.under_way.first_entry() {
            if entry.key().0 > now_ms {
                break;
            }
            let envelope = entry.remove();
            if state.cut.contains(&(envelope.from, envelope.to)) {
                state.lose(envelope);
                continue;
            }
            if state.is_torn(&envelope) {
                continue;
            }
            self.note(&envelope);
            state.delivered += 1;
            state.hand_over(envelope);
        }
    }

    fn note(&self, envelope: &Envelope) {
        let (kind, number, bytes): (u8, u64, &[u8]) = match &envelope.what {
            What::Connect { conn, .. } => (1, *conn, &[]),
            What::Request { call, bytes, .. } => (2, *call, bytes),
            What::Reply { call, bytes } => (3, *call, bytes.as_deref().unwrap_or_default()),
            What::Close { conn } => (4, *conn, &[]),
            What::Open { conn, .. } => (5, *conn, &[]),
            What::FromClient { conn, bytes } => (6, *conn, bytes),
            What::Gone { conn } => (7, *conn, &[]),
            What::ToClient { conn, bytes } => (8, *conn, bytes.as_deref().unwrap_or_default()),
        };
        self.trace.mix(&[kind, envelope.from as u8, envelope.to as u8]);
        self.trace.mix(&number.to_be_bytes());
        self.trace.mix(bytes);
    }
}

impl State {
    /// The calls that a node has not answered, and who waits.
    fn calls_to(&self, place: Place) -> Vec<(u64, Place)> {
        let calls = self.calls.iter().filter(|(_, call)| call.target == place);
        calls.map(|(number, call)| (*number, call.caller)).collect()
    }

    /// Whether it comes past a hole. What ends a client's wait comes from nowhere, and arrives.
    fn is_torn(&self, envelope: &Envelope) -> bool {
        let torn = envelope.what.stream().is_some_and(|stream| self.torn.contains(&stream));
        torn && envelope.from != envelope.to
    }

    fn send(&mut self, envelope: Envelope) {
        let stream = envelope.what.stream();
        let mut at = self.now_ms + self.delay();
        match stream {
            Some((conn, _)) if self.mute.contains(&conn) => return,
            Some(stream) => {
                let newest = self.fifo.entry(stream).or_default();
                at = at.max(*newest);
                *newest = at;
            }
            None if !self.calm && self.random.next() % 1_000 < self.weather.lost_permille => {
                return self.lose(envelope);
            }
            None => {}
        }
        let doubled = matches!(envelope.what, What::Request { .. })
            && !self.calm
            && self.random.next() % 1_000 < self.weather.doubled_permille;
        if doubled {
            let late = self.now_ms + self.delay() + self.random.within(0, 400);
            self.put(late, envelope.clone());
        }
        self.put(at, envelope);
    }

    /// What does not arrive: some of it does after all, much later. Whoever waits for the rest
    /// learns from its connection's silence. A client's connection ends as a whole.
    fn lose(&mut self, envelope: Envelope) {
        let noticed = self.now_ms + IDLE_MS + self.random.within(0, 500);
        let stream = envelope.what.stream();
        match envelope.what {
            What::Open { conn, .. }
            | What::FromClient { conn, .. }
            | What::Gone { conn }
            | What::ToClient { conn, .. } => {
                self.torn.extend(stream);
                if self.mute.insert(conn) && self.random.percent(50) {
                    let what = What::ToClient { conn, bytes: None };
                    self.put(noticed, Envelope { from: CLIENTS, to: CLIENTS, what });
                }
            }
            _ if self.random.percent(30) => self.held.push(envelope),
            What::Request { call, .. } => {
                let what = What::Reply { call, bytes: None };
                self.put(noticed, Envelope { from: envelope.from, to: envelope.from, what });
            }
            What::Reply { call, .. } => {
                let what = What::Reply { call, bytes: None };
                self.put(noticed, Envelope { from: envelope.to, to: envelope.to, what });
            }
            What::Connect { .. } | What::Close { .. } => {}
        }
    }

    fn put(&mut self, at: u64, envelope: Envelope) {
        self.next += 1;
        let key = (at, self.next);
        self.under_way.insert(key, envelope);
    }

    fn delay(&mut self) -> u64 {
        let (low, high) = self.weather.delay_ms;
        if self.calm {
            return low.min(1);
        }
        let late = self.random.next() % 1_000 < self.weather.late_permille;
        self.random.within(low, high) + if late { self.random.within(20, 900) } else { 0 }
    }

    fn hand_over(&mut self, envelope: Envelope) {
        match envelope.what {
            What::Reply { call, bytes } => {
                if let Some(call) =
                    self.calls.remove(&call).filter(|call| call.caller == envelope.to)
                {
                    let _ = call.reply.send(bytes);
                }
            }
            What::Close { conn } => {
                if let Some((_, closed)) = self.peer_connections.remove(&conn) {
                    closed.store(true, Ordering::Relaxed);
                }
                self.bring(envelope);
            }
            What::ToClient { conn, bytes } => {
                let ended = bytes.is_none();
                let taken =
                    self.clients.get(&conn).is_some_and(|client| client.send(bytes).is_ok());
                if ended || !taken {
                    self.clients.remove(&conn);
                }
            }
            What::Open { .. } | What::FromClient { .. } | What::Gone { .. } => {
                if let Some(door) = self.doors.get(&envelope.to) {
                    let _ = door.send(envelope);
                }
            }
            _ => self.bring(envelope),
        }
    }

    fn bring(&mut self, envelope: Envelope) {
        // A node that is down hears nothing.
        match self.inboxes.get(&envelope.to) {
            Some(inbox) => {
                let _ = inbox.send(envelope);
            }
            None => self.lose(envelope),
        }
    }
}
