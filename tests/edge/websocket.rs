//! The protocol over a WebSocket, against a node: what works, and what is refused how.

use crate::support::{PATIENCE, TestNode, bodies, code, seqs};
use futures_util::StreamExt as _;
use roost_protocol::limits::{MAX_BODY_BYTES, MAX_FRAME_BYTES};
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};

fn to_bob(n: u64) -> Value {
    json!({ "to": "bob", "client_id": format!("c{n}"), "body": format!("message {n}") })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_sender_and_recipient_and_is_acknowledged() {
    let node = TestNode::start().await;
    let mut alice = node.client("alice", "phone").await;
    let mut bob = node.client("bob", "laptop").await;

    let sent = alice.ask(2, "send", to_bob(1)).await;
    assert_eq!(sent["ok"]["seq"], 1);
    assert_eq!(sent["ok"]["duplicate"], false);
    for client in [&mut alice, &mut bob] {
        let items = client.items(1).await;
        assert_eq!(bodies(&items), ["message 1"]);
        assert_eq!(items[0]["seq"], 1);
        assert_eq!(items[0]["conversation"], sent["ok"]["conversation"]);
    }
    let acked = bob.ask(2, "ack", json!({ "seq": 1 })).await;
    assert_eq!(acked["ok"]["cursor"], 1);
    let acked = bob.ask(3, "ack", json!({ "seq": 0 })).await;
    assert_eq!(acked["ok"]["cursor"], 1, "going backwards changes nothing");

    let again = alice.ask(3, "send", to_bob(1)).await;
    assert_eq!((&again["ok"]["seq"], &again["ok"]["duplicate"]), (&json!(1), &json!(true)));
    let mut other = to_bob(1);
    other["body"] = json!("something else");
    assert_eq!(code(&alice.ask(4, "send", other).await), "client_id_reused");
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_show_what_was_done() {
    let node = TestNode::start().await;
    let mut alice = node.client("alice", "phone").await;
    let group =
        json!({ "kind": "group", "members": ["bob", "carol"], "name": "Lunch", "client_id": "g1" });
    let created = alice.ask(2, "create_conversation", group.clone()).await;
    let id = created["ok"]["conversation"].as_str().unwrap().to_owned();
    let again = alice.ask(3, "create_conversation", group).await;
    assert_eq!(again["ok"]["conversation"], id);

    for n in 1..=3 {
        let message =
            json!({ "conversation": id, "client_id": format!("m{n}"), "body": format!("{n}") });
        assert_eq!(alice.ask(10 + n, "send", message).await["ok"]["seq"], n);
    }
    let history = alice.ask(20, "history", json!({ "conversation": id, "limit": 2 })).await;
    let bodies: Vec<_> =
        history["ok"]["messages"].as_array().unwrap().iter().map(|m| &m["body"]).collect();
    assert_eq!(bodies, ["2", "3"]);
    assert_eq!(history["ok"]["more"], true);

    let list = alice.ask(21, "conversations", json!({})).await;
    let group = &list["ok"]["conversations"][0];
    assert_eq!(
        (&group["id"], &group["name"], &group["role"]),
        (&json!(id), &json!("Lunch"), &json!("owner"))
    );
    assert_eq!(
        (&group["tail"], &group["unread"], &group["last"]["body"]),
        (&json!(3), &json!(0), &json!("3"))
    );

    let mut bob = node.client("bob", "phone").await;
    let list = bob.ask(2, "conversations", json!({})).await;
    assert_eq!(list["ok"]["conversations"][0]["unread"], 3);
    let page = bob.ask(3, "pull", json!({ "after": 0, "limit": 500, "linearizable": true })).await;
    let items = page["ok"]["items"].as_array().unwrap();
    assert_eq!(crate::support::bodies(items), ["1", "2", "3"]);
    let tail = page["ok"]["tail"].as_u64().unwrap();
    assert_eq!(seqs(items), (1..=tail).collect::<Vec<_>>());
    let past = bob.ask(4, "pull", json!({ "after": tail + 10 })).await;
    assert_eq!((&past["ok"]["items"], &past["ok"]["more"]), (&json!([]), &json!(false)));

    let count =
        alice.ask(30, "add_members", json!({ "conversation": id, "members": ["dave"] })).await;
    assert_eq!(count["ok"]["members"], 4);
    let count =
        alice.ask(31, "remove_members", json!({ "conversation": id, "members": ["carol"] })).await;
    assert_eq!(count["ok"]["members"], 3);
    let count = bob.ask(5, "leave", json!({ "conversation": id })).await;
    assert_eq!(count["ok"]["members"], 2);
    assert_eq!(code(&bob.ask(6, "history", json!({ "conversation": id })).await), "not_a_member");
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_gets_what_it_missed_within_its_window_then_what_comes() {
    let node = TestNode::start().await;
    let mut alice = node.client("alice", "phone").await;
    for n in 1..=10 {
        alice.ask(1 + n, "send", to_bob(n)).await;
    }
    let mut bob = node.websocket().await;
    let connected = bob.connect(&node.token("bob"), "phone", json!({ "window": 4 })).await;
    assert_eq!((&connected["ok"]["tail"], &connected["ok"]["cursor"]), (&json!(10), &json!(0)));
    assert_eq!(seqs(&bob.items(4).await), [1, 2, 3, 4]);
    bob.ask(2, "ack", json!({ "seq": 3 })).await;
    assert_eq!(seqs(&bob.items(3).await), [5, 6, 7]);
    drop(bob);

    let mut bob = node.websocket().await;
    let connected = bob.connect(&node.token("bob"), "phone", json!({ "after": 8 })).await;
    assert_eq!(
        (&connected["ok"]["resumed"], &connected["ok"]["cursor"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(seqs(&bob.items(2).await), [9, 10]);
    alice.ask(20, "send", to_bob(11)).await;
    assert_eq!(seqs(&bob.items(1).await), [11]);

    let mut bob = node.websocket().await;
    let refused = bob.connect(&node.token("bob"), "tablet", json!({ "after": 99 })).await;
    assert_eq!(code(&refused), "bad_request");
    let connected = bob.connect(&node.token("bob"), "tablet", json!({ "window": 0 })).await;
    assert_eq!(connected["ok"]["tail"], 11);
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sends_of_one_connection_take_effect_in_order() {
    let node = TestNode::start().await;
    let mut alice = node.client("alice", "phone").await;
    for n in 1..=200 {
        let request = json!({ "id": n + 1, "send": to_bob(n) });
        alice.send(Message::text(request.to_string())).await;
    }
    let mut bob = node.client("bob", "phone").await;
    let items = bob.items(200).await;
    let expected: Vec<_> = (1..=200).map(|n| format!("message {n}")).collect();
    assert_eq!(bodies(&items), expected);
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_their_codes_and_the_connection_goes_on() {
    let node = TestNode::start().await;
    let mut client = node.websocket().await;
    assert_eq!(code(&client.ask(7, "ping", json!({})).await), "not_connected");
    client.connect(&node.token("mallory"), "phone", json!({})).await;
    let large = "x".repeat(MAX_BODY_BYTES + 1);
    let cases = [
        ("dance", json!({}), "unknown_operation"),
        ("typing", json!({ "conversation": "c" }), "unknown_operation"),
        ("connect", json!({ "token": "t", "device": { "id": "d", "kind": "app" } }), "bad_request"),
        ("send", json!({ "to": "bob", "client_id": "1", "body": large }), "too_large"),
        ("send", json!({ "to": "bob", "client_id": "1" }), "bad_request"),
        ("send", json!({ "to": "", "client_id": "1", "body": "" }), "bad_request"),
        ("send", json!({ "conversation": "g-none", "client_id": "1", "body": "" }), "not_found"),
        ("history", json!({ "conversation": "g-none" }), "not_found"),
        ("leave", json!({ "conversation": "g-none" }), "not_found"),
        ("pull", json!({ "after": 0, "limit": 501 }), "bad_request"),
        ("pull", json!({ "after": 0, "limit": 0 }), "bad_request"),
        ("ack", json!({ "seq": 1 }), "bad_request"),
        (
            "create_conversation",
            json!({ "kind": "group", "members": [], "client_id": "1", "retention": "until_delivered" }),
            "bad_request",
        ),
    ];
    for (id, (operation, fields, expected)) in cases.into_iter().enumerate() {
        let answer = client.ask(100 + id as u64, operation, fields).await;
        assert_eq!(code(&answer), expected, "{operation}");
        assert_eq!(answer["error"]["retry"], false);
    }
    let mut alice = node.client("alice", "phone").await;
    let group = json!({ "kind": "group", "members": ["bob"], "client_id": "1" });
    let created = alice.ask(2, "create_conversation", group).await;
    let id = &created["ok"]["conversation"];
    let send = json!({ "conversation": id, "client_id": "9", "body": "hi" });
    assert_eq!(code(&client.ask(200, "send", send).await), "not_a_member");
    assert_eq!(
        code(&client.ask(201, "history", json!({ "conversation": id })).await),
        "not_a_member"
    );
    assert!(client.ask(202, "ping", json!({})).await["ok"]["server_time_ms"].is_u64());
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_tokens_end_the_connection() {
    let node = TestNode::start().await;
    let other = node.mint("alice", Some("laptop"), false);
    for token in ["nonsense", other.as_str()] {
        let mut client = node.websocket().await;
        assert_eq!(code(&client.connect(token, "phone", json!({})).await), "unauthorized");
        assert_eq!(client.end().await, ("unauthorized".to_owned(), 4001));
    }
    let mut client = node.websocket().await;
    assert!(client.connect(&other, "laptop", json!({})).await.get("ok").is_some());
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_end_the_connection_with_a_word() {
    let node = TestNode::start().await;
    let bad = [
        Message::text("hello"),
        Message::text("[]"),
        Message::text(r#"{"ping": {}}"#),
        Message::binary(b"\x82".to_vec()),
    ];
    for message in bad {
        let mut client = node.client("alice", "phone").await;
        client.send(message).await;
        assert_eq!(client.end().await, ("bad_frame".to_owned(), 4003));
    }
    let mut client = node.client("alice", "phone").await;
    client.send(Message::text("x".repeat(MAX_FRAME_BYTES + 1))).await;
    assert_eq!(client.end().await, ("frame_too_large".to_owned(), 4003));
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_says_goodbye_is_answered() {
    let node = TestNode::start().await;
    let mut alice = node.client("alice", "phone").await;
    alice.send(Message::Close(None)).await;
    let answered = loop {
        match timeout(PATIENCE, alice.socket.next()).await.expect("the end in time") {
            Some(Ok(Message::Close(_))) => break true,
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break false,
        }
    };
    assert!(answered, "the connection ended without a close frame");
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_device_replaces_itself() {
    let node = TestNode::start().await;
    let mut first = node.client("alice", "phone").await;
    let mut other = node.client("alice", "laptop").await;
    let mut second = node.client("alice", "phone").await;
    assert_eq!(first.end().await, ("replaced".to_owned(), 4002));
    for client in [&mut other, &mut second] {
        assert!(client.ask(2, "ping", json!({})).await.get("ok").is_some());
    }
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_sends_its_clients_elsewhere() {
    let node = TestNode::start().await;
    let mut alice = node.client("alice", "phone").await;
    let mut waiting = node.websocket().await;
    let ends = async {
        assert_eq!(alice.end().await, ("shutting_down".to_owned(), 4000));
        assert_eq!(waiting.end().await, ("shutting_down".to_owned(), 4000));
    };
    tokio::join!(node.node.shutdown(), ends);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handshake_checks_origin_and_subprotocol() {
    let node = TestNode::start().await;
    let name = "sec-websocket-protocol";
    let status =
        async |headers: &[(&'static str, &str)]| match connect_async(node.handshake(headers)).await
        {
            Ok((_, response)) => response.status().as_u16(),
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(other) => panic!("{other}"),
        };
    assert_eq!(status(&[]).await, 101);
    assert_eq!(status(&[(name, "roost.v1.json")]).await, 101);
    assert_eq!(status(&[(name, "roost.v1.msgpack")]).await, 101);
    assert_eq!(status(&[(name, "roost.v9.json")]).await, 400);
    assert_eq!(status(&[("origin", "https://app.example")]).await, 101);
    assert_eq!(status(&[("origin", &format!("http://{}", node.address()))]).await, 101);
    assert_eq!(status(&[("origin", "https://evil.example")]).await, 403);
    let (plain, answer) = node.http("GET", "/v1/ws", None, None).await;
    assert_eq!((plain, code(&answer)), (426, "bad_request"));
    node.node.shutdown().await;
}
