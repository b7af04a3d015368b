//! What a node refuses or ends to keep within its bounds: too much work, too many clients, clients
//! that do not read, are silent, or whose token ends.

use std::time::Duration;

use quinn::ConnectionError;
use roost_protocol::Operation;
use roost_protocol::limits::MAX_BODY_BYTES;
use roost_protocol::request::Ping;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::quic::Client;
use crate::support::{PATIENCE, TestNode, bodies, code};

fn send(n: u64, body: &str) -> Value {
    json!({ "to": "bob", "client_id": format!("c{n}"), "body": body })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_too_much_to_do_says_so_and_keeps_what_it_took() {
    let node = TestNode::start_with(|edge| edge.max_commands = 4).await;
    let mut alice = node.websocket().await;
    alice.connect(&node.token("alice"), "phone", json!({ "window": 0 })).await;
    let mut open: Vec<u64> = (0..200).collect();
    let (mut id, mut refused) = (10, 0);
    let deadline = Instant::now() + PATIENCE;
    while !open.is_empty() {
        assert!(Instant::now() < deadline, "the node does not recover");
        for n in &open {
            let request = json!({ "id": id + n, "send": send(*n, &n.to_string()) });
            alice.send(Message::text(request.to_string())).await;
        }
        let mut again = Vec::new();
        for _ in open {
            let answer = alice.next().await.expect("an answer before the end");
            let n = answer["id"].as_u64().unwrap() - id;
            if answer.get("ok").is_none() {
                assert_eq!(code(&answer), "overloaded");
                assert_eq!(answer["error"]["retry"], true);
                assert!(answer["error"]["retry_after_ms"].as_u64() > Some(0), "{answer}");
                again.push(n);
            }
        }
        refused += again.len();
        open = again;
        id += 1_000;
    }
    assert!(refused > 0, "nothing was refused");

    let mut bob = node.client("bob", "phone").await;
    let mut found: Vec<u64> =
        bodies(&bob.items(200).await).iter().map(|body| body.parse().unwrap()).collect();
    found.sort_unstable();
    assert_eq!(found, (0..200).collect::<Vec<_>>(), "each once, whatever was refused before");
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_costs_its_window_and_ends_alone() {
    let node = TestNode::start_with(|edge| edge.write_timeout = Duration::from_millis(300)).await;
    let mut bob = node.websocket().await;
    bob.connect(&node.token("bob"), "phone", json!({ "window": 4_096 })).await;
    // From here on nobody reads from this one; more comes for it than the system holds for both.
    let mut alice = node.websocket().await;
    alice.connect(&node.token("alice"), "phone", json!({ "window": 0 })).await;
    let body = "x".repeat(MAX_BODY_BYTES);
    let deadline = Instant::now() + PATIENCE;
    let mut n = 0;
    while node.metric("roost_slow_clients_total").await < 1.0 {
        assert!(Instant::now() < deadline, "the slow client stays");
        for _ in 0..20 {
            n += 1;
            assert!(alice.ask(1 + n, "send", send(n, &body)).await.get("ok").is_some());
        }
    }
    drop(bob);
    let mut bob = node.client("bob", "phone").await;
    assert_eq!(bob.items(1).await[0]["seq"], 1, "nothing was acknowledged, so nothing is skipped");
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_client_is_idle_and_one_that_answers_pings_is_not() {
    let silence = Duration::from_secs(2);
    let node = TestNode::start_with(|edge| {
        edge.keep_alive = Duration::from_millis(100);
        edge.idle_timeout = silence;
    })
    .await;
    let mut silent = node.client("alice", "phone").await;
    let mut lively = node.client("bob", "phone").await;
    // Reading answers pings: this one reads for longer than silence may last, the other does not.
    let quiet = timeout(silence + Duration::from_secs(1), lively.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert!(lively.ask(2, "ping", json!({})).await.get("ok").is_some());
    assert_eq!(silent.end().await, ("idle".to_owned(), 4004));
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_ends_with_its_token() {
    let node = TestNode::start().await;
    let mut short = node.websocket().await;
    let token = node.short_token("alice", 2);
    assert!(short.connect(&token, "phone", json!({})).await.get("ok").is_some());
    let mut long = node.client("bob", "phone").await;
    assert_eq!(short.end().await, ("unauthorized".to_owned(), 4001));
    assert!(long.ask(2, "ping", json!({})).await.get("ok").is_some());
    let mut again = node.websocket().await;
    assert_eq!(code(&again.connect(&token, "phone", json!({})).await), "unauthorized");
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quic_clients_beyond_the_bounds_are_told_or_refused_before_they_cost_much() {
    let node = TestNode::start_with(|edge| {
        edge.max_sessions = 1;
        edge.max_handshakes = 1;
    })
    .await;
    let mut first = Client::on(node.quic().await).await;
    first.connect(&node, "alice").await;
    // The second has no place among the sessions, and keeps the only handshake's.
    let second = node.quic().await;
    let endpoint = TestNode::endpoint(&node.keys);
    match node.connecting(&endpoint).await {
        Err(ConnectionError::ConnectionClosed(close)) => {
            assert_eq!(close.error_code, quinn::TransportErrorCode::CONNECTION_REFUSED);
        }
        other => panic!("{other:?}"),
    }
    let mut second = Client::on(second).await;
    second.request(1, Operation::Ping(Ping {})).await;
    assert_eq!(second.end().await, ("overloaded".to_owned(), 4005));
    first.ping(2).await;
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "the place is not given back");
        let Ok(connection) = node.connecting(&endpoint).await else { continue };
        let mut next = Client::on(connection).await;
        next.request(1, Operation::Ping(Ping {})).await;
        if next.is_answered().await {
            break;
        }
    }
    node.node.shutdown().await;
}
