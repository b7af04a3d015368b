//! A device that goes away and comes back, to whichever node is there.

use roost_client::protocol::Push;
use roost_client::{Calls as _, Pushes};

use crate::harness::{Cluster, Sender, body_of, connected, within_deadline};

/// The bodies of the next `count` pushed messages; that no sequence is missing or twice.
async fn next_bodies(pushes: &mut Pushes, last_seq: &mut u64, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    while bodies.len() < count {
        let push = within_deadline("an item", pushes.next()).await;
        let Some(Push::Items(items)) = push else { panic!("the pushes ended: {push:?}") };
        for item in items.items {
            assert_eq!(item.seq, *last_seq + 1, "a gap or a repetition");
            *last_seq = item.seq;
            bodies.extend(body_of(&item));
        }
    }
    bodies
}

fn texts(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    range.map(|number| format!("message {number}")).collect()
}

fn send(alice: &mut Sender, cluster: &Cluster, range: std::ops::RangeInclusive<u32>) {
    for text in texts(range) {
        alice.send(cluster, "bob", &text);
    }
}

#[test]
fn a_device_gets_what_it_missed_then_what_comes_on_another_node_after_the_leader_died() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader();
    let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut alice = Sender::new(&cluster, "alice");
    send(&mut alice, &cluster, 1..=20);

    let options = cluster.options(first, "bob", "phone");
    let acknowledged = cluster.run(async {
        let (bob, mut pushes) = connected(&options).await;
        let mut seq = 0;
        assert_eq!(next_bodies(&mut pushes, &mut seq, 20).await, texts(1..=20));
        // It has seen all, and acknowledges less: what it may have lost comes again.
        let acknowledged = seq - 8;
        assert_eq!(bob.ack(acknowledged).await.unwrap().cursor, acknowledged);
        acknowledged
    });
    send(&mut alice, &cluster, 21..=60);
    cluster.kill(leader);
    send(&mut alice, &cluster, 61..=80);

    let options = cluster.options(second, "bob", "phone");
    cluster.run(async {
        let (bob, mut pushes) = connected(&options).await;
        assert!(bob.connected().resumed);
        assert_eq!(bob.connected().cursor, acknowledged);
        let mut seq = acknowledged;
        assert_eq!(next_bodies(&mut pushes, &mut seq, 68).await, texts(13..=80));
        alice.send_now("bob", "message 81").await;
        assert_eq!(next_bodies(&mut pushes, &mut seq, 1).await, texts(81..=81));
        bob.ack(seq).await.unwrap();
    });

    cluster.restart(leader);
    cluster.await_ready(leader);
    let options = cluster.options(leader, "bob", "phone");
    cluster.run(async {
        let (bob, mut pushes) = connected(&options).await;
        let mut seq = bob.connected().cursor;
        alice.send_now("bob", "message 82").await;
        assert_eq!(next_bodies(&mut pushes, &mut seq, 1).await, texts(82..=82));
        // From the beginning, on the node that was away.
        let mut from_the_start = cluster.options(leader, "bob", "tablet");
        from_the_start.after = Some(0);
        let (_tablet, mut pushes) = connected(&from_the_start).await;
        assert_eq!(next_bodies(&mut pushes, &mut 0, 82).await, texts(1..=82));
    });
    cluster.await_equal_states();
}
