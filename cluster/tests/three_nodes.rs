//! Three nodes over loopback: any node takes any command, a leader's death is survived, and a
//! wiped node is not let back in.

#![expect(clippy::unwrap_used, reason = "a failed helper is a failed test")]

mod common;

use common::{Place, Town, send, soon, until, user};
use roost_cluster::{ClaimTime, Cluster, SubmitError};
use roost_storage::command::Reply;
use roost_storage::model::DeviceId;

fn leader(nodes: &[&Cluster]) -> Option<usize> {
    nodes.iter().position(|node| node.status().role == "leader")
}

async fn tail(node: &Cluster, name: &str) -> u64 {
    node.read_barrier(soon()).await.unwrap();
    node.store().queue_bounds(&user(name)).unwrap().tail
}

#[tokio::test(flavor = "multi_thread")]
async fn every_node_takes_commands_and_shows_what_was_acknowledged_elsewhere() {
    let (town, places) = (Town::new(3), Place::three());
    let [(one, seen_one), (two, seen_two), (three, seen_three)] = town.start_three(&places).await;

    for (n, node) in [&one, &two, &three].into_iter().enumerate() {
        let sent = node.submit(send("alice", "bob", &format!("m{n}")), soon()).await.unwrap();
        assert!(
            matches!(sent.reply, Reply::Sent { seq, duplicate: false, .. } if seq == n as u64 + 1)
        );
    }
    for node in [&one, &two, &three] {
        assert_eq!(tail(node, "bob").await, 3);
    }
    let digests = [&one, &two, &three].map(|node| node.store().digest());
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[1], digests[2]);
    for seen in [&seen_one, &seen_two, &seen_three] {
        assert!(!seen.effects.lock().is_empty());
    }
    let mut now = ClaimTime { term: 0, count: 0 };
    for node in [&two, &three, &one, &three, &two, &one] {
        let later = node.read_barrier(soon()).await.unwrap().time;
        assert!(later > now, "with nothing applied between, {later:?} came after {now:?}");
        now = later;
    }
    one.claim_device(&user("bob"), &DeviceId::new("phone").unwrap(), now);
    until("the others hear of the device", || {
        !seen_two.claims.lock().is_empty() && !seen_three.claims.lock().is_empty()
    })
    .await;
    assert!(seen_one.claims.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_one_node_keep_their_order_through_a_change_of_leader() {
    let (town, places) = (Town::new(3), Place::three());
    let [(one, _), (two, _), (three, _)] = town.start_three(&places).await;
    let nodes = [&one, &two, &three];
    until("a leader", || leader(&nodes).is_some()).await;
    let led = leader(&nodes).unwrap();
    let through = nodes[(led + 1) % 3];

    let first: Vec<_> =
        (0..50).map(|n| through.submit(send("a", "b", &format!("x{n}")), soon())).collect();
    nodes[led].shutdown(std::time::Duration::from_millis(10)).await;
    let second: Vec<_> =
        (50..100).map(|n| through.submit(send("a", "b", &format!("x{n}")), soon())).collect();
    for (n, pending) in first.into_iter().chain(second).enumerate() {
        let Reply::Sent { seq, duplicate, .. } = pending.await.unwrap().reply else {
            panic!("not a send")
        };
        assert_eq!((seq, duplicate), (n as u64 + 1, false));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_nothing_is_acknowledged_and_all_calls_end() {
    let (town, places) = (Town::new(3), Place::three());
    let [(one, _), (two, _), (three, _)] = town.start_three(&places).await;
    one.submit(send("a", "b", "first"), soon()).await.unwrap();
    two.shutdown(std::time::Duration::from_millis(10)).await;
    three.shutdown(std::time::Duration::from_millis(10)).await;

    let brief = tokio::time::Instant::now() + std::time::Duration::from_millis(1_500);
    let outcome = one.submit(send("a", "b", "second"), brief).await;
    assert!(
        matches!(outcome, Err(SubmitError::DeadlineExceeded | SubmitError::NotAvailable)),
        "{outcome:?}"
    );
    let brief = tokio::time::Instant::now() + std::time::Duration::from_millis(500);
    assert_eq!(one.read_barrier(brief).await, Err(SubmitError::NotAvailable));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_comes_back_with_its_disk_but_not_with_an_empty_one() {
    let (town, places) = (Town::new(3), Place::three());
    let [(one, _), (two, _), (three, _)] = town.start_three(&places).await;
    one.submit(send("a", "b", "first"), soon()).await.unwrap();
    three.shutdown(std::time::Duration::from_millis(10)).await;
    drop(three);
    town.freed(3).await;
    one.submit(send("a", "b", "second"), soon()).await.unwrap();

    let (three, _) = town.start(3, &places[2]).await;
    assert_eq!(tail(&three, "b").await, 2);
    three.shutdown(std::time::Duration::from_millis(10)).await;
    drop(three);
    town.freed(3).await;

    let (wiped, _) = town.start(3, &Place::new(99)).await;
    one.submit(send("a", "b", "third"), soon()).await.unwrap();
    let brief = tokio::time::Instant::now() + std::time::Duration::from_secs(2);
    assert!(wiped.read_barrier(brief).await.is_err());
    assert_eq!(wiped.status().last_log, None, "the wiped node was given a log");
    assert_eq!(tail(&two, "b").await, 3);
}
