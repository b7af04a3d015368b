//! `roost status`: the nodes and where they stand.
//!
//! Every node is asked for itself: what one node believes of another may be old. Nodes that only
//! the cluster's membership names are asked as well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use futures_util::future::join_all;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::api::{Api, ApiError};
use super::output::{note, number, say};
use super::target::Target;

/// What the table shows of each node.
const COLUMNS: [&str; 13] = [
    "node",
    "address",
    "role",
    "leader",
    "term",
    "log",
    "committed",
    "applied",
    "checkpoint",
    "users",
    "conversations",
    "messages",
    "references",
];
/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Show the nodes and where they stand
///
/// Roles, leader, term, log positions, what the nodes hold, and whether their states are equal.
/// Fails if no node answers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost status
  roost status --json --data ./roost-data
  roost status --addr 10.0.0.1:7070,10.0.0.2:7070")]
pub(crate) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// What a node says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeStatus {
    /// Its number.
    pub(crate) node: u64,
    /// `leader`, `follower`, …
    pub(crate) role: String,
    /// The leader, as it knows it.
    pub(crate) leader: Option<u64>,
    /// The current term.
    pub(crate) term: u64,
    /// Newest log entry.
    pub(crate) last_log: Option<u64>,
    /// Newest committed entry.
    pub(crate) committed: Option<u64>,
    /// Newest applied entry.
    pub(crate) applied: Option<u64>,
    /// Newest checkpoint.
    pub(crate) checkpoint: Option<u64>,
    /// The digest of its state, and the entry after which it was taken.
    pub(crate) digest: Option<StateDigest>,
    /// What it holds.
    #[serde(default)]
    pub(crate) counts: Counts,
    /// All members.
    #[serde(default)]
    pub(crate) nodes: BTreeMap<u64, Member>,
}

/// A state's digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StateDigest {
    /// The newest entry in it.
    pub(crate) applied: Option<u64>,
    /// The digest in hexadecimal.
    pub(crate) value: String,
}

/// How much a node holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Users, each with a queue.
    #[serde(default)]
    pub(crate) users: u64,
    /// Conversations.
    #[serde(default)]
    pub(crate) conversations: u64,
    /// Messages.
    #[serde(default)]
    pub(crate) messages: u64,
    /// References in all queues.
    #[serde(default)]
    pub(crate) references: u64,
}

/// A member, as the cluster knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Member {
    /// Where clients connect.
    pub(crate) client_addr: String,
}

/// One node's answer, or why there is none.
#[derive(Debug, Serialize)]
pub(crate) struct Answer {
    address: String,
    #[serde(flatten)]
    status: Option<NodeStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Asks one node for its status.
pub(crate) async fn ask_node(api: &Api, deadline: Instant) -> Result<NodeStatus, ApiError> {
    api.ask(0, Method::GET, "/v1/cluster", None, deadline).await
}

impl Status {
    /// Prints the table.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let token = self.target.admin_token()?;
        let answers = ask_all(self.target.addresses()?, &token).await?;
        if self.json {
            say!("{}", serde_json::to_string_pretty(&answers)?);
        } else {
            print_table(&answers);
        }
        if answers.iter().all(|answer| answer.status.is_none()) {
            bail!(
                "no node answers; is one running? (`roost serve` or `roost dev`; name it with --addr or --data)"
            );
        }
        Ok(())
    }
}

/// Asks these nodes, then those that they name and that were not asked yet.
async fn ask_all(addresses: Vec<String>, token: &str) -> anyhow::Result<Vec<Answer>> {
    let mut answers: Vec<Answer> = Vec::new();
    let mut next = addresses;
    let mut asked = BTreeSet::new();
    while !next.is_empty() {
        asked.extend(next.iter().cloned());
        let round = next.drain(..).map(|address| async {
            let api = Api::new(std::slice::from_ref(&address), token)?;
            let answer = ask_node(&api, Instant::now() + PATIENCE).await;
            let error = answer.as_ref().err().map(ToString::to_string);
            anyhow::Ok(Answer { address, status: answer.ok(), error })
        });
        answers.extend(join_all(round).await.into_iter().collect::<anyhow::Result<Vec<_>>>()?);
        next = unasked(&answers, &asked);
    }
    answers.sort_by_key(|answer| answer.status.as_ref().map_or(u64::MAX, |status| status.node));
    Ok(answers)
}

/// The addresses of members that have not answered and were not asked.
fn unasked(answers: &[Answer], asked: &BTreeSet<String>) -> Vec<String> {
    let known: BTreeSet<_> = answers
        .iter()
        .filter_map(|answer| answer.status.as_ref())
        .map(|status| status.node)
        .collect();
    let members =
        answers.iter().filter_map(|answer| answer.status.as_ref()).flat_map(|status| &status.nodes);
    let missing =
        members.filter(|(id, member)| !known.contains(id) && !asked.contains(&member.client_addr));
    missing
        .map(|(_, member)| member.client_addr.clone())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Which member has this client address, as those that answer know it.
fn member_at(answers: &[Answer], address: &str) -> Option<u64> {
    let statuses = answers.iter().filter_map(|answer| answer.status.as_ref());
    let mut members = statuses.flat_map(|status| &status.nodes);
    members.find(|(_, member)| member.client_addr == address).map(|(id, _)| *id)
}

fn print_table(answers: &[Answer]) {
    let position = |index: Option<u64>| index.map_or_else(|| "-".into(), number);
    let mut rows = vec![COLUMNS.map(str::to_owned)];
    for answer in answers {
        let Some(status) = &answer.status else {
            let mut row = COLUMNS.map(|_| "-".to_owned());
            row[0] =
                member_at(answers, &answer.address).map_or_else(|| "-".into(), |id| id.to_string());
            row[1].clone_from(&answer.address);
            "unreachable".clone_into(&mut row[2]);
            rows.push(row);
            continue;
        };
        rows.push([
            status.node.to_string(),
            answer.address.clone(),
            status.role.clone(),
            status.leader.map_or_else(|| "-".into(), |leader| leader.to_string()),
            status.term.to_string(),
            position(status.last_log),
            position(status.committed),
            position(status.applied),
            position(status.checkpoint),
            number(status.counts.users),
            number(status.counts.conversations),
            number(status.counts.messages),
            number(status.counts.references),
        ]);
    }
    for line in aligned(&rows) {
        say!("{line}");
    }
    for status in answers.iter().filter_map(|answer| answer.status.as_ref()) {
        if let Some(digest) = &status.digest {
            say!("node {}: state {} at {}", status.node, digest.value, position(digest.applied));
        }
    }
    for answer in answers {
        if let Some(error) = &answer.error {
            note!("{} does not answer: {error}", answer.address);
        }
    }
    if let Some(difference) = difference(answers) {
        note!("{difference}");
    }
}

/// Columns as wide as their widest cell.
fn aligned<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Two nodes that applied the same entries and have different states, if there are such.
fn difference(answers: &[Answer]) -> Option<String> {
    let mut seen: BTreeMap<u64, (u64, &str)> = BTreeMap::new();
    for status in answers.iter().filter_map(|answer| answer.status.as_ref()) {
        let Some(digest) = &status.digest else { continue };
        let Some(applied) = digest.applied else { continue };
        let (node, other) = *seen.entry(applied).or_insert((status.node, &digest.value));
        if other != digest.value {
            return Some(format!(
                "nodes {node} and {} have different states at entry {applied}: one of them is corrupt",
                status.node
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(node: u64, applied: u64, digest: &str) -> Answer {
        let status = serde_json::json!({
            "node": node, "role": "follower", "leader": 1, "term": 2, "last_log": 9, "committed": 9,
            "applied": applied, "checkpoint": null, "digest": {"applied": applied, "value": digest},
            "nodes": {"1": {"client_addr": "a:1"}, "4": {"client_addr": "a:4"}},
        });
        Answer {
            address: format!("a:{node}"),
            status: serde_json::from_value(status).unwrap(),
            error: None,
        }
    }

    #[test]
    fn different_states_at_one_entry_are_noticed() {
        assert!(
            difference(&[answer(1, 9, "aa"), answer(2, 9, "bb")])
                .unwrap()
                .contains("nodes 1 and 2")
        );
        assert_eq!(difference(&[answer(1, 9, "aa"), answer(2, 9, "aa"), answer(3, 8, "cc")]), None);
    }

    #[test]
    fn members_that_nobody_asked_are_found() {
        let answers = [answer(1, 9, "aa")];
        assert_eq!(unasked(&answers, &["a:1".to_owned()].into()), ["a:4"]);
        assert!(unasked(&answers, &["a:1".to_owned(), "a:4".to_owned()].into()).is_empty());
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a", "bb"], ["ccc", "d"]].map(|row| row.map(str::to_owned));
        assert_eq!(aligned(&rows), ["a    bb", "ccc  d"]);
    }
}
