//! `roost dev`: three real processes under one supervisor.

use std::fs::DirEntry;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Process, eventually, failure, roost, run, signal, stdout};

/// Where free ports are looked for.
const PORTS: std::ops::Range<u16> = 21_000..29_000;

/// A running `roost dev`.
struct Dev {
    process: Process,
    folder: TempDir,
    port: u16,
}

impl Dev {
    fn start(folder: TempDir, port: u16) -> Self {
        let mut process = Process::start(
            roost(folder.path())
                .args(["dev", "--nodes", "3", "--port", &port.to_string()])
                .args(["--log", "error,openraft=off"])
                .stdout(Stdio::piped()),
        );
        let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let ready = lines.map(Result::unwrap).any(|line| line.contains("is ready"));
        assert!(ready, "the supervisor ended");
        Self { process, folder, port }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(self.folder.path(), arguments)
    }

    fn stdout(&self, arguments: &[&str]) -> String {
        stdout(self.folder.path(), arguments)
    }

    /// What the nodes that answer say of themselves.
    fn answering(&self) -> Vec<Value> {
        let output = self.run(&["status", "--json"]);
        let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
        if all.iter().any(|n| !n["role"].is_string()) || all.is_empty() {
            eprintln!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        all.into_iter().filter(|node| node["role"].is_string()).collect()
    }

    fn nothing_listens(&self) -> bool {
        (0..3).all(|node| TcpStream::connect((Ipv4Addr::LOCALHOST, self.port + node * 10)).is_err())
    }

    /// The nodes' processes: what any of the supervisor's threads has started.
    fn children(&self) -> Vec<u32> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of_thread = |thread: std::io::Result<DirEntry>| {
            // A thread may have ended by now.
            std::fs::read_to_string(thread.ok()?.path().join("children")).ok()
        };
        let text: String = threads.filter_map(of_thread).collect();
        text.split_whitespace().map(|id| id.parse().unwrap()).collect()
    }
}

/// A port with the other five of its pattern free; another one for each test.
fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let first = TAKEN.fetch_add(40, Ordering::Relaxed) + (std::process::id() % 190) as u16 * 40;
    let free = |port: u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
            && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    let mut first = PORTS.start + first;
    while !(0..3).all(|node| free(first + node * 10) && free(first + node * 10 + 1)) {
        first = PORTS.start + (first - PORTS.start + 40) % (PORTS.end - PORTS.start - 30);
    }
    first
}

#[test]
fn a_cluster_survives_its_nodes_and_its_supervisor_and_goes_on_with_its_data() {
    let mut dev = Dev::start(TempDir::new().unwrap(), free_port());
    assert_eq!(dev.answering().len(), 3);
    dev.stdout(&["send", "--as", "alice", "--to", "bob", "one"]);
    dev.stdout(&["token", "alice"]);

    // The folder is taken.
    let second = dev.run(&["dev", "--nodes", "3"]);
    assert!(failure(&second).contains("already"));

    // A node that dies is started again.
    let before = dev.children();
    assert_eq!(before.len(), 3);
    signal(before[0], "KILL");
    eventually("the node is started again", || {
        let now = dev.children();
        now.len() == 3 && !now.contains(&before[0]) && dev.answering().len() == 3
    });
    dev.stdout(&["send", "--as", "alice", "--to", "bob", "two"]);

    // Without their supervisor, the nodes end, however it went.
    signal(dev.process.id(), "KILL");
    dev.process.wait();
    eventually("the nodes end with their supervisor", || dev.nothing_listens());

    let Dev { folder, port, .. } = dev;
    let mut dev = Dev::start(folder, port);
    let tail = dev.stdout(&["tail", "--as", "bob", "--once"]);
    assert_eq!(tail.lines().count(), 2, "{tail}");

    // Told to stop, it stops all and ends well.
    signal(dev.process.id(), "TERM");
    assert!(dev.process.wait().success());
    assert!(dev.nothing_listens());
}

#[test]
fn a_cluster_that_cannot_start_says_so_and_ends() {
    let port = free_port();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, port + 10)).unwrap();
    let folder = TempDir::new().unwrap();
    let arguments = ["dev", "--nodes", "3", "--port", &port.to_string()];
    let output = run(folder.path(), &arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("roost: node 2") && said.contains(&format!("127.0.0.1:{}", port + 10)),
        "{said}"
    );
    drop(taken);
}

#[test]
fn a_folder_of_one_kind_is_not_taken_for_the_other() {
    let folder = TempDir::new().unwrap();
    std::fs::create_dir(folder.path().join("roost-data")).unwrap();
    std::fs::write(folder.path().join("roost-data/cluster.toml"), "keys = 'keys'\nnodes = []\n")
        .unwrap();
    assert!(failure(&run(folder.path(), &["serve"])).contains("roost dev"));
}
