//! A cluster of `roost dev` on this machine, in a folder that goes with it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use tempfile::TempDir;

/// Which Roost, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Roost {
    /// The program [default: beside this one]
    #[arg(long, value_name = "FILE")]
    roost: Option<PathBuf>,
    /// The first port that nodes listen on; they take ten each
    #[arg(long, value_name = "PORT", default_value_t = 7_070)]
    port: u16,
    /// The folder for the nodes' data [default: that for temporary files]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// The cold tier's engine [default: the program's]
    #[arg(long, value_name = "NAME")]
    engine: Option<String>,
}

/// A running cluster. It stops and vanishes with this value.
pub(crate) struct Cluster {
    program: PathBuf,
    supervisor: Child,
    folder: TempDir,
}

impl Roost {
    /// Starts so many nodes on empty data.
    pub(crate) fn start(&self, nodes: usize) -> anyhow::Result<Cluster> {
        let program = self.program()?;
        let folder = match &self.scratch {
            Some(scratch) => TempDir::new_in(scratch)?,
            None => TempDir::new()?,
        };
        let mut command = Command::new(&program);
        command.arg("dev").arg("--nodes").arg(nodes.to_string());
        command.arg("--port").arg(self.port.to_string()).arg("--data").arg(folder.path());
        if let Some(engine) = &self.engine {
            command.arg("--engine").arg(engine);
        }
        let mut supervisor = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let Some(stdout) = supervisor.stdout.take() else { bail!("the cluster has no output") };
        let cluster = Cluster { program, supervisor, folder };
        let mut lines = BufReader::new(stdout).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("Try next"));
        // What it says later must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        if ready { Ok(cluster) } else { bail!("the cluster did not start") }
    }

    fn program(&self) -> anyhow::Result<PathBuf> {
        if let Some(program) = &self.roost {
            return Ok(program.clone());
        }
        let own = std::env::current_exe()?;
        let target = own.parent().and_then(Path::parent).context("this program has no folder")?;
        Ok(target.join("roost"))
    }
}

impl Cluster {
    /// Runs `roost bench --json` with these arguments; its line.
    pub(crate) fn bench(&self, arguments: &[String]) -> anyhow::Result<Value> {
        let mut command = Command::new(&self.program);
        command.arg("bench").arg("--json").arg("--data").arg(self.folder.path()).args(arguments);
        line_of(command)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // As Ctrl-C does. Its nodes end with it in any case.
        let id = self.supervisor.id().to_string();
        let told = Command::new("kill").args(["-INT", &id]).status();
        if !told.is_ok_and(|status| status.success()) {
            let _ = self.supervisor.kill();
        }
        let _ = self.supervisor.wait();
    }
}

/// Runs a command that prints one line of JSON last.
pub(crate) fn line_of(mut command: Command) -> anyhow::Result<Value> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    // The other pipe is read meanwhile, so that neither fills.
    let stderr = child.stderr.take();
    let said = std::thread::spawn(move || {
        let mut said = String::new();
        stderr.map(|mut pipe| pipe.read_to_string(&mut said));
        said
    });
    let output = child.wait_with_output()?;
    let said = said.join().unwrap_or_default();
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().rfind(|line| line.starts_with('{'));
    match last {
        Some(line) if output.status.success() => Ok(serde_json::from_str(line)?),
        _ => bail!("{:?} failed: {}", command.get_program(), said.trim()),
    }
}
