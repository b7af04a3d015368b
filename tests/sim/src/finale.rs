//! The end of a run: faults are over, so the cluster must serve, agree, and hold everything.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roost_checker::history::{Answer, Op};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::client::Client;
use crate::net::Place;
use crate::random::Random;
use crate::record::Caller;
use crate::world::World;

/// By when after the last fault every node must have carried out a write, in milliseconds.
const SERVE_MS: u64 = 12_000;
/// By when all nodes must have the same state, in milliseconds.
const AGREE_MS: u64 = 20_000;
/// By when what was sent must be pushed.
const PUSH: Duration = Duration::from_secs(7);
/// By when clients must have stopped, in milliseconds.
const STOP_MS: u64 = 40_000;
/// Processes that probe and read at the end are numbered from here.
const PROBES: u64 = 1_000;
const READERS: u64 = 2_000;

/// Lets faults end, and checks what must then hold. Broken rules are in the trace.
pub(crate) fn finish(world: &mut World, seed: u64) {
    world.heal();
    world.stop_clients();
    let random = Random::new(seed).fork("finale");
    serve(world, &random);
    if world.trace.violation().is_none() {
        wait(world, STOP_MS, "clients did not stop", World::clients_stopped);
    }
    if world.trace.violation().is_none() {
        wait(world, AGREE_MS, "nodes did not agree", World::nodes_agree);
    }
    if world.trace.violation().is_none() {
        read_everything(world, &random);
    }
}

/// Turns until it is so; a violation if that takes too long.
fn wait(world: &mut World, limit_ms: u64, what: &str, mut done: impl FnMut(&World) -> bool) {
    let until = world.now_ms + limit_ms;
    while !done(world) && world.trace.violation().is_none() {
        if world.now_ms >= until {
            let nodes = world.describe_nodes();
            world.trace.violate("liveness", format!("{what} within {limit_ms} ms: {nodes}"));
            return;
        }
        world.turn();
    }
}

/// Every node that can run must carry out a write in time.
fn serve(world: &mut World, random: &Random) {
    let served: Arc<Mutex<BTreeSet<Place>>> = Arc::default();
    for node in world.able_nodes() {
        let client = world.visitor(PROBES + node, 0, random);
        world.client_runtime.spawn(probe(client, node, served.clone()));
    }
    wait(world, SERVE_MS, "not every node carried out a write", |world| {
        // A node may find only now that its disk is damaged.
        let served = served.lock();
        world.able_nodes().iter().all(|node| served.contains(node))
    });
}

async fn probe(mut client: Client, node: Place, served: Arc<Mutex<BTreeSet<Place>>>) {
    let who = Caller { process: PROBES + node, node };
    client.only_new = true;
    loop {
        // To learn where the queue ends.
        if let Some(connection) = client.connect(node).await {
            connection.leave(false);
        }
        if let Some(mut connection) = client.connect(node).await {
            let sent = client.send(&mut connection, who).await;
            // What it sent is in its own queue too, and must be pushed, by a hint or by a look.
            let until = Instant::now() + PUSH;
            let pushed = sent && client.is_settled() && connection.pushed(until).await;
            connection.leave(false);
            if pushed {
                break;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    served.lock().insert(node);
}

/// Reads every queue on every node, and counts every store.
fn read_everything(world: &mut World, random: &Random) {
    let nodes = world.able_nodes();
    let mut readers: Vec<JoinHandle<()>> = Vec::new();
    for &node in &nodes {
        for user in 0..world.clients.users.len() {
            let process = READERS + node * 100 + user as u64;
            let client = world.visitor(process, user, random);
            readers.push(world.client_runtime.spawn(read_queue(client, node, process)));
        }
    }
    wait(world, STOP_MS, "not every queue could be read", |_| {
        readers.iter().all(JoinHandle::is_finished)
    });
    for node in nodes {
        status(world, node);
    }
}

async fn read_queue(mut client: Client, node: Place, process: u64) {
    let who = Caller { process, node };
    'again: loop {
        let Some(mut connection) = client.connect(node).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let mut after = 0;
        loop {
            match client.page(&mut connection, who, after, Some(200), true, true).await {
                Some((newest, true)) if newest > after => after = newest,
                Some((_, false)) => break 'again connection.leave(false),
                _ => {
                    connection.leave(false);
                    continue 'again;
                }
            }
        }
    }
}

/// What a node counts, and a count of everything that it has.
fn status(world: &World, id: Place) {
    let Some(running) = world.running(id) else { return };
    let (store, counts) = (&running.store, running.store.counts());
    let (position, digest) = store.digest();
    let answer = Answer::Status {
        applied: position.map_or(0, |position| position.index),
        digest: digest.to_string(),
        users: counts.users,
        conversations: counts.conversations,
        messages: counts.messages,
        references: counts.references,
    };
    world.record.note(Caller { process: READERS, node: id }, Op::Status {}, answer);
    match store.recount() {
        Ok(counted) if counted == (position, digest, counts) => {}
        Ok((_, found, recounted)) => {
            let what =
                format!("node {id} holds {recounted:?} {found} and counts {counts:?} {digest}");
            world.trace.violate("counts", what);
        }
        Err(fault) => world.trace.violate("counts", format!("node {id}: {fault}")),
    }
}
