//! Many clients at once: all of them are served.

use crate::quic::Client;
use crate::support::TestNode;
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::json;

/// Clients of each transport.
const CLIENTS: u64 = 1_000;
/// Clients that connect at a time.
const AT_A_TIME: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_idle_clients_are_all_still_served() {
    roost::open_files::raise_limit();
    let started = TestNode::start().await;
    let node = &started;
    let websockets = stream::iter(0..CLIENTS)
        .map(|n| async move { node.client(&format!("w{n}"), "phone").await })
        .buffer_unordered(AT_A_TIME);
    let mut websockets: Vec<_> = websockets.collect().await;
    let endpoint = &TestNode::endpoint(&node.keys);
    let quic = stream::iter(0..CLIENTS)
        .map(|n| async move {
            let mut client = Client::on(node.connecting(endpoint).await.unwrap()).await;
            client.connect(node, &format!("q{n}")).await;
            client
        })
        .buffer_unordered(AT_A_TIME);
    let mut quic: Vec<_> = quic.collect().await;

    assert_eq!(node.metric(r#"roost_sessions{transport="websocket"}"#).await, CLIENTS as f64);
    assert_eq!(node.metric(r#"roost_sessions{transport="quic"}"#).await, CLIENTS as f64);
    for client in &mut websockets {
        assert!(client.ask(2, "ping", json!({})).await.get("ok").is_some());
    }
    for client in &mut quic {
        client.ping(2).await;
    }
    started.node.shutdown().await;
}
