//! A device that is pushed to: it acknowledges now and then, and moves from node to node.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use rand::rngs::StdRng;
use roost_checker::{Answer, Op};
use roost_client::protocol::Push;
use tokio::time::Instant;

use super::session::Session;
use super::{Shared, User};
use crate::recorder::brief_items;

/// Items that may come ahead of the acknowledged one.
const WINDOW: u32 = 64;

pub(crate) async fn run(shared: Arc<Shared>, user: User, process: u64, rng: StdRng) {
    let mut session = Session::new(shared, user, process, "phone", rng);
    let mut newest = 0;
    while session.shared.goes_on() {
        let nodes = session.shared.cluster.numbers();
        let node = nodes[session.rng.random_range(0..nodes.len())];
        // Mostly from the cursor, sometimes from where the device says it is.
        let after = session.rng.random_bool(0.3).then_some(newest);
        let Some((connection, cursor, mut pushes)) =
            session.connect(node, None, after, WINDOW).await
        else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut acknowledged = cursor;
        let leave = Instant::now() + Duration::from_secs_f64(session.rng.random_range(1.0..8.0));
        while session.shared.goes_on() && Instant::now() < leave && session.connection.is_some() {
            match tokio::time::timeout(Duration::from_millis(200), pushes.next()).await {
                Ok(Some(Push::Items(mut push))) => {
                    brief_items(&mut push.items);
                    let last = push.items.last().map_or(newest, |item| item.seq);
                    let op = Op::Push { user: session.user.name.clone(), connection };
                    let answer = Answer::Items {
                        items: push.items,
                        head: 0,
                        tail: push.tail,
                        more: false,
                        applied: 0,
                    };
                    session.shared.recorder.event(session.process, node, op, answer);
                    newest = newest.max(last);
                    if last > acknowledged && session.rng.random_bool(0.3) {
                        acknowledged = session.rng.random_range(acknowledged + 1..=last);
                        session.ack(acknowledged).await;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                // Silence: what is open is acknowledged, so that the window opens.
                Err(_) if newest > acknowledged => {
                    acknowledged = newest;
                    session.ack(acknowledged).await;
                }
                Err(_) => {}
            }
        }
        session.connection = None;
    }
}
