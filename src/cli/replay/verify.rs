//! After playing: waits until all nodes are equally far, compares their states, and reads every
//! queue against the ledger.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use reqwest::Method;
use roost_storage::limits::MAX_PAGE;
use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::check::{Content, Faults, QueueCheck, Seen};
use super::ledger::Ledger;
use super::progress::Progress;
use super::trace::Trace;
use crate::cli::api::{Api, ApiError, path_segment};
use crate::cli::status::{NodeStatus, ask_node};

/// Queues read at once.
const READERS: usize = 8;
/// Between two looks at the nodes.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Where the nodes came to rest.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Settled {
    /// How many nodes were asked.
    pub(crate) nodes: usize,
    /// The newest entry that all have applied.
    pub(crate) applied: u64,
    /// Their state's digest; none if they differ.
    pub(crate) digest: Option<String>,
}

/// What reading the queues gave.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Read {
    /// Queues read; one is counted for each node that it was read from.
    pub(crate) queues: u64,
    /// Queues without a gap.
    pub(crate) dense: u64,
    /// Items read.
    pub(crate) items: u64,
    /// What is wrong.
    pub(crate) faults: Faults,
}

/// Everything that a reader needs.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) api: Api,
    pub(crate) trace: Arc<Trace>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) prefix: Arc<str>,
    /// Whether each queue is read from every node, or each from one of them in turn.
    pub(crate) all_nodes: bool,
    /// How long one page may take.
    pub(crate) patience: Duration,
    pub(crate) progress: Progress,
    pub(crate) next: AtomicUsize,
}

/// Waits until all nodes have applied the same entries.
///
/// # Errors
/// They have not after `patience`; the error says where each stands.
pub(crate) async fn settle(
    addresses: &[String],
    token: &str,
    patience: Duration,
) -> anyhow::Result<Settled> {
    let apis: Vec<Api> = addresses
        .iter()
        .map(|address| Api::new(std::slice::from_ref(address), token))
        .collect::<Result<_, _>>()?;
    let deadline = Instant::now() + patience;
    loop {
        let look = Instant::now() + Duration::from_secs(5);
        let answers = join_all(apis.iter().map(|api| ask_node(api, look))).await;
        if let Some(error) = answers.iter().find_map(never_settles) {
            bail!("{error}");
        }
        let statuses: Vec<&NodeStatus> =
            answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
        if statuses.len() == apis.len()
            && let Some(settled) = settled(&statuses)
        {
            return Ok(settled);
        }
        if Instant::now() >= deadline {
            let positions = addresses.iter().zip(&answers).map(|(address, answer)| match answer {
                Ok(status) => format!("{address} is at {}", status.applied.unwrap_or(0)),
                Err(error) => error.to_string(),
            });
            bail!(
                "the nodes did not come to the same point: {}",
                positions.collect::<Vec<_>>().join(", ")
            );
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// An answer that waiting does not change.
fn never_settles(answer: &Result<NodeStatus, ApiError>) -> Option<&ApiError> {
    answer.as_ref().err().filter(|error| !matches!(error, ApiError::NoAnswer(_)))
}

/// The common point of all nodes, if they have one.
fn settled(statuses: &[&NodeStatus]) -> Option<Settled> {
    let applied = statuses.first()?.applied?;
    let at = |status: &&NodeStatus| {
        let digest = status.digest.as_ref()?;
        (status.applied == Some(applied) && digest.applied == Some(applied))
            .then(|| digest.value.clone())
    };
    let digests: Vec<String> = statuses.iter().map(at).collect::<Option<_>>()?;
    let first = digests.first()?.clone();
    let equal = digests.iter().all(|digest| *digest == first);
    Some(Settled { nodes: statuses.len(), applied, digest: equal.then_some(first) })
}

/// Reads the queues of all members.
///
/// # Errors
/// A queue could not be read: that says nothing about its content.
pub(crate) async fn read_queues(reader: Arc<Reader>) -> anyhow::Result<Read> {
    let mut tasks = JoinSet::new();
    for _ in 0..READERS {
        tasks.spawn(reader.clone().read_many());
    }
    let mut sum = Read::default();
    while let Some(finished) = tasks.join_next().await {
        let read = finished.context("a reader has stopped")??;
        sum.queues += read.queues;
        sum.dense += read.dense;
        sum.items += read.items;
        sum.faults.add(read.faults);
    }
    reader.progress.finish();
    Ok(sum)
}

impl Reader {
    async fn read_many(self: Arc<Self>) -> anyhow::Result<Read> {
        let mut sum = Read::default();
        loop {
            let user = self.next.fetch_add(1, Ordering::Relaxed);
            if user >= self.trace.users.len() {
                return Ok(sum);
            }
            if self.ledger.days_of(user as u32).is_empty() {
                continue;
            }
            let nodes = if self.all_nodes { self.api.addresses().len() } else { 1 };
            for node in 0..nodes {
                let (items, faults) = self.read_one(user as u32, user + node).await?;
                sum.queues += 1;
                sum.dense += u64::from(faults.gaps == 0);
                sum.items += items;
                sum.faults.add(faults);
            }
        }
    }

    /// Reads one queue to its end, page by page.
    async fn read_one(&self, user: u32, node: usize) -> anyhow::Result<(u64, Faults)> {
        let name = &self.trace.users[user as usize];
        let mut check = QueueCheck::new(&self.trace, &self.ledger, &self.prefix, user);
        let mut after = 0;
        loop {
            let path =
                format!("/v1/users/{}/queue?after={after}&limit={MAX_PAGE}", path_segment(name));
            let answer =
                self.api.call(node, Method::GET, &path, None, Instant::now() + self.patience).await;
            let answer = answer.with_context(|| format!("the queue of {name} cannot be read"))?;
            let page: QueuePage<'_> = self.api.decode(&answer)?;
            for item in &page.items {
                check.item(item.seen());
            }
            self.progress.add(page.items.len() as u64);
            match page.items.last() {
                Some(last) if page.more && last.seq > after => after = last.seq,
                _ if page.more => {
                    bail!("the queue of {name} has more after {after}, but no page shows it")
                }
                _ => return Ok(check.finish(page.head, page.tail)),
            }
        }
    }
}

/// A page of a queue, borrowing its texts from the answer.
#[derive(Deserialize)]
struct QueuePage<'a> {
    #[serde(borrow)]
    items: Vec<QueueItem<'a>>,
    head: u64,
    tail: u64,
    more: bool,
}

#[derive(Deserialize)]
struct QueueItem<'a> {
    seq: u64,
    #[serde(borrow)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    conversation: Option<Text<'a>>,
    #[serde(borrow, default)]
    message: Option<QueueMessage<'a>>,
    #[serde(borrow, default)]
    user: Option<Text<'a>>,
    #[serde(borrow, default)]
    change: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct QueueMessage<'a> {
    seq: u64,
    #[serde(borrow)]
    sender: Text<'a>,
    #[serde(borrow, default)]
    body: Option<Text<'a>>,
    #[serde(borrow, default)]
    client_id: Option<Text<'a>>,
}

impl QueueItem<'_> {
    fn seen(&self) -> Seen<'_> {
        let conversation = self.conversation.as_ref().map(Text::as_str);
        let content =
            match (self.kind.as_str(), conversation, &self.message, &self.user, &self.change) {
                ("message", Some(conversation), Some(message), _, _) => Content::Message {
                    conversation,
                    seq: message.seq,
                    sender: message.sender.as_str(),
                    body: message.body.as_ref().map_or("", Text::as_str),
                    client_id: message.client_id.as_ref().map_or("", Text::as_str),
                },
                ("member", Some(conversation), _, Some(user), Some(change))
                    if change.as_str() == "joined" =>
                {
                    Content::Joined { conversation, user: user.as_str() }
                }
                (_, conversation, ..) => Content::Other { conversation },
            };
        Seen { seq: self.seq, content }
    }
}

/// A text that is borrowed unless it had escapes. (`Option<Cow<str>>` always copies.)
struct Text<'a>(Cow<'a, str>);

impl Text<'_> {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("text")
            }
            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_the_protocol_writes_it() {
        let json = r#"{"items":[
            {"seq":1,"kind":"member","conversation":"g-0-1","user":"u1","change":"joined"},
            {"seq":2,"kind":"message","conversation":"g-0-1","message":{"seq":1,"sender":"u1","at_ms":7,"body":"a\nb","client_id":"p-1"}},
            {"seq":3,"kind":"expired"}],"head":1,"tail":3,"more":false,"applied":9}"#;
        let page: QueuePage<'_> = serde_json::from_str(json).unwrap();
        let seen: Vec<_> = page.items.iter().map(QueueItem::seen).collect();
        assert!(matches!(seen[0].content, Content::Joined { conversation: "g-0-1", user: "u1" }));
        assert!(matches!(
            seen[1].content,
            Content::Message { body: "a\nb", seq: 1, client_id: "p-1", .. }
        ));
        assert!(matches!(seen[2].content, Content::Other { conversation: None }));
    }

    fn status(applied: u64, at: u64, digest: &str) -> NodeStatus {
        serde_json::from_value(serde_json::json!({
            "node": 1, "role": "follower", "leader": 1, "term": 1, "last_log": 1, "committed": 1,
            "applied": applied, "checkpoint": 1, "digest": {"applied": at, "value": digest},
        }))
        .unwrap()
    }

    #[test]
    fn nodes_have_settled_when_all_are_at_one_point_equal_or_not() {
        let of = |statuses: &[NodeStatus]| settled(&statuses.iter().collect::<Vec<_>>());
        assert!(of(&[status(9, 9, "a"), status(8, 8, "b")]).is_none());
        assert!(of(&[status(9, 9, "a"), status(9, 8, "b")]).is_none());
        assert_eq!(of(&[status(9, 9, "a"), status(9, 9, "a")]).unwrap().digest.unwrap(), "a");
        assert_eq!(of(&[status(9, 9, "a"), status(9, 9, "b")]).unwrap().digest, None);
    }
}
