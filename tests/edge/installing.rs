//! What clients are told while their node takes in a snapshot.

use std::fs;
use std::sync::mpsc;
use std::thread;

use serde_json::json;

use crate::support::{TestNode, bodies, code};

#[tokio::test(flavor = "multi_thread")]
async fn reads_are_refused_at_once_while_a_snapshot_is_installed() {
    let node = TestNode::start().await;
    let mut alice = node.client("alice", "app").await;
    let said = json!({ "to": "bob", "client_id": "1", "body": "before" });
    let sent = alice.ask(2, "send", said).await;
    let conversation = sent["ok"]["conversation"].as_str().unwrap().to_owned();

    // The node's own state, which the log goes on from.
    let store = node.node.cluster().store().clone();
    let snapshot = store.export_snapshot().unwrap();
    let received = store.incoming_snapshot_path();
    fs::copy(node.data().join(&snapshot.path), node.data().join(&received)).unwrap();

    // An install waits for the queries under way, so this one holds it up.
    let (looking, when_looking) = mpsc::channel();
    let (go_on, when_told) = mpsc::channel();
    let looked_at = store.clone();
    let query = thread::spawn(move || {
        looked_at.view(|_| {
            looking.send(()).unwrap();
            when_told.recv().unwrap();
            Ok(())
        })
    });
    when_looking.recv().unwrap();
    let replaced = store.clone();
    let install = thread::spawn(move || replaced.import_snapshot(&received));
    while store.try_view(|_| Ok(())).is_some() {
        thread::yield_now();
    }

    let admin = node.admin();
    for path in [
        "/v1/users/bob/queue",
        "/v1/users/bob/queue?local=true",
        "/v1/users/bob/devices?local=true",
        &format!("/v1/conversations/{conversation}?local=true"),
    ] {
        let (status, answer) = node.http("GET", path, Some(&admin), None).await;
        assert_eq!((status, code(&answer)), (503, "not_available"), "{path}");
    }
    let reads = [
        ("pull", json!({ "after": 0 })),
        ("history", json!({ "conversation": conversation })),
        ("conversations", json!({})),
    ];
    for (id, (operation, fields)) in (10..).zip(&reads) {
        let answer = alice.ask(id, operation, fields.clone()).await;
        assert_eq!(code(&answer), "not_available", "{operation}");
        assert_eq!(answer["error"]["retry"], true, "{operation}");
    }
    let mut late = node.websocket().await;
    let refused = late.connect(&node.token("alice"), "app", json!({})).await;
    assert_eq!(code(&refused), "not_available");
    for (path, status) in [("/healthz", 200), ("/v1/cluster", 200), ("/readyz", 503)] {
        assert_eq!(node.http("GET", path, Some(&admin), None).await.0, status, "{path}");
    }

    go_on.send(()).unwrap();
    query.join().unwrap().unwrap();
    install.join().unwrap().unwrap();
    for (id, (operation, fields)) in (20..).zip(&reads) {
        let answer = alice.ask(id, operation, fields.clone()).await;
        assert!(answer.get("ok").is_some(), "{answer}");
    }
    let (_, page) = node.http("GET", "/v1/users/bob/queue", Some(&admin), None).await;
    assert_eq!(bodies(page["items"].as_array().unwrap()), ["before"]);
}
