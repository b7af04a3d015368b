//! Plays the trace into the cluster: any number of senders, each with one day at a time.
//!
//! A day's messages go out one after the other, each after the one before was acknowledged, on
//! behalf of whoever says them; several days are under way at once. Client ids follow from the file
//! and the line, so a repetition — after a time-out, on another node, or by a whole new replay — is
//! stored once. A message that no node acknowledges in time ends the replay.
//!
//! The administrators' HTTP is used rather than a connection for each user: a trace has thousands of
//! speakers with a few words each, and connecting would be most of the work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use reqwest::Method;
use roost_storage::limits::MAX_MEMBERS_PER_COMMAND;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::ledger::{Acknowledged, Page};
use super::progress::Progress;
use super::trace::{Day, Trace};
use crate::cli::api::{Api, NewMessage, messages_path, path_segment};

/// Members named when a group is made; its owner counts as well.
const FIRST_MEMBERS: usize = MAX_MEMBERS_PER_COMMAND - 1;

/// What to play, and how.
#[derive(Debug)]
pub(crate) struct Player {
    /// Where to.
    pub(crate) api: Api,
    /// What.
    pub(crate) trace: Arc<Trace>,
    /// What client ids begin with.
    pub(crate) prefix: Arc<str>,
    /// How many times faster than the trace's clock; at full speed without.
    pub(crate) speed: Option<f64>,
    /// How long a message may go without an acknowledgement.
    pub(crate) give_up: Duration,
    /// When the replay began.
    pub(crate) started: Instant,
    /// Counts messages.
    pub(crate) progress: Progress,
    /// The days, in the order in which they are begun.
    pub(crate) order: Vec<usize>,
    /// The next day to begin, as an index into `order`.
    pub(crate) next: AtomicUsize,
    /// Attempts beyond each message's first.
    pub(crate) retries: AtomicU64,
    /// Messages that were there before this replay, or before a repetition.
    pub(crate) known: AtomicU64,
}

/// What playing gave.
#[derive(Debug)]
pub(crate) struct Played {
    /// A page for each day, in the trace's order.
    pub(crate) pages: Vec<Page>,
    /// From first sending to acknowledgement, in microseconds, ascending.
    pub(crate) latencies_us: Vec<u32>,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

#[derive(Serialize)]
struct NewGroup<'a> {
    owner: &'a str,
    kind: &'static str,
    members: Vec<&'a str>,
    name: &'a str,
    client_id: String,
}

#[derive(Deserialize)]
struct Created {
    conversation: String,
}

#[derive(Deserialize)]
struct Sent {
    seq: u64,
    duplicate: bool,
}

/// The days' order: the longest first, so that none is left over at the end; with a clock, as they
/// come.
pub(crate) fn order(trace: &Trace, speed: Option<f64>) -> Vec<usize> {
    let mut order: Vec<_> = (0..trace.days.len()).collect();
    if speed.is_none() {
        order.sort_by_key(|day| std::cmp::Reverse(trace.days[*day].says.len()));
    }
    order
}

/// Plays everything with so many senders.
///
/// # Errors
/// A node refused something, or none answered until the player gave up.
pub(crate) async fn play(player: &Arc<Player>, senders: usize) -> anyhow::Result<Played> {
    let mut tasks = JoinSet::new();
    for sender in 0..senders.min(player.trace.days.len()) {
        tasks.spawn(player.clone().send_days(sender));
    }
    let mut pages = vec![Page::default(); player.trace.days.len()];
    let mut latencies_us = Vec::with_capacity(player.trace.messages());
    while let Some(finished) = tasks.join_next().await {
        let (sent, latencies) = finished.context("a sender has stopped")??;
        latencies_us.extend(latencies);
        for (day, page) in sent {
            pages[day] = page;
        }
    }
    player.progress.finish();
    latencies_us.sort_unstable();
    Ok(Played { pages, latencies_us, elapsed: player.started.elapsed() })
}

/// The pages that a complete, earlier replay must have left: makes (or finds) the groups only.
///
/// # Errors
/// As [`play`].
pub(crate) async fn expect_all(player: &Player) -> anyhow::Result<Vec<Page>> {
    let mut pages = Vec::with_capacity(player.trace.days.len());
    for (index, day) in player.trace.days.iter().enumerate() {
        let conversation = player.create(0, index).await?;
        let entry = |say: u32| Acknowledged {
            seq: u64::from(say) + 1,
            say,
            started_us: 0,
            acknowledged_us: u64::MAX,
        };
        let acknowledged = (0..day.says.len() as u32).map(entry).collect();
        pages.push(Page { conversation, acknowledged });
        player.progress.add(day.says.len() as u64);
    }
    player.progress.finish();
    Ok(pages)
}

impl Player {
    /// One sender: takes day after day until none is left.
    async fn send_days(
        self: Arc<Self>,
        sender: usize,
    ) -> anyhow::Result<(Vec<(usize, Page)>, Vec<u32>)> {
        let (mut pages, mut latencies) = (Vec::new(), Vec::new());
        // Which node this sender speaks to; another one when that fails.
        let mut node = sender;
        while let Some(day) = self.order.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let conversation = self.create(node, *day).await?;
            let page = self.send_day(&mut node, *day, conversation, &mut latencies).await?;
            pages.push((*day, page));
        }
        Ok((pages, latencies))
    }

    async fn send_day(
        &self,
        node: &mut usize,
        day: usize,
        conversation: String,
        latencies_us: &mut Vec<u32>,
    ) -> anyhow::Result<Page> {
        let says = &self.trace.days[day].says;
        let path = messages_path(&conversation);
        let begun = Instant::now();
        let mut acknowledged = Vec::with_capacity(says.len());
        for (index, say) in says.iter().enumerate() {
            if let Some(speed) = self.speed {
                sleep_until(begun + Duration::from_secs_f64(f64::from(say.minute) * 60.0 / speed))
                    .await;
            }
            let client_id = format!("{}-{}", self.prefix, say.line);
            let sender = &self.trace.users[say.user as usize];
            let json =
                json(&NewMessage { sender, client_id: &client_id, body: self.trace.text(say) })?;
            let started = Instant::now();
            let answer =
                self.api.call(*node, Method::POST, &path, Some(json), started + self.give_up).await;
            let answer =
                answer.with_context(|| format!("line {} was not acknowledged", say.line))?;
            let sent: Sent = self.api.decode(&answer)?;
            let latency = started.elapsed();

            *node = answer.node;
            latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
            self.retries.fetch_add(u64::from(answer.attempts - 1), Ordering::Relaxed);
            self.known.fetch_add(u64::from(sent.duplicate), Ordering::Relaxed);
            self.progress.add(1);
            // A duplicate may have been stored by an earlier replay, at any time before.
            let started_us = if sent.duplicate { 0 } else { self.micros(started) };
            let acknowledged_us = self.micros(started + latency);
            acknowledged.push(Acknowledged {
                seq: sent.seq,
                say: index as u32,
                started_us,
                acknowledged_us,
            });
        }
        Ok(Page { conversation, acknowledged })
    }

    /// Makes a day's group, or finds it if an earlier replay made it.
    async fn create(&self, node: usize, index: usize) -> anyhow::Result<String> {
        let day = &self.trace.days[index];
        let created = self.create_group(node, index, day).await;
        created.with_context(|| format!("the group of {} was not made", day.name))
    }

    async fn create_group(&self, node: usize, index: usize, day: &Day) -> anyhow::Result<String> {
        let mut names = day.members.iter().map(|user| self.trace.users[*user as usize].as_str());
        let owner = names.next().context("a day without speakers")?;
        let group = NewGroup {
            owner,
            kind: "group",
            members: names.by_ref().take(FIRST_MEMBERS).collect(),
            name: &day.name,
            client_id: format!("{}-day-{index}", self.prefix),
        };
        let deadline = Instant::now() + self.give_up;
        let path = "/v1/conversations";
        let created: Created =
            self.api.ask(node, Method::POST, path, Some(json(&group)?), deadline).await?;
        for name in names {
            let conversation = path_segment(&created.conversation);
            let path = format!("/v1/conversations/{conversation}/members/{}", path_segment(name));
            self.api.call(node, Method::PUT, &path, None, deadline).await?;
        }
        Ok(created.conversation)
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }
}

fn json(value: &impl Serialize) -> anyhow::Result<Bytes> {
    Ok(serde_json::to_vec(value)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_full_speed_the_longest_day_begins_first() {
        let text = "a\t00:00\tsay\tu\t1\nb\t00:00\tsay\tu\t2\nb\t00:00\tsay\tu\t3\n";
        let trace = Trace::parse(text.as_bytes(), 9).unwrap();
        assert_eq!(order(&trace, None), [1, 0]);
        assert_eq!(order(&trace, Some(1.0)), [0, 1]);
    }
}
