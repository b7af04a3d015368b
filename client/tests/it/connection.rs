//! One connection to one node, over each transport.

use std::time::Duration;

use crate::support::{Cluster, Fault, Node, PATIENCE, eventually};
use roost_client::protocol::request::{History, SendMessage};
use roost_client::protocol::{Body, CloseCode, ErrorCode, Push, Target};
use roost_client::{Calls, ClientError, ConnectOptions, Connection, Transport, Trust};

const TRANSPORTS: [Transport; 3] =
    [Transport::Quic, Transport::WebSocketJson, Transport::WebSocketMessagePack];

fn options(node: &Node, transport: Transport) -> ConnectOptions {
    let mut options = ConnectOptions::new(node.endpoint(transport), node.trust(), "good", "phone");
    options.transport = transport;
    options
}

fn message(client_id: &str, body: impl Into<Body>) -> SendMessage {
    SendMessage {
        target: Target::User("bob".into()),
        client_id: client_id.into(),
        body: body.into(),
        content_type: None,
        ttl_ms: None,
    }
}

#[tokio::test]
async fn every_transport_carries_calls_and_pushes() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let node = Node::start(7, &cluster).await;
        let (connection, mut pushes) = Connection::open(&options(&node, transport)).await.unwrap();
        assert_eq!(connection.connected().node, 7, "{transport:?}");

        let sent = connection.send(message("c-1", "hi")).await.unwrap();
        assert_eq!((sent.seq, sent.duplicate), (1, false));
        assert!(connection.send(message("c-1", "hi")).await.unwrap().duplicate);
        let Some(Push::Items(push)) = pushes.next().await else { panic!("{transport:?}") };
        assert_eq!((push.items.len(), push.tail), (1, 1));
        let page = connection.pull(0, None).await.unwrap();
        assert_eq!(page.items, push.items);
        assert_eq!(connection.ack(1).await.unwrap().cursor, 1);
        assert_eq!(connection.ping().await.unwrap().server_time_ms, 1);

        let error = connection.ack(2).await.unwrap_err();
        assert_eq!((error.code(), error.retry()), (Some(ErrorCode::BadRequest), false));
        let history = History {
            conversation: "c".into(),
            before: None,
            after: None,
            limit: None,
            applied: None,
        };
        let error = connection.history(history).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UnknownOperation));
    }
}

#[tokio::test]
async fn large_and_binary_bodies_arrive_unchanged() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let node = Node::start(1, &cluster).await;
        let (connection, _pushes) = Connection::open(&options(&node, transport)).await.unwrap();
        let body: Vec<u8> = (0..64 * 1024).map(|n| (n % 251) as u8).collect();
        connection.send(message("c-1", body.clone())).await.unwrap();
        let stored = cluster.with(|state| state.messages[0].body.clone());
        assert_eq!(stored.as_bytes(), body, "{transport:?}");
        let page = connection.pull(0, None).await.unwrap();
        assert_eq!(page.items.len(), 1, "{transport:?}");
    }
}

#[tokio::test]
async fn replies_find_their_calls_in_any_order() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let node = Node::start(1, &cluster).await;
        cluster.fault(1, Fault::Reverse(50));
        let mut options = options(&node, transport);
        options.window = Some(0);
        let (connection, _pushes) = Connection::open(&options).await.unwrap();
        let mut pending = Vec::new();
        for n in 0..50 {
            let operation = roost_client::Ask::into_operation(message(&format!("c-{n}"), "hi"));
            pending.push(connection.submit(&operation).await.unwrap());
        }
        for (n, pending) in pending.into_iter().enumerate() {
            let roost_client::protocol::OkBody::Sent(sent) = pending.wait().await.unwrap() else {
                panic!("{transport:?}");
            };
            assert_eq!(sent.seq, n as u64 + 1, "{transport:?}: sends took effect in order");
        }
    }
}

#[tokio::test]
async fn a_closing_node_says_why_and_calls_are_lost() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let node = Node::start(1, &cluster).await;
        cluster.fault(1, Fault::Close(CloseCode::ShuttingDown));
        let (connection, mut pushes) = Connection::open(&options(&node, transport)).await.unwrap();
        assert!(matches!(pushes.next().await, Some(Push::Closing(_))), "{transport:?}");
        assert_eq!(pushes.next().await, None);
        let reason = connection.closed().await;
        assert_eq!((reason.code, reason.reconnect), (Some(CloseCode::ShuttingDown), true));
        let error = connection.ping().await.unwrap_err();
        assert!(matches!(error, ClientError::Closed(_)), "{transport:?}: {error}");
        assert!(!error.outcome_unknown());
    }
}

#[tokio::test]
async fn a_cut_connection_leaves_the_outcome_unknown() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let node = Node::start(1, &cluster).await;
        cluster.fault(1, Fault::CutAfterSends(0));
        let (connection, _pushes) = Connection::open(&options(&node, transport)).await.unwrap();
        let error = connection.send(message("c-1", "hi")).await.unwrap_err();
        assert!(matches!(error, ClientError::Lost(_)), "{transport:?}: {error}");
        assert!(error.outcome_unknown() && error.retry(), "{transport:?}");
        assert_eq!(cluster.bodies(), ["hi"]);
    }
}

#[tokio::test]
async fn a_call_without_an_answer_ends_by_its_deadline() {
    let cluster = Cluster::new();
    let node = Node::start(1, &cluster).await;
    cluster.fault(1, Fault::Silent);
    let mut options = options(&node, Transport::Quic);
    options.call_timeout = Duration::from_millis(100);
    let (connection, _pushes) = Connection::open(&options).await.unwrap();
    let error = connection.send(message("c-1", "hi")).await.unwrap_err();
    assert_eq!(error, ClientError::DeadlineExceeded);
}

#[tokio::test]
async fn a_bad_token_is_refused_with_its_code() {
    for transport in TRANSPORTS {
        let node = Node::start(1, &Cluster::new()).await;
        let mut options = options(&node, transport);
        options.token = "bad".into();
        let error = Connection::open(&options).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::Unauthorized), "{transport:?}: {error}");
        assert!(!error.retry());
        assert!(!error.to_string().contains("good"));
    }
}

#[tokio::test]
async fn a_certificate_counts_only_with_its_authority_and_name() {
    let node = Node::start(1, &Cluster::new()).await;
    let stranger = Node::start(2, &Cluster::new()).await;
    let mut untrusted = options(&node, Transport::Quic);
    untrusted.trust = stranger.trust();
    assert!(matches!(Connection::open(&untrusted).await, Err(ClientError::Connect { .. })));
    let mut misnamed = options(&node, Transport::Quic);
    misnamed.server_name = "example.org".into();
    assert!(matches!(Connection::open(&misnamed).await, Err(ClientError::Connect { .. })));
    let mut careless = untrusted;
    careless.trust = Trust::Insecure;
    assert!(Connection::open(&careless).await.is_ok());
    let mut nonsense = options(&node, Transport::Quic);
    nonsense.trust = Trust::Authority(b"no certificate".to_vec().into());
    assert!(matches!(Connection::open(&nonsense).await, Err(ClientError::Invalid(_))));
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_an_error_to_connect() {
    for transport in TRANSPORTS {
        let node = Node::start(1, &Cluster::new()).await;
        let mut options = options(&node, transport);
        options.connect_timeout = Duration::from_millis(300);
        drop(node);
        let error = Connection::open(&options).await.unwrap_err();
        assert!(matches!(error, ClientError::Connect { .. }), "{transport:?}: {error}");
        assert!(error.retry());
    }
}

#[tokio::test]
async fn websocket_pings_are_answered_on_an_idle_connection() {
    let cluster = Cluster::new();
    let node = Node::start(1, &cluster).await;
    let opened = Connection::open(&options(&node, Transport::WebSocketJson)).await.unwrap();
    let pongs = node.pongs.clone();
    eventually("a pong", || pongs.load(std::sync::atomic::Ordering::Relaxed) > 0).await;
    drop(opened);
}

#[tokio::test]
async fn a_silent_node_ends_the_connection_after_the_idle_time() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let node = Node::start(1, &cluster).await;
        let mut options = options(&node, transport);
        options.idle_timeout = Duration::from_millis(200);
        let (connection, _pushes) = Connection::open(&options).await.unwrap();
        let reason = tokio::time::timeout(PATIENCE, connection.closed()).await.unwrap();
        assert!(reason.reconnect, "{transport:?}: {reason}");
    }
}

#[tokio::test]
async fn a_consumer_that_reads_no_pushes_still_gets_replies() {
    let cluster = Cluster::new();
    let node = Node::start(1, &cluster).await;
    for n in 0..2_000 {
        cluster.append(&format!("c-{n}"), "hi".into());
    }
    let (connection, _pushes) = Connection::open(&options(&node, Transport::Quic)).await.unwrap();
    for _ in 0..100 {
        connection.ping().await.unwrap();
    }
}

#[tokio::test]
async fn what_was_submitted_arrives_though_the_connection_is_dropped_at_once() {
    for transport in TRANSPORTS {
        let cluster = Cluster::new();
        let node = Node::start(1, &cluster).await;
        let (connection, pushes) = Connection::open(&options(&node, transport)).await.unwrap();
        let operation = roost_client::Ask::into_operation(message("c-1", "hi"));
        let pending = connection.submit(&operation).await.unwrap();
        drop((pending, connection, pushes));
        eventually("the message", || cluster.bodies() == ["hi"]).await;
    }
}

#[tokio::test]
async fn a_node_is_found_by_name() {
    for transport in TRANSPORTS {
        let node = Node::start(1, &Cluster::new()).await;
        let mut options = options(&node, transport);
        options.endpoint.host = "localhost".into();
        assert!(Connection::open(&options).await.is_ok(), "{transport:?}");
    }
}
