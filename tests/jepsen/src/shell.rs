//! Commands of the system, whose failure says what they said.

use std::process::Stdio;

use anyhow::{Context as _, bail};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Runs a command line (words are split at spaces); gives what it printed.
pub(crate) async fn sh(line: &str) -> anyhow::Result<String> {
    with_input(line, "").await
}

/// The same, with something on its standard input.
pub(crate) async fn with_input(line: &str, input: &str) -> anyhow::Result<String> {
    let mut words = line.split_whitespace();
    let mut child = Command::new(words.next().context("a command has a name")?)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        bail!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
