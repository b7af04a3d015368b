//! One run: everything takes its turns, faults come and go, and in the end all must be well.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use roost::auth::{Auth, Grant};
use roost::keys::{TokenKeys, key_id};
use roost_cluster::host;
use roost_storage::fs::sim::Trouble;
use roost_storage::model::UserId;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::client::{Client, Clients};
use crate::damage;
use crate::invariants::Invariants;
use crate::net::{Net, Place};
use crate::node::{EPOCH_MS, Node, Running};
use crate::plan::{CALM_MS, Fault, Kind, Plan, Since};
use crate::random::Random;
use crate::record::Record;
use crate::trace::Trace;

/// How long a stopped node stays down before its operator starts it again, in milliseconds.
const OPERATOR_MS: u64 = 400;
/// By when a node must have stopped whose disk failed, in milliseconds.
const STOP_MS: u64 = 2_000;
/// For how long the disk of a node that was away stays full, in milliseconds.
const FULL_MS: u64 = 4_000;
/// Tokens' lifetime in seconds, and how long before the beginning they were made, in milliseconds.
const TOKEN_S: u64 = 10 * 365 * 24 * 3_600;
/// What precedes the 32 bytes of an Ed25519 key in PKCS#8 (RFC 8410).
const PKCS8_ED25519: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const TOKEN_AGE_MS: u64 = 100 * 24 * 3_600_000;

/// A run.
pub(crate) struct World {
    /// What was decided beforehand.
    pub(crate) plan: Plan,
    /// What happened.
    pub(crate) trace: Trace,
    /// What clients saw.
    pub(crate) record: Record,
    /// The network.
    pub(crate) net: Net,
    /// The nodes.
    pub(crate) nodes: Vec<Node>,
    /// What clients share.
    pub(crate) clients: Clients,
    /// Where clients live.
    pub(crate) client_runtime: Runtime,
    lives: Vec<JoinHandle<()>>,
    /// Simulated milliseconds since the beginning.
    pub(crate) now_ms: u64,
    /// Turns begun, for whoever looks from another thread.
    turns: Arc<AtomicU64>,
    keys: TokenKeys,
    random: Random,
    invariants: Invariants,
    /// Faults that have begun, with their end.
    active: Vec<(u64, Fault)>,
    next_fault: usize,
    /// Nodes whose disks have trouble after their next start: since when, and after how many
    /// operations.
    again: Vec<(Place, Trouble, Since, u64)>,
}

impl World {
    /// The world of a seed, before its first turn.
    pub(crate) fn new(
        seed: u64,
        plan: Plan,
        trace: Trace,
        turns: Arc<AtomicU64>,
    ) -> anyhow::Result<Self> {
        let random = Random::new(seed);
        let keys = token_keys(random.fork("token"))?;
        let record = Record::new(trace.clone());
        let net = Net::new(random.fork("net"), plan.weather.clone(), trace.clone());
        let clients = Clients {
            net: net.clone(),
            record: record.clone(),
            nodes: plan.nodes,
            users: Arc::new(tokens(&keys, plan.users)?),
            groups: Arc::default(),
            stop: Arc::new(AtomicBool::new(false)),
            pause_ms: plan.pause_ms,
        };
        let nodes = (1..=plan.nodes).map(|id| Node::new(id, &plan, &random)).collect();
        let client_runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build()?;
        let mut world = Self {
            random: random.fork("world"),
            invariants: Invariants::default(),
            active: Vec::new(),
            next_fault: 0,
            again: Vec::new(),
            now_ms: 0,
            turns,
            plan,
            trace,
            record,
            net,
            nodes,
            clients,
            client_runtime,
            lives: Vec::new(),
            keys,
        };
        for process in 1..=world.plan.clients {
            world.add_client(process, &random);
        }
        Ok(world)
    }

    fn add_client(&mut self, process: u64, random: &Random) {
        let user = usize::try_from((process - 1) % self.plan.users).expect("a few users");
        let device = format!("device-{}", (process - 1) / self.plan.users);
        let random = random.fork(&format!("client {process}"));
        let client = Client::new(self.clients.clone(), process, user, &device, random);
        self.lives.push(self.client_runtime.spawn(client.live()));
    }

    /// Lives until the faults end, or a rule is broken.
    pub(crate) fn run(&mut self) {
        while self.now_ms < self.plan.faults_end_ms && self.trace.violation().is_none() {
            self.net.set_calm(self.now_ms < CALM_MS);
            self.end_faults();
            self.begin_faults();
            self.turn();
        }
    }

    /// Ends all faults and lets every node start that can.
    pub(crate) fn heal(&mut self) {
        self.trace.line("all faults end");
        self.net.set_calm(true);
        self.active.clear();
        self.again.clear();
        self.next_fault = self.plan.faults.len();
        self.net.cut(BTreeSet::new());
        for node in &mut self.nodes {
            node.paused_until = None;
            node.set_sync_ms(self.plan.sync_ms);
            node.clock.ppm = 0;
            node.mend_disk();
            if node.running.is_none() && !node.lost {
                node.start_at = Some(self.now_ms);
            }
        }
    }

    /// Tells clients to stop, and takes turns until they have.
    pub(crate) fn stop_clients(&self) {
        self.clients.stop.store(true, Ordering::Relaxed);
    }

    /// A client of its own for a look from outside.
    pub(crate) fn visitor(&self, process: u64, user: usize, random: &Random) -> Client {
        let random = random.fork(&format!("visitor {process}"));
        let device = format!("visitor-{process}");
        let mut client = Client::new(self.clients.clone(), process, user, &device, random);
        client.patience = Duration::from_secs(2);
        client
    }

    /// Whether all clients have gone.
    pub(crate) fn clients_stopped(&self) -> bool {
        self.lives.iter().all(JoinHandle::is_finished)
    }

    /// The nodes whose disks are whole.
    pub(crate) fn able_nodes(&self) -> Vec<Place> {
        self.nodes.iter().filter(|node| !node.lost).map(|node| node.id).collect()
    }

    /// A node's inside, while it runs.
    pub(crate) fn running(&self, id: Place) -> Option<&Running> {
        self.nodes.iter().find(|node| node.id == id)?.running.as_ref()
    }

    /// Whether all that can run do, and have applied the same.
    pub(crate) fn nodes_agree(&self) -> bool {
        let applied = |node: &Node| {
            let position = node.running.as_ref()?.store.applied_state().applied?;
            Some(position.index)
        };
        let mut able = self.nodes.iter().filter(|node| !node.lost).map(applied);
        match able.next() {
            Some(Some(first)) => able.all(|other| other == Some(first)),
            _ => false,
        }
    }

    /// Where the nodes stand, for whoever asks why.
    pub(crate) fn describe_nodes(&self) -> String {
        let describe = |node: &Node| match &node.running {
            Some(running) => {
                let status = running.cluster.status();
                format!(
                    "{}: {} of term {}, last {:?}, applied {:?}",
                    node.id, status.role, status.term, status.last_log, status.applied
                )
            }
            None if node.lost => format!("{}: lost", node.id),
            None => format!("{}: down", node.id),
        };
        self.nodes.iter().map(describe).collect::<Vec<_>>().join("; ")
    }

    /// Everybody takes a turn.
    pub(crate) fn turn(&mut self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.trace.set_time(self.now_ms);
        self.record.set_time(self.now_ms);
        self.net.deliver(self.now_ms);
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        self.random.shuffle(&mut order);
        for at in order {
            self.start_if_due(at);
            let node = &mut self.nodes[at];
            node.turn(self.now_ms, self.plan.tick_ms);
            self.invariants.look(node, &self.plan, &self.trace);
            self.operate(at);
        }
        let tick = Duration::from_millis(self.plan.tick_ms);
        self.client_runtime.block_on(async { sleep(tick).await });
        self.now_ms += self.plan.tick_ms;
    }

    fn start_if_due(&mut self, at: usize) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[at];
        if node.running.is_some() || node.start_at.is_none_or(|start| start > now_ms) {
            return;
        }
        let id = node.id;
        node.excused = false;
        match node.start(&self.plan, &self.net, &self.keys, now_ms) {
            Ok(()) => {
                self.trace.line(&format!("node {id} starts"));
                self.invariants.started(id);
                let again = self.again.iter().position(|(node, ..)| *node == id);
                if let Some((_, trouble, since, after)) = again.map(|at| self.again.remove(at)) {
                    node.trouble(trouble, since, after);
                    self.until_room(id, trouble);
                }
            }
            Err(reason) if node.damaged => {
                self.trace.line(&format!("node {id} refuses its damaged disk: {reason}"));
                node.lost = true;
                node.kill(&self.net, false);
            }
            Err(reason) => {
                self.trace.violate("recovery", format!("node {id} does not start: {reason}"));
            }
        }
    }

    /// Ends a full disk's time some day.
    fn until_room(&mut self, node: Place, trouble: Trouble) {
        if trouble == Trouble::Full {
            let kind = Kind::Disk { node, after: 0, trouble };
            let fault = Fault { at_ms: self.now_ms, for_ms: FULL_MS, kind };
            self.active.push((self.now_ms + FULL_MS, fault));
        }
    }

    /// What an operator does: a node that stopped at a fault is started again.
    fn operate(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if node.is_dead() {
            self.trace.line(&format!("node {}'s power went", node.id));
            node.kill(&self.net, true);
            node.start_at = Some(self.now_ms + OPERATOR_MS);
            return;
        }
        if node.failed_for_ms(self.now_ms) > STOP_MS {
            let what = format!("node {} went on after its disk failed", node.id);
            self.trace.violate("fail-stop", what);
        }
        if node.is_stopping() && node.failed_ms.is_none() {
            return self.see_to_stop(at);
        }
        let fault = node.running.as_ref().and_then(|running| running.cluster.fault());
        let Some(reason) = fault.map(str::to_owned) else { return };
        let id = node.id;
        self.trace.line(&format!("node {id} stopped: {reason}"));
        if !node.excused && !node.damaged {
            self.trace.violate("fail-stop", format!("node {id} stopped for no reason: {reason}"));
        }
        // A dead process loses nothing that it wrote; a power cut is told by its fault.
        let power = self.random.percent(50);
        node.kill(&self.net, power);
        node.start_at = Some(self.now_ms + OPERATOR_MS);
    }

    /// A node that was told to stop does, and then its power may go.
    fn see_to_stop(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let id = node.id;
        if node.is_slow_to_stop() {
            self.trace.violate("shutdown", format!("node {id} was told to stop, and did not"));
        }
        let Some(how) = node.has_stopped() else { return };
        self.trace.line(&format!("node {id} {how}"));
        let power = self.random.percent(50);
        let node = &mut self.nodes[at];
        node.kill(&self.net, power);
        let restart = self.active.iter().filter_map(|(end, fault)| match fault.kind {
            Kind::Restart { node } if node == id => Some(*end),
            _ => None,
        });
        node.start_at = Some(restart.max().unwrap_or(self.now_ms));
    }

    fn begin_faults(&mut self) {
        while let Some(fault) = self.plan.faults.get(self.next_fault) {
            if fault.at_ms > self.now_ms {
                return;
            }
            let fault = fault.clone();
            self.next_fault += 1;
            self.trace.line(&format!("fault {}: {fault}", self.next_fault - 1));
            self.begin(&fault);
            self.active.push((self.now_ms + fault.for_ms, fault));
        }
    }

    fn begin(&mut self, fault: &Fault) {
        let (now_ms, end_ms) = (self.now_ms, self.now_ms + fault.for_ms);
        match &fault.kind {
            Kind::Crash { nodes, power } => {
                for &id in nodes {
                    self.kill(id, *power, end_ms);
                }
            }
            Kind::Away { node, since, after, trouble } => {
                self.kill(*node, true, end_ms);
                self.again.push((*node, *trouble, *since, *after));
            }
            Kind::Flip { node, place } => {
                if !self.node(*node).lost {
                    self.kill(*node, true, now_ms + 50);
                    let mut random = self.random.fork(&format!("flip {now_ms}"));
                    let node = self.node(*node);
                    if let Some(what) = damage::flip(&node.disk, *place, &mut random) {
                        node.damaged = true;
                        self.trace.line(&what);
                    }
                }
            }
            Kind::Disk { node, after, trouble } => {
                let node = self.node(*node);
                if node.running.is_some() {
                    node.trouble(*trouble, Since::Start, *after);
                }
            }
            Kind::Engine { node, after } => {
                let node = self.node(*node);
                if node.running.is_some() {
                    node.engine_trouble(*after);
                }
            }
            Kind::Restart { node } => self.node(*node).tell_to_stop(),
            Kind::Pause { nodes } => {
                for &id in nodes {
                    self.node(id).paused_until = Some(end_ms);
                }
            }
            Kind::Day { by_ms } => {
                self.nodes.iter_mut().for_each(|node| node.clock.offset_ms += by_ms);
            }
            Kind::Jump { node, by_ms } => self.node(*node).clock.offset_ms += by_ms,
            Kind::Drift { node, ppm } => self.node(*node).clock.ppm = *ppm,
            Kind::SlowDisk { node, sync_ms } => self.node(*node).set_sync_ms(*sync_ms),
            Kind::Cut { .. } => {}
        }
        self.apply_cuts();
    }

    fn end_faults(&mut self) {
        let now_ms = self.now_ms;
        let (ended, active) =
            std::mem::take(&mut self.active).into_iter().partition(|(end, _)| *end <= now_ms);
        self.active = active;
        let ended: Vec<(u64, Fault)> = ended;
        for (_, fault) in &ended {
            match fault.kind {
                Kind::SlowDisk { node, .. } => {
                    let sync_ms = self.plan.sync_ms;
                    self.node(node).set_sync_ms(sync_ms);
                }
                Kind::Disk { node, trouble: Trouble::Full, .. } => {
                    self.node(node).disk.make_room();
                }
                _ => {}
            }
        }
        let flapping = self
            .active
            .iter()
            .any(|(_, fault)| matches!(fault.kind, Kind::Cut { flap_ms: Some(_), .. }));
        if flapping || !ended.is_empty() {
            self.apply_cuts();
        }
    }

    /// The directions that are cut now.
    fn apply_cuts(&self) {
        let mut cut = BTreeSet::new();
        for (_, fault) in &self.active {
            let Kind::Cut { directions, flap_ms } = &fault.kind else { continue };
            let on =
                flap_ms.is_none_or(|flap| ((self.now_ms - fault.at_ms) / flap).is_multiple_of(2));
            if on {
                cut.extend(directions.iter().copied());
            }
        }
        self.net.cut(cut);
    }

    fn node(&mut self, id: Place) -> &mut Node {
        &mut self.nodes[usize::try_from(id - 1).expect("a node's number")]
    }

    fn kill(&mut self, id: Place, power: bool, start_at: u64) {
        let net = self.net.clone();
        let node = self.node(id);
        if node.lost {
            return;
        }
        node.kill(&net, power);
        node.start_at = Some(node.start_at.unwrap_or(0).max(start_at));
    }
}

/// Made of the seed: rcgen's own source of random numbers asks the kernel behind our back.
fn token_keys(mut random: Random) -> anyhow::Result<TokenKeys> {
    let mut der = PKCS8_ED25519.to_vec();
    (0..4).for_each(|_| der.extend(random.next().to_be_bytes()));
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(der);
    let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519)?;
    let public_pem = pair.public_key_pem();
    Ok(TokenKeys {
        kid: key_id(&public_pem)?,
        private_pem: pair.serialize_pem().into(),
        public_pem,
    })
}

/// Each user's name and token.
fn tokens(keys: &TokenKeys, users: u64) -> anyhow::Result<Vec<(String, String)>> {
    host::simulate(EPOCH_MS - TOKEN_AGE_MS);
    let auth = Auth::load(keys, &[] as &[&std::path::Path], &[] as &[&std::path::Path])?;
    let mint = |n: u64| {
        let user = format!("user-{n}");
        let grant = Grant { user: UserId::new(&user)?, device: None, admin: false, ttl_s: TOKEN_S };
        Ok((user, auth.signer.mint(&grant)?))
    };
    (1..=users).map(mint).collect()
}
