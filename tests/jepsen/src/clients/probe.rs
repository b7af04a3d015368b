//! A sender at each node that finds out when the node can write: one small send after the other,
//! with short patience.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use roost_client::Transport;
use roost_client::protocol::Target;
use tokio::time::Instant;

use super::session::{SendEnd, Session};
use super::{SINK, Shared, User};

/// The time between two probes of a node.
const EVERY: Duration = Duration::from_millis(50);
/// How long one probe waits.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// The probes' processes are numbered from here.
const PROCESSES: u64 = 10_000;

/// When each node acknowledged probes: (node, begun, ended).
#[derive(Default)]
pub(crate) struct Probes(Mutex<Vec<(u64, Instant, Instant)>>);

impl Probes {
    /// When the first probe at one of these nodes that began after `since` was acknowledged.
    pub(crate) fn first_after(&self, nodes: &[u64], since: Instant) -> Option<Instant> {
        let all = self.0.lock();
        let newest = all.iter().rev().take_while(|(_, _, ended)| *ended >= since);
        newest
            .filter(|(node, begun, _)| nodes.contains(node) && *begun >= since)
            .map(|(_, _, ended)| *ended)
            .min()
    }
}

pub(crate) async fn run(shared: Arc<Shared>, probes: Arc<Probes>, user: User, node: u64) {
    let rng = StdRng::seed_from_u64(node);
    let mut session = Session::new(shared, user, PROCESSES + node, "probe", rng);
    let mut number = 0_u64;
    while session.shared.goes_on() {
        tokio::time::sleep(EVERY).await;
        if session.connection.is_none() {
            let transport = Some(Transport::WebSocketJson);
            let connecting = session.connect(node, transport, None, 0);
            if connecting.await.is_none() {
                continue;
            }
        }
        let begun = Instant::now();
        let client_id = format!("p{number}");
        let body = format!("probe {number} at node {node}");
        let sending = session.send(Target::User(SINK.into()), &client_id, &body);
        match tokio::time::timeout(PATIENCE, sending).await {
            Ok(SendEnd::Stored) => probes.0.lock().push((node, begun, Instant::now())),
            Ok(SendEnd::Failed) => {}
            // Left as it is: the call stays open in the history, which says unknown.
            Ok(SendEnd::Unknown) | Err(_) => session.connection = None,
        }
        number += 1;
    }
}
