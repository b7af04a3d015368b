//! One node, for tests of the commands around it.

use std::io::{BufRead as _, BufReader};
use std::process::{Output, Stdio};

use tempfile::TempDir;

use crate::process::{Process, failure, roost, run, signal, stdout};

/// Settings of a node on free ports that says only what is wrong.
pub(crate) const SETTINGS: [&str; 6] =
    ["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0", "--log", "error"];

/// A running `roost serve`, on free ports, in a folder of its own.
pub(crate) struct Node {
    /// The node itself.
    pub(crate) process: Process,
    /// Its folder, with `roost-data` inside.
    pub(crate) folder: TempDir,
    /// What it said on stdout until it was ready.
    pub(crate) welcome: Vec<String>,
}

impl Node {
    /// Starts it in a new folder.
    pub(crate) fn start() -> Self {
        Self::start_in(TempDir::new().unwrap())
    }

    /// Starts it in a folder, which may have its data.
    pub(crate) fn start_in(folder: TempDir) -> Self {
        let mut process =
            Process::start(roost(folder.path()).arg("serve").args(SETTINGS).stdout(Stdio::piped()));
        let mut welcome = Vec::new();
        for line in BufReader::new(process.0.stdout.take().unwrap()).lines() {
            welcome.push(line.unwrap());
            if welcome.last().is_some_and(|line| line.contains("curl")) {
                return Self { process, folder, welcome };
            }
        }
        panic!("the node ended before it was ready: {welcome:?}");
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        run(self.folder.path(), arguments)
    }

    /// Runs a command that must succeed; returns its lines on stdout.
    pub(crate) fn lines(&self, arguments: &[&str]) -> Vec<String> {
        stdout(self.folder.path(), arguments).lines().map(str::to_owned).collect()
    }

    /// Runs a command that must fail; returns its one line on stderr.
    pub(crate) fn failure(&self, arguments: &[&str]) -> String {
        failure(&self.run(arguments))
    }

    /// Stops the node as an operator does; it must end well.
    pub(crate) fn stop(mut self) -> TempDir {
        signal(self.process.id(), "TERM");
        assert!(self.process.wait().success());
        self.folder
    }
}
