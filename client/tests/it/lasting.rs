//! A lasting client, through the faults of its nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::support::{Cluster, Fault, Node, PATIENCE, eventually};
use roost_client::protocol::request::SendMessage;
use roost_client::protocol::{CloseCode, ErrorCode, Target, Token};
use roost_client::{
    AutoAck, Calls, Client, ClientError, ClientOptions, Delivery, FetchedToken, Items, Link,
    TokenSource, Transport,
};

const TRANSPORTS: [Transport; 3] =
    [Transport::Quic, Transport::WebSocketJson, Transport::WebSocketMessagePack];

fn options(nodes: &[Node], transport: Transport) -> ClientOptions {
    let endpoints = nodes.iter().map(|node| node.endpoint(transport)).collect();
    // Each fake node signs for itself.
    let trust = roost_client::Trust::Insecure;
    let mut options = ClientOptions::new(endpoints, trust, "good", "phone");
    options.transport = transport;
    options.connect_timeout = Duration::from_millis(500);
    options.probe_after = Duration::from_millis(100);
    options.idle_probe_after = Duration::from_millis(100);
    options.probe_timeout = Duration::from_millis(100);
    options.max_backoff = Duration::from_millis(100);
    options.auto_ack = Some(AutoAck { items: 8, delay: Duration::from_millis(20) });
    options
}

fn message(n: u64) -> SendMessage {
    SendMessage {
        target: Target::User("bob".into()),
        client_id: format!("c-{n}").into(),
        body: format!("{n}").into(),
        content_type: None,
        ttl_ms: None,
    }
}

async fn nodes(count: u64, cluster: &Arc<Cluster>) -> Vec<Node> {
    let mut nodes = Vec::new();
    for id in 1..=count {
        nodes.push(Node::start(id, cluster).await);
    }
    nodes
}

async fn next_seq(items: &mut Items) -> u64 {
    match tokio::time::timeout(PATIENCE, items.next()).await.expect("an item in time") {
        Some(Delivery::Item(item)) => item.seq,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_item_comes_once_and_in_order_however_often_connections_are_cut() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let nodes = nodes(2, &cluster).await;
        cluster.fault(1, Fault::CutAfterItems(7));
        cluster.fault(2, Fault::CutAfterItems(11));
        let (_client, mut items) = Client::connect(options(&nodes, transport)).await.unwrap();
        for n in 1..=40 {
            cluster.append(&format!("c-{n}"), "hi".into());
        }
        for seq in 1..=40 {
            assert_eq!(next_seq(&mut items).await, seq, "{transport:?}");
        }
        let connects = cluster.with(|state| state.connects.clone());
        assert!(connects.len() >= 3, "{connects:?}");
        assert!(connects.is_sorted(), "{transport:?}: {connects:?}");
    }
}

#[tokio::test]
async fn a_send_whose_answer_was_lost_is_repeated_and_stored_once() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let nodes = nodes(2, &cluster).await;
        cluster.fault(1, Fault::CutAfterSends(0));
        let (client, _items) = Client::connect(options(&nodes, transport)).await.unwrap();
        let sent = client.send(message(1)).await.unwrap();
        assert!(sent.duplicate, "{transport:?}");
        assert_eq!(cluster.bodies(), ["1"]);
        let asked = cluster.with(|state| state.applied_asked.clone());
        assert_eq!(asked, [None, Some(10)], "{transport:?}: the applied index travels along");
    }
}

#[tokio::test]
async fn sends_keep_their_order_when_they_are_repeated() {
    let cluster = Cluster::new();
    let nodes = nodes(2, &cluster).await;
    cluster.fault(1, Fault::CutAfterSends(5));
    cluster.fault(2, Fault::CutAfterSends(30));
    let (client, _items) = Client::connect(options(&nodes, Transport::Quic)).await.unwrap();
    let sends = futures_util::future::join_all((0..100).map(|n| client.send(message(n)))).await;
    assert!(sends.iter().all(Result::is_ok));
    let expected: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    assert_eq!(cluster.bodies(), expected);
}

#[tokio::test]
async fn a_node_that_cannot_serve_now_is_asked_again_and_then_left() {
    let cluster = Cluster::new();
    let nodes = nodes(2, &cluster).await;
    cluster.fault(1, Fault::Refuse(u64::MAX, ErrorCode::NotAvailable));
    cluster.fault(2, Fault::Refuse(2, ErrorCode::Overloaded));
    let (client, _items) = Client::connect(options(&nodes, Transport::Quic)).await.unwrap();
    let sent = client.send(message(1)).await.unwrap();
    assert!(!sent.duplicate);
    assert!(matches!(&*client.link().borrow(), Link::Up(up) if up.node == 2));
}

#[tokio::test]
async fn a_refusal_for_good_is_not_repeated() {
    let cluster = Cluster::new();
    let nodes = nodes(1, &cluster).await;
    cluster.fault(1, Fault::Refuse(1, ErrorCode::NotAMember));
    let (client, _items) = Client::connect(options(&nodes, Transport::Quic)).await.unwrap();
    let error = client.send(message(1)).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NotAMember));
    assert!(client.send(message(2)).await.is_ok());
}

#[tokio::test]
async fn a_silent_node_is_left_for_the_next() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let nodes = nodes(2, &cluster).await;
        cluster.fault(1, Fault::Silent);
        let (client, mut items) = Client::connect(options(&nodes, transport)).await.unwrap();
        cluster.append("c-1", "hi".into());
        assert_eq!(next_seq(&mut items).await, 1, "{transport:?}");
        assert!(client.send(message(1)).await.is_ok());
    }
}

#[tokio::test]
async fn a_node_that_says_nothing_is_not_waited_for_while_there_are_others() {
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let cluster = Cluster::new();
    let nodes = nodes(1, &cluster).await;
    let mut options = options(&nodes, Transport::Quic);
    let address = dead.local_addr().unwrap().to_string();
    options.endpoints.insert(0, address.parse().unwrap());
    options.connect_timeout = 2 * PATIENCE;
    options.call_timeout = PATIENCE;
    let (client, _items) = Client::connect(options).await.unwrap();
    assert!(client.send(message(1)).await.is_ok());
}

#[tokio::test]
async fn a_node_that_died_is_left_for_the_next() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let mut nodes = nodes(2, &cluster).await;
        let (client, mut items) = Client::connect(options(&nodes, transport)).await.unwrap();
        client.send(message(1)).await.unwrap();
        drop(nodes.remove(0));
        client.send(message(2)).await.unwrap();
        assert_eq!(next_seq(&mut items).await, 1);
        assert_eq!(next_seq(&mut items).await, 2, "{transport:?}");
    }
}

#[tokio::test]
async fn only_what_was_consumed_is_acknowledged() {
    let cluster = Cluster::new();
    let nodes = nodes(1, &cluster).await;
    let mut options = options(&nodes, Transport::Quic);
    options.window = Some(16);
    let (client, mut items) = Client::connect(options).await.unwrap();
    for n in 1..=100 {
        cluster.append(&format!("c-{n}"), "hi".into());
    }
    for seq in 1..=60 {
        assert_eq!(next_seq(&mut items).await, seq);
    }
    eventually("the cursor at 59", || cluster.with(|state| state.cursor) == 59).await;
    client.ping().await.unwrap();
    assert_eq!(cluster.with(|state| state.cursor), 59);
    assert_eq!(next_seq(&mut items).await, 61);
    client.close().await;
    assert_eq!(cluster.with(|state| state.cursor), 60);
}

#[tokio::test]
async fn without_automatic_acknowledgement_the_window_is_all_there_is() {
    let cluster = Cluster::new();
    let nodes = nodes(1, &cluster).await;
    let mut options = options(&nodes, Transport::Quic);
    options.window = Some(4);
    options.auto_ack = None;
    let (client, mut items) = Client::connect(options).await.unwrap();
    for n in 1..=10 {
        cluster.append(&format!("c-{n}"), "hi".into());
    }
    for seq in 1..=4 {
        assert_eq!(next_seq(&mut items).await, seq);
    }
    client.ping().await.unwrap();
    assert_eq!(cluster.with(|state| state.cursor), 0);
    client.ack(3).await.unwrap();
    for seq in 5..=7 {
        assert_eq!(next_seq(&mut items).await, seq);
    }
}

#[tokio::test]
async fn a_trimmed_queue_is_told_before_its_items() {
    let cluster = Cluster::new();
    let nodes = nodes(1, &cluster).await;
    for n in 1..=10 {
        cluster.append(&format!("c-{n}"), "hi".into());
    }
    cluster.with(|state| state.head = 6);
    let mut options = options(&nodes, Transport::Quic);
    options.after = Some(2);
    let (_client, mut items) = Client::connect(options).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, items.next()).await.unwrap();
    assert_eq!(first, Some(Delivery::Skipped { after: 2, head: 6 }));
    assert_eq!(next_seq(&mut items).await, 6);
}

#[tokio::test]
async fn a_replaced_device_does_not_come_back() {
    let cluster = Cluster::new();
    let nodes = nodes(2, &cluster).await;
    cluster.fault(1, Fault::Close(CloseCode::Replaced));
    let (client, mut items) = Client::connect(options(&nodes, Transport::Quic)).await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, items.next()).await.unwrap(), None);
    let error = client.send(message(1)).await.unwrap_err();
    let ClientError::Closed(reason) = error else { panic!("{error}") };
    assert_eq!(reason.code, Some(CloseCode::Replaced));
    assert_eq!(cluster.with(|state| state.connects.len()), 1);
}

#[tokio::test]
async fn a_node_that_shuts_down_is_left_for_the_next() {
    let cluster = Cluster::new();
    let nodes = nodes(2, &cluster).await;
    cluster.fault(1, Fault::Close(CloseCode::ShuttingDown));
    let (client, _items) = Client::connect(options(&nodes, Transport::Quic)).await.unwrap();
    assert!(client.send(message(1)).await.is_ok());
    assert!(matches!(&*client.link().borrow(), Link::Up(up) if up.node == 2));
}

#[tokio::test]
async fn a_fixed_bad_token_fails_at_once() {
    for transport in TRANSPORTS {
        let nodes = nodes(2, &Cluster::new()).await;
        let mut options = options(&nodes, transport);
        options.tokens = "bad".into();
        let error = Client::connect(options).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Unauthorized), "{transport:?}: {error}");
    }
}

#[tokio::test]
async fn an_expired_token_is_fetched_anew_once() {
    let cluster = Cluster::new();
    let nodes = nodes(1, &cluster).await;
    let fetched = Arc::new(AtomicU64::new(0));
    let counter = fetched.clone();
    let mut options = options(&nodes, Transport::Quic);
    options.tokens = TokenSource::Fetch(Arc::new(move || {
        let stale = counter.fetch_add(1, Ordering::Relaxed) == 0;
        let token = Token::from(if stale { "stale" } else { "good" });
        Box::pin(async move { Ok(token) }) as FetchedToken
    }));
    let (client, _items) = Client::connect(options.clone()).await.unwrap();
    assert!(client.ping().await.is_ok());
    assert_eq!(fetched.load(Ordering::Relaxed), 2);
    cluster.with(|state| state.good_token = "another".into());
    let error = Client::connect(options).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::Unauthorized));
    assert_eq!(fetched.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn calls_wait_for_the_first_connection_and_end_by_their_deadline() {
    let cluster = Cluster::new();
    let node = Node::start(1, &cluster).await;
    let mut options = options(&[node], Transport::WebSocketJson);
    options.call_timeout = Duration::from_millis(300);
    let (client, _items) = Client::start(options.clone()).unwrap();
    assert_eq!(client.send(message(1)).await.unwrap_err(), ClientError::DeadlineExceeded);
    let error = Client::connect(options).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error}");
}

#[tokio::test]
async fn a_client_goes_on_while_only_its_items_are_wanted() {
    let cluster = Cluster::new();
    let nodes = nodes(1, &cluster).await;
    let (client, mut items) = Client::connect(options(&nodes, Transport::Quic)).await.unwrap();
    drop(client);
    cluster.append("c-1", "hi".into());
    assert_eq!(next_seq(&mut items).await, 1);
}
