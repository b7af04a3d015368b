//! Before anything is measured: sessions are opened and conversations are made, many at a time.
//!
//! A group is made by `create_conversation`. A conversation of two comes to be by its first
//! message. Both have client ids that are the same in each run: what an earlier run has made is
//! found, not made again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use roost_client::protocol::request::{CreateConversation, SendMessage};
use roost_client::protocol::{CompactString, ConversationKind, OkBody, Operation, Target};

use super::progress::Progress;
use super::session::{Nodes, Seat, Session};
use super::tally::Counters;
use super::workload::{Workload, user_name};

/// Connections opened at once.
const OPENING: usize = 32;
/// Conversations made at once, over all sessions.
const MAKING: usize = 1_024;
/// How long one conversation may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Opens sessions of users `0..count` without pushes, in turn at each node.
///
/// # Errors
/// A node refuses, or does not answer.
pub(crate) async fn open_sessions(
    nodes: &Arc<Nodes>,
    count: usize,
    device: &'static str,
) -> anyhow::Result<Vec<Arc<Session>>> {
    let opening = (0..count).map(|user| async move {
        let seat = Seat { user, device, node: user, window: 0 };
        let (session, _pushes) = Session::open(nodes, seat).await?;
        Ok::<_, anyhow::Error>(Arc::new(session))
    });
    stream::iter(opening).buffered(OPENING).try_collect().await
}

/// Makes all conversations of the plan, or finds them.
///
/// # Errors
/// A node refuses, or none answers in time.
pub(crate) async fn make_conversations(
    plan: &mut Workload,
    sessions: &[Arc<Session>],
) -> anyhow::Result<()> {
    let counters = Arc::new(Counters::default());
    let _progress = Progress::start("making conversations", counters.clone());
    let mut kinds = std::mem::take(&mut plan.kinds);
    for kind in &mut kinds {
        let size = kind.size;
        let making = (0..kind.ids.len()).map(|index| {
            let (session, counters) = (&sessions[index % sessions.len()], &counters);
            let request = creation(plan, size, index);
            async move {
                let id = make(session, &request).await?;
                counters.done();
                Ok::<_, anyhow::Error>((index, id))
            }
        });
        let mut made = stream::iter(making).buffer_unordered(MAKING);
        while let Some((index, id)) = made.try_next().await? {
            kind.ids[index] = id;
        }
    }
    plan.kinds = kinds;
    Ok(())
}

/// The request that makes a conversation.
fn creation(plan: &Workload, size: usize, index: usize) -> Operation {
    let members = plan.members(size, index);
    let client_id = plan.creation_id(size, index);
    if size == 2 {
        return Operation::Send(SendMessage {
            target: Target::User(user_name(members[1])),
            client_id,
            body: "bench".into(),
            content_type: None,
            ttl_ms: None,
        });
    }
    group_of(&members[1..], client_id)
}

/// The request that makes a group with these others in it.
pub(crate) fn group_of(others: &[usize], client_id: CompactString) -> Operation {
    Operation::CreateConversation(CreateConversation {
        kind: ConversationKind::Group,
        members: others.iter().map(|user| user_name(*user)).collect(),
        name: None,
        retention: None,
        client_id,
    })
}

/// Makes a conversation, or finds it; its id.
///
/// # Errors
/// A node refuses, or none answers in time.
pub(crate) async fn make(session: &Session, request: &Operation) -> anyhow::Result<CompactString> {
    let answer = session.insist(request, PATIENCE).await;
    match answer.context("a conversation could not be made")? {
        OkBody::Sent(sent) => Ok(sent.conversation),
        OkBody::Created(created) => Ok(created.conversation),
        _ => bail!("a conversation could not be made: an answer to another operation"),
    }
}
