//! The nodes: real `roost serve` processes, each in its namespace, started, killed and asked.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use roost_client::protocol::Token;
use roost_client::{ConnectOptions, Endpoint, Transport, Trust};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::clocks;
use crate::disk::LossyDisk;
use crate::links::Links;
use crate::nemesis::Kind;
use crate::network::{self, CLIENT_PORT, PEER_PORT};
use crate::options::Options;
use crate::shell::sh;

/// How long a node may take to get ready, or the cluster to stand still.
const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two looks.
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to stop when it is asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// The cluster under test.
pub(crate) struct Cluster {
    binary: PathBuf,
    folder: PathBuf,
    settings: Vec<String>,
    clocks: bool,
    /// Whether a node that starts counts its whole store anew, and refuses one that is not whole.
    verifying: AtomicBool,
    nodes: Vec<Mutex<Node>>,
    /// A disk for each node, where the faults need them.
    disks: Vec<LossyDisk>,
    /// The detour for packets.
    pub(crate) links: Arc<Links>,
    /// Ends of nodes that nobody asked for.
    ended: Mutex<Vec<String>>,
    http: reqwest::Client,
    admin: String,
}

#[derive(Default)]
struct Node {
    process: Option<Child>,
    paused: bool,
    /// It may end by itself, for a fault that leaves it no choice.
    may_end: bool,
    /// Faults that keep it down.
    held: u32,
    /// Whom it does not hear, by each fault that says so.
    deaf: Vec<(u64, BTreeSet<u64>)>,
}

impl Cluster {
    /// Makes the keys and starts all nodes of a new cluster.
    pub(crate) async fn start(
        options: &Options,
        folder: PathBuf,
        links: Arc<Links>,
    ) -> anyhow::Result<Self> {
        let settings = vec![
            format!("--engine={}", options.engine),
            format!("--dirty-bytes={}", options.dirty_bytes),
            format!("--log-keep-entries={}", options.log_keep_entries),
        ];
        let mut cluster = Self {
            binary: options.binary()?,
            settings,
            clocks: options.kinds().contains(&Kind::Clock),
            // The machine runs on when power is cut here, so a node on sled would not know.
            verifying: AtomicBool::new(options.engine == "sled"),
            disks: Vec::new(),
            links,
            nodes: (0..options.nodes).map(|_| Mutex::default()).collect(),
            ended: Mutex::default(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?,
            admin: String::new(),
            folder,
        };
        let keys = cluster.keys();
        let roost = cluster.binary.display();
        let init =
            format!("{roost} keys init --out {} --nodes {}", keys.display(), cluster.peers());
        sh(&init).await?;
        cluster.admin = cluster.token("--admin").await?;
        if options.kinds().iter().any(|kind| kind.needs_disks()) {
            for node in cluster.numbers() {
                fs::create_dir_all(cluster.data(node))?;
                let disk = LossyDisk::mount(&cluster.data(node));
                cluster.disks.push(disk.context("cannot mount a disk (FUSE)")?);
            }
        }
        cluster.launch_all().await?;
        Ok(cluster)
    }

    /// The nodes' numbers, from 1.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        (1..=self.nodes.len() as u64).collect()
    }

    fn node(&self, node: u64) -> &Mutex<Node> {
        &self.nodes[node as usize - 1]
    }

    fn keys(&self) -> PathBuf {
        self.folder.join("keys")
    }

    /// A node's data folder.
    pub(crate) fn data(&self, node: u64) -> PathBuf {
        self.folder.join(format!("node-{node}"))
    }

    /// A node's disk.
    ///
    /// # Panics
    /// If no fault of the run needs disks.
    pub(crate) fn disk(&self, node: u64) -> &LossyDisk {
        self.disks.get(node as usize - 1).expect("disks are mounted for the faults that need them")
    }

    /// Sets a node's clock off.
    pub(crate) fn set_clock(&self, node: u64, offset_ms: i64) -> anyhow::Result<()> {
        clocks::set(&self.clock(node), offset_ms)
    }

    fn clock(&self, node: u64) -> PathBuf {
        self.folder.join(format!("clock-{node}"))
    }

    /// Says whether a node may end by itself.
    pub(crate) fn may_end(&self, node: u64, may: bool) {
        self.look_for_ends();
        self.node(node).lock().may_end = may;
    }

    /// Notes it if a node is still there that a fault should have stopped.
    pub(crate) fn must_have_ended(&self, node: u64) {
        self.look_for_ends();
        if self.node(node).lock().process.is_some() {
            self.ended.lock().push(format!("node {node} went on after a sync that failed"));
        }
    }

    /// What a node printed.
    pub(crate) fn log(&self, node: u64) -> PathBuf {
        self.folder.join(format!("node-{node}.log"))
    }

    fn peers(&self) -> String {
        let peer = |node: u64| format!("{node}={}:{PEER_PORT}", network::address(node));
        self.numbers().into_iter().map(peer).collect::<Vec<_>>().join(",")
    }

    /// A token for a user (or, by a flag, for the administrator).
    pub(crate) async fn token(&self, who: &str) -> anyhow::Result<String> {
        let (roost, keys) = (self.binary.display(), self.keys());
        let printed = sh(&format!("{roost} token {who} --keys {}", keys.display())).await?;
        Ok(printed.lines().last().context("no token")?.to_owned())
    }

    /// How a device connects to a node.
    pub(crate) fn options(
        &self,
        node: u64,
        transport: Transport,
        token: &Token,
        device: &str,
    ) -> anyhow::Result<ConnectOptions> {
        let authority = fs::read(self.keys().join("ca.crt"))?;
        let endpoint = Endpoint { host: network::address(node), port: CLIENT_PORT };
        let trust = Trust::Authority(authority.into());
        let mut options = ConnectOptions::new(endpoint, trust, token.as_str(), device);
        options.transport = transport;
        options.connect_timeout = Duration::from_millis(1_500);
        options.call_timeout = Duration::from_secs(3);
        Ok(options)
    }

    /// Starts all nodes that are down, and waits until every node can serve.
    pub(crate) async fn launch_all(&self) -> anyhow::Result<()> {
        for node in self.numbers() {
            self.launch(node)?;
        }
        for node in self.numbers() {
            self.await_ready(node).await?;
        }
        Ok(())
    }

    /// Starts a node that is down; nothing if it runs, or a fault keeps it down.
    pub(crate) fn launch(&self, node: u64) -> anyhow::Result<()> {
        let mut state = self.node(node).lock();
        if state.process.is_some() || state.held > 0 {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(self.log(node))?;
        let address = network::address(node);
        let place = network::at(node);
        let mut words = place.split_whitespace();
        let mut command = Command::new(words.next().context("a command has a name")?);
        if self.clocks {
            // `ip` runs with it as well, which does it no harm.
            command.envs(clocks::environment(&self.clock(node))?);
        }
        let process = command
            .args(words)
            .arg(&self.binary)
            .arg("serve")
            .arg("--data")
            .arg(self.data(node))
            .arg("--keys")
            .arg(self.keys())
            .args(["--node-id", &node.to_string()])
            .args(&self.settings)
            .arg(format!("--verify-store={}", self.verifying.load(Ordering::Relaxed)))
            .args(["--listen", &format!("{address}:{CLIENT_PORT}")])
            .args(["--peer-listen", &format!("{address}:{PEER_PORT}")])
            .args(["--peers", &self.peers()])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start a node")?;
        state.process = Some(process);
        state.paused = false;
        Ok(())
    }

    /// Kills a node at once; nothing if it is down.
    pub(crate) async fn kill(&self, node: u64) -> anyhow::Result<()> {
        self.look_for_ends();
        let process = self.node(node).lock().process.take();
        if let Some(mut process) = process {
            process.kill().await?;
        }
        Ok(())
    }

    /// Kills a node, and keeps it down until it is released as often.
    pub(crate) async fn hold_down(&self, node: u64) -> anyhow::Result<()> {
        self.node(node).lock().held += 1;
        self.kill(node).await
    }

    /// The fault that kept a node down has ended.
    pub(crate) fn release(&self, node: u64) -> anyhow::Result<()> {
        {
            let mut state = self.node(node).lock();
            state.held = state.held.saturating_sub(1);
        }
        self.launch(node)
    }

    /// Asks a node to stop, and waits for it. Until then no other fault starts it again.
    pub(crate) async fn stop(&self, node: u64) -> anyhow::Result<()> {
        self.look_for_ends();
        self.go_on(node)?;
        self.signal(node, Signal::TERM)?;
        let process = {
            let mut state = self.node(node).lock();
            state.held += 1;
            state.process.take()
        };
        if let Some(mut process) = process
            && tokio::time::timeout(STOP_PATIENCE, process.wait()).await.is_err()
        {
            // A disk that is broken on purpose may hold it up.
            if !self.node(node).lock().may_end {
                self.ended.lock().push(format!("node {node} did not stop when asked"));
            }
            process.kill().await?;
        }
        self.node(node).lock().held -= 1;
        Ok(())
    }

    /// Stops all nodes and starts them again, each over a store that it has counted anew.
    pub(crate) async fn restart_verifying(&self) -> anyhow::Result<()> {
        self.verifying.store(true, Ordering::Relaxed);
        for node in self.numbers() {
            self.stop(node).await?;
        }
        self.launch_all().await
    }

    /// Stops a node in its tracks.
    pub(crate) fn pause(&self, node: u64) -> anyhow::Result<()> {
        self.node(node).lock().paused = true;
        self.signal(node, Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self, node: u64) -> anyhow::Result<()> {
        self.node(node).lock().paused = false;
        self.signal(node, Signal::CONT)
    }

    fn signal(&self, node: u64, signal: Signal) -> anyhow::Result<()> {
        let state = self.node(node).lock();
        let pid = state.process.as_ref().and_then(Child::id);
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            kill_process(pid, signal)?;
        }
        Ok(())
    }

    /// Whether its process runs and is not paused.
    pub(crate) fn is_up(&self, node: u64) -> bool {
        let state = self.node(node).lock();
        state.process.is_some() && !state.paused
    }

    /// From now on, for the fault `by`, a node does not hear these others (0: the clients).
    pub(crate) async fn deafen(&self, by: u64, node: u64, to: BTreeSet<u64>) -> anyhow::Result<()> {
        let all = {
            let mut state = self.node(node).lock();
            state.deaf.retain(|(fault, _)| *fault != by);
            if !to.is_empty() {
                state.deaf.push((by, to));
            }
            state.deaf.iter().flat_map(|(_, to)| to.iter().copied()).collect()
        };
        network::deafen(node, &all).await
    }

    /// Notes nodes that ended by themselves; they count as down.
    pub(crate) fn look_for_ends(&self) {
        for node in self.numbers() {
            let mut state = self.node(node).lock();
            let ended =
                state.process.as_mut().and_then(|process| process.try_wait().ok().flatten());
            if let Some(status) = ended {
                state.process = None;
                if state.may_end {
                    continue;
                }
                let text = fs::read_to_string(self.log(node)).unwrap_or_default();
                let last = text.lines().last().unwrap_or_default().to_owned();
                self.ended.lock().push(format!("node {node} ended by itself ({status}): {last}"));
            }
        }
    }

    /// The ends that nobody asked for, so far.
    pub(crate) fn take_ends(&self) -> Vec<String> {
        self.look_for_ends();
        std::mem::take(&mut self.ended.lock())
    }

    /// What a node says of the cluster; `None` if it does not answer.
    pub(crate) async fn status(&self, node: u64) -> Option<Value> {
        self.get(node, "/v1/cluster").await.ok()
    }

    /// Asks a node's HTTP API.
    pub(crate) async fn get(&self, node: u64, path: &str) -> anyhow::Result<Value> {
        let url = format!("http://{}:{CLIENT_PORT}{path}", network::address(node));
        let answer = self.http.get(url).bearer_auth(&self.admin).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// The leader, as the nodes that answer at once say.
    pub(crate) async fn leader(&self) -> Option<u64> {
        for node in self.numbers() {
            if !self.is_up(node) {
                continue;
            }
            let asked = tokio::time::timeout(Duration::from_millis(500), self.status(node)).await;
            if let Ok(Some(status)) = asked
                && status["role"] == "leader"
            {
                return Some(node);
            }
        }
        None
    }

    /// Where every node stands, in a line.
    pub(crate) async fn stand(&self) -> String {
        let mut all = Vec::new();
        for node in self.numbers() {
            let asked = tokio::time::timeout(Duration::from_millis(500), self.status(node)).await;
            all.push(match asked {
                Ok(Some(status)) => {
                    let of = |name: &str| format!("{name} {}", status[name]);
                    let names = ["role", "leader", "term", "last_log", "committed", "applied"];
                    format!("node {node}: {}", names.map(of).join(", "))
                }
                _ => format!("node {node} does not answer"),
            });
        }
        all.join("; ")
    }

    /// Waits until a node says that it can serve.
    pub(crate) async fn await_ready(&self, node: u64) -> anyhow::Result<()> {
        let url = format!("http://{}:{CLIENT_PORT}/readyz", network::address(node));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline {
                self.look_for_ends();
                bail!("node {node} is not ready after {PATIENCE:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until every node stands at the same entry.
    pub(crate) async fn await_standstill(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut applied = Vec::new();
            for node in self.numbers() {
                let status = self.status(node).await;
                let digest = status.as_ref().map(|status| status["digest"]["applied"].clone());
                applied.push((status.map(|status| status["applied"].clone()), digest));
            }
            let known = applied[0].0.is_some() && applied[0].0 == applied[0].1;
            if known && applied.iter().all(|one| *one == applied[0]) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the nodes do not come to stand at one entry: {applied:?}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
