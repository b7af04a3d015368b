//! After the faults: everything comes to stand, and every node is read whole.

use std::sync::Arc;

use anyhow::Context as _;
use roost_checker::{Answer, Op};
use roost_client::protocol::Item;
use roost_client::protocol::Message;
use roost_client::protocol::request::History;
use roost_client::{Calls as _, Connection, Transport};
use serde_json::Value;

use crate::clients::Shared;
use crate::recorder::{brief_items, brief_messages};

/// Who reads, in the history.
const READER: u64 = 20_000;

/// Waits for a standstill, then reads all queues and conversations on every node.
pub(crate) async fn read_everything(
    shared: &Arc<Shared>,
    everybody: &[String],
) -> anyhow::Result<()> {
    shared.cluster.launch_all().await?;
    shared.cluster.await_standstill().await?;
    for node in shared.cluster.numbers() {
        for user in everybody {
            read_queue(shared, node, user).await.with_context(|| format!("reading {user}"))?;
        }
        read_groups(shared, node).await?;
        read_status(shared, node).await?;
    }
    // What is read above may be right by what a node has in memory.
    shared.cluster.restart_verifying().await.context("over stores that are counted anew")
}

async fn read_queue(shared: &Shared, node: u64, user: &str) -> anyhow::Result<()> {
    let mut after = 0;
    loop {
        let op = Op::Pull {
            user: user.to_owned(),
            after,
            linearizable: false,
            applied: None,
            last: true,
        };
        let ticket = shared.recorder.invoke(READER, node, op);
        let path = format!("/v1/users/{user}/queue?after={after}&limit=500&local=true");
        let mut page = shared.cluster.get(node, &path).await?;
        let mut items: Vec<Item> = serde_json::from_value(page["items"].take())?;
        let more = page["more"].as_bool().context("a page says whether there is more")?;
        brief_items(&mut items);
        let last = items.last().map(|item| item.seq);
        let answer = Answer::Items {
            items,
            head: number(&page["head"])?,
            tail: number(&page["tail"])?,
            more,
            applied: number(&page["applied"])?,
        };
        shared.recorder.ok(ticket, answer);
        match last {
            Some(last) if more => after = last,
            _ => return Ok(()),
        }
    }
}

/// Each group, as its first member sees it on this node.
async fn read_groups(shared: &Shared, node: u64) -> anyhow::Result<()> {
    for group in &shared.groups {
        let reader = shared.users.iter().find(|user| user.name == group.members[0]);
        let reader = reader.context("a group's members are users")?;
        let options = shared.cluster.options(node, Transport::Quic, &reader.token, "last")?;
        let (connection, _pushes) = Connection::open(&options).await?;
        let mut after = 0;
        loop {
            let op = Op::History {
                user: reader.name.clone(),
                conversation: group.id.clone(),
                after,
                last: true,
            };
            let ticket = shared.recorder.invoke(READER, node, op);
            let request = History {
                conversation: group.id.as_str().into(),
                before: None,
                after: Some(after),
                limit: Some(500),
                applied: None,
            };
            let mut page = connection.history(request).await?;
            brief_messages(page.messages.iter_mut());
            let last = page.messages.last().map(|message: &Message| message.seq);
            let more = page.more;
            shared.recorder.ok(ticket, Answer::Messages { messages: page.messages, more });
            match last {
                Some(last) if more => after = last,
                _ => break,
            }
        }
    }
    Ok(())
}

async fn read_status(shared: &Shared, node: u64) -> anyhow::Result<()> {
    let ticket = shared.recorder.invoke(READER, node, Op::Status {});
    let status = shared.cluster.status(node).await.context("a node without a status")?;
    let counts = &status["counts"];
    let answer = Answer::Status {
        applied: number(&status["digest"]["applied"])?,
        digest: status["digest"]["value"].as_str().context("a digest is text")?.to_owned(),
        users: number(&counts["users"])?,
        conversations: number(&counts["conversations"])?,
        messages: number(&counts["messages"])?,
        references: number(&counts["references"])?,
    };
    shared.recorder.ok(ticket, answer);
    Ok(())
}

fn number(value: &Value) -> anyhow::Result<u64> {
    value.as_u64().with_context(|| format!("{value} is no number"))
}
