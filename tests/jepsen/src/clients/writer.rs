//! A client that sends into groups and to other users, repeats what it does not know the outcome of,
//! and reads on whichever node it is.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use roost_client::protocol::Target;

use super::session::{SendEnd, Session};
use super::{Shared, User};

/// Sends whose outcome is unknown are repeated as often; then they stay unknown.
const REPETITIONS: usize = 20;

/// A send that may be made again.
#[derive(Clone)]
struct Draft {
    target: Target,
    client_id: String,
    body: String,
}

pub(crate) async fn run(shared: Arc<Shared>, user: User, process: u64, rng: StdRng) {
    let mut session = Session::new(shared, user, process, "writer", rng);
    let mut sent: Vec<Draft> = Vec::new();
    let mut read_to = 0;
    while session.shared.goes_on() {
        let think = session.shared.think.mul_f64(session.rng.random_range(0.2..1.8));
        tokio::time::sleep(think).await;
        if session.connection.is_none() || session.rng.random_bool(0.01) {
            let nodes = session.shared.cluster.numbers();
            let node = nodes[session.rng.random_range(0..nodes.len())];
            session.connection = None;
            if session.connect(node, None, None, 0).await.is_none() {
                continue;
            }
        }
        match session.rng.random_range(0..100) {
            0..60 => {
                let draft = draft(&mut session, sent.len());
                deliver(&mut session, &draft).await;
                sent.push(draft);
            }
            60..64 if !sent.is_empty() => repeat(&mut session, &sent).await,
            64..92 => read_to = read(&mut session, read_to).await,
            _ => {
                let groups = session.shared.groups.clone();
                let name = session.user.name.clone();
                let own = groups.iter().filter(|group| group.members.contains(&name));
                if let Some(group) = own.collect::<Vec<_>>().choose(&mut session.rng) {
                    let after = session.rng.random_range(0..200);
                    session.history(&group.id, after).await;
                }
            }
        }
    }
}

fn draft(session: &mut Session, number: usize) -> Draft {
    let shared = session.shared.clone();
    let name = &session.user.name;
    let own: Vec<_> = shared.groups.iter().filter(|group| group.members.contains(name)).collect();
    let others: Vec<_> = shared.users.iter().filter(|user| user.name != *name).collect();
    let group =
        own.choose(&mut session.rng).filter(|_| others.is_empty() || !number.is_multiple_of(3));
    let target = match (group, others.choose(&mut session.rng)) {
        (Some(group), _) => Target::Conversation(group.id.as_str().into()),
        (None, Some(other)) => Target::User(other.name.as_str().into()),
        (None, None) => Target::User(name.as_str().into()),
    };
    let client_id = format!("w{number}");
    // One in five is long, so that frames and records differ in size and checkpoints come often.
    let filling = if session.rng.random_bool(0.2) { 12_000 } else { 0 };
    let body = format!("{name} {client_id} {}", "x".repeat(filling));
    Draft { target, client_id, body }
}

/// Sends until the outcome is known, on any node, for a while.
async fn deliver(session: &mut Session, draft: &Draft) {
    for _ in 0..REPETITIONS {
        if !session.shared.goes_on() {
            return;
        }
        if session.connection.is_none() {
            let nodes = session.shared.cluster.numbers();
            let node = nodes[session.rng.random_range(0..nodes.len())];
            if session.connect(node, None, None, 0).await.is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        }
        match session.send(draft.target.clone(), &draft.client_id, &draft.body).await {
            SendEnd::Stored | SendEnd::Failed => return,
            SendEnd::Unknown => {}
        }
    }
}

/// Sends an old one once more: the same, or another body under its name.
async fn repeat(session: &mut Session, sent: &[Draft]) {
    let newest = &sent[sent.len().saturating_sub(50)..];
    let Some(draft) = newest.choose(&mut session.rng).cloned() else { return };
    let body = match session.rng.random_bool(0.3) {
        true => format!("another {}", draft.body),
        false => draft.body.clone(),
    };
    // Every end of it is in the history.
    let _ = session.send(draft.target, &draft.client_id, &body).await;
}

/// Reads on, or now and then somewhere else.
async fn read(session: &mut Session, read_to: u64) -> u64 {
    let jump = session.rng.random_bool(0.1);
    let after = if jump { session.rng.random_range(0..=read_to) } else { read_to };
    let linearizable = session.rng.random_bool(0.3);
    match session.pull(after, linearizable).await {
        Some(items) if !jump => items.last().map_or(read_to, |item| item.seq),
        _ => read_to,
    }
}
