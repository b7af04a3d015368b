//! A cluster of real `roost serve` processes for a test: started, killed, started again, looked at.
//!
//! Ports are free ones of this machine and data is in a folder that goes with the test. When a test
//! fails, the end of every node's log is printed. Waiting is polling with a deadline; nothing here
//! sleeps for a fixed time and hopes.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use roost_client::protocol::request::SendMessage;
use roost_client::protocol::{Item, ItemContent};
use roost_client::protocol::{Operation, Target};
use roost_client::{Calls as _, ClientError, ConnectOptions, Connection, Endpoint, Pushes, Trust};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything may take that is not a matter of taste: a slow machine must pass.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The time between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// One cluster at a time: a machine of two cores has enough to do with three nodes.
static TURN: Mutex<()> = Mutex::new(());

/// A cluster of `roost serve` processes.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    folder: TempDir,
    settings: Vec<String>,
    admin: String,
    http: reqwest::Client,
    runtime: Runtime,
    _turn: MutexGuard<'static, ()>,
}

struct Node {
    client: SocketAddr,
    peer: SocketAddr,
    process: Option<Child>,
}

impl Cluster {
    /// Starts `count` nodes with further settings (`--name`, `value`, …) and waits until all serve.
    pub(crate) fn start(count: usize, settings: &[&str]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cluster = Self {
            nodes: free_addresses(count),
            folder: TempDir::new().unwrap(),
            settings: settings.iter().map(|&word| word.to_owned()).collect(),
            admin: String::new(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap(),
            runtime: Runtime::new().unwrap(),
            _turn: turn,
        };
        for node in 0..count {
            cluster.restart(node);
        }
        for node in 0..count {
            cluster.await_ready(node);
        }
        cluster.admin = cluster.token(&["--admin"]);
        cluster
    }

    /// How many nodes there are.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The folder of the test.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs what needs an async runtime.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Kills a node as a power cut does; nothing if it is down.
    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(mut process) = self.nodes[node].process.take() {
            process.kill().expect("the process is a child that was not waited for");
            process.wait().expect("the process is a child that was not waited for");
        }
    }

    /// Starts a node that is down, on what its disk holds.
    pub(crate) fn restart(&mut self, node: usize) {
        let number = node + 1;
        let peers: Vec<String> = self
            .nodes
            .iter()
            .enumerate()
            .map(|(n, node)| format!("{}={}", n + 1, node.peer))
            .collect();
        let log = File::options().create(true).append(true).open(self.log(node)).unwrap();
        let process = roost()
            .arg("serve")
            .arg("--data")
            .arg(self.folder().join(format!("node-{number}")))
            .arg("--keys")
            .arg(self.keys())
            .args(["--node-id", &number.to_string()])
            .args(["--listen", &self.nodes[node].client.to_string()])
            .args(["--peer-listen", &self.nodes[node].peer.to_string()])
            .args(["--peers", &peers.join(",")])
            .args(&self.settings)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("the binary was built");
        self.nodes[node].process = Some(process);
    }

    /// Waits until a node says that it can serve.
    pub(crate) fn await_ready(&mut self, node: usize) {
        let url = format!("http://{}/readyz", self.nodes[node].client);
        eventually("the node is ready", || {
            let process =
                self.nodes[node].process.as_mut().expect("only a started node gets ready");
            if let Some(status) = process.try_wait().unwrap() {
                panic!("node {} ended: {status}", node + 1);
            }
            let answer = self.runtime.block_on(async { self.http.get(&url).send().await });
            answer.is_ok_and(|answer| answer.status().is_success()).then_some(())
        });
    }

    /// What a node says of the cluster; `None` if it does not answer.
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        self.run(async {
            let url = format!("http://{}/v1/cluster", self.nodes[node].client);
            let answer = self.http.get(url).bearer_auth(&self.admin).send().await.ok()?;
            answer.error_for_status().ok()?.json().await.ok()
        })
    }

    /// Waits for a leader that a running node knows; gives its place.
    pub(crate) fn leader(&self) -> usize {
        eventually("a leader", || {
            let up = (0..self.len()).filter(|&node| self.nodes[node].process.is_some());
            let statuses: Vec<Value> = up.filter_map(|node| self.status(node)).collect();
            let leader = statuses.iter().find(|status| status["role"] == "leader")?;
            leader["node"].as_u64().map(|number| number as usize - 1)
        })
    }

    /// Waits until every node stands at the same entry; that their states are then the same. Gives
    /// what the first says of itself.
    pub(crate) fn await_equal_states(&self) -> Value {
        eventually("all nodes stand at the same entry", || {
            let statuses: Option<Vec<Value>> = (0..self.len()).map(|n| self.status(n)).collect();
            let statuses = statuses?;
            let digest = |status: &Value| status["digest"].clone();
            assert!(digest(&statuses[0]).is_object(), "a status without a digest: {}", statuses[0]);
            let at =
                |status: &Value| (status["applied"].clone(), status["digest"]["applied"].clone());
            if statuses.iter().any(|status| at(status) != at(&statuses[0])) {
                return None;
            }
            let equal = statuses.iter().all(|status| digest(status) == digest(&statuses[0]));
            assert!(equal, "the same entries, but different states: {statuses:#?}");
            Some(statuses[0].clone())
        })
    }

    /// What `roost token` prints on its last line.
    pub(crate) fn token(&self, arguments: &[&str]) -> String {
        let mut command = roost();
        command.arg("token").args(arguments).arg("--keys").arg(self.keys());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        text.trim().lines().last().expect("roost token prints a line").to_owned()
    }

    /// How a device of `user` connects to a node.
    pub(crate) fn options(&self, node: usize, user: &str, device: &str) -> ConnectOptions {
        let authority = fs::read(self.keys().join("ca.crt")).unwrap();
        ConnectOptions::new(
            Endpoint::from(self.nodes[node].client),
            Trust::Authority(authority.into()),
            self.token(&[user]),
            device,
        )
    }

    /// Where clients reach a node.
    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].client
    }

    /// A command that speaks to all nodes.
    pub(crate) fn command(&self, name: &str) -> Command {
        let addresses: Vec<String> =
            self.nodes.iter().map(|node| node.client.to_string()).collect();
        let mut command = roost();
        command.arg(name).arg("--keys").arg(self.keys()).args(["--addr", &addresses.join(",")]);
        command
    }

    fn keys(&self) -> PathBuf {
        self.folder().join("keys")
    }

    fn log(&self, node: usize) -> PathBuf {
        self.folder().join(format!("node-{}.log", node + 1))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in 0..self.len() {
            self.kill(node);
        }
        if thread::panicking() {
            for node in 0..self.len() {
                let log = fs::read_to_string(self.log(node)).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                let end = lines[lines.len().saturating_sub(40)..].join("\n");
                eprintln!("--- the end of what node {} printed\n{end}", node + 1);
            }
        }
    }
}

/// A user that sends through whichever node is there, again under the same client id until the
/// outcome is known.
pub(crate) struct Sender {
    nodes: Vec<ConnectOptions>,
    next_node: usize,
    connection: Option<Connection>,
    sent: u64,
}

impl Sender {
    /// A sender that is not connected yet.
    pub(crate) fn new(cluster: &Cluster, user: &str) -> Self {
        let mut options = cluster.options(0, user, "sender");
        options.window = Some(0);
        options.connect_timeout = Duration::from_secs(2);
        options.call_timeout = Duration::from_secs(5);
        let at = |node| {
            let endpoint = Endpoint::from(cluster.address(node));
            ConnectOptions { endpoint, ..options.clone() }
        };
        let nodes = (0..cluster.len()).map(at).collect();
        Self { nodes, next_node: 0, connection: None, sent: 0 }
    }

    /// Sends; returns when it is acknowledged.
    pub(crate) fn send(&mut self, cluster: &Cluster, to: &str, body: &str) {
        cluster.run(self.send_now(to, body));
    }

    /// The same for those who are in a runtime already.
    pub(crate) async fn send_now(&mut self, to: &str, body: &str) {
        self.sent += 1;
        let request = Operation::Send(SendMessage {
            target: Target::User(to.into()),
            client_id: format!("s{}", self.sent).into(),
            body: body.to_owned().into(),
            content_type: None,
            ttl_ms: None,
        });
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = self.attempt(&request).await {
            let lasting = !error.retry() && !error.outcome_unknown();
            assert!(!lasting && Instant::now() < deadline, "cannot send: {error}");
            self.connection = None;
            tokio::time::sleep(POLL).await;
        }
    }

    async fn attempt(&mut self, request: &Operation) -> Result<(), ClientError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.next_node = (self.next_node + 1) % self.nodes.len();
                Connection::open(&self.nodes[self.next_node]).await?.0
            }
        };
        connection.call(request.clone()).await?;
        self.connection = Some(connection);
        Ok(())
    }
}

/// A pushed or pulled item's body, if it is a message.
pub(crate) fn body_of(item: &Item) -> Option<String> {
    match &item.content {
        ItemContent::Message { message, .. } => message.body.text().map(str::to_owned),
        _ => None,
    }
}

/// What comes before the deadline.
pub(crate) async fn within_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// Connects, again and again until the node takes it.
pub(crate) async fn connected(options: &ConnectOptions) -> (Connection, Pushes) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match Connection::open(options).await {
            Ok(connected) => return connected,
            Err(error) if error.retry() && Instant::now() < deadline => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) => panic!("cannot connect: {error}"),
        }
    }
}

/// Looks until there is something to see.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(POLL);
    }
}

/// What a command printed, for a failure's message.
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// The binary under test, with nothing of this process's environment that it would listen to.
fn roost() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roost"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ROOST_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Addresses that are free now, and below the range from which the system takes its own.
fn free_addresses(count: usize) -> Vec<Node> {
    let first = 10_000 + (std::process::id() % 10_000) as u16;
    let mut ports = (first..32_000).filter(|&port| is_free(port));
    let mut address = || {
        let port = ports.next().expect("a machine has free ports");
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    };
    (0..count).map(|_| Node { client: address(), peer: address(), process: None }).collect()
}

fn is_free(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port);
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}
