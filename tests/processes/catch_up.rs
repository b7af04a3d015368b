//! A node that was away for longer than the log reaches back.

use roost_client::Calls as _;

use crate::harness::{Cluster, Sender, body_of, connected, eventually};

/// Entries kept behind a checkpoint: few, so that the log is purged soon.
const KEEP: &str = "50";
/// The smallest bound there is, so that checkpoints come soon.
const DIRTY: &str = "16MiB";
const BODY_BYTES: usize = 60 * 1024;

#[test]
fn a_follower_away_past_the_logs_purge_catches_up_by_a_snapshot() {
    let mut cluster = Cluster::start(3, &["--log-keep-entries", KEEP, "--dirty-bytes", DIRTY]);
    let mut alice = Sender::new(&cluster, "alice");
    alice.send(&cluster, "bob", "before");
    let leader = cluster.leader();
    let away = (leader + 1) % 3;
    let held = cluster.status(away).expect("the follower runs")["last_log"].as_u64().unwrap_or(0);
    cluster.kill(away);

    let body = "x".repeat(BODY_BYTES);
    let mut sent = 1;
    eventually("the log is purged past what the follower holds", || {
        for _ in 0..20 {
            alice.send(&cluster, "bob", &body);
            sent += 1;
        }
        let purged = cluster.status(leader)?["purged"].as_u64()?;
        (purged > held + 1).then_some(())
    });
    cluster.restart(away);
    cluster.await_ready(away);
    alice.send(&cluster, "bob", "after");
    sent += 1;

    cluster.await_equal_states();
    // Read where it was missing, without asking the others.
    let mut options = cluster.options(away, "bob", "reader");
    options.window = Some(0);
    let bodies = cluster.run(async {
        let (bob, _pushes) = connected(&options).await;
        let (mut bodies, mut after) = (Vec::new(), 0);
        loop {
            let page = bob.pull(after, Some(100)).await.unwrap();
            after += page.items.len() as u64;
            bodies.extend(page.items.iter().filter_map(body_of));
            if !page.more {
                return bodies;
            }
        }
    });
    assert_eq!(bodies.len(), sent);
    assert_eq!((bodies[0].as_str(), bodies[sent - 1].as_str()), ("before", "after"));
    assert!(bodies[1..sent - 1].iter().all(|text| *text == body));
}
