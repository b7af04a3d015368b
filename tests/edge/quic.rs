//! The protocol over QUIC: framing, and how connections end.

use std::time::Duration;

use crate::support::{PATIENCE, TestNode};
use bytes::{Bytes, BytesMut};
use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use roost_protocol::frame::FrameDecoder;
use roost_protocol::limits::MAX_FRAME_BYTES;
use roost_protocol::request::{Connect, Ping, SendMessage};
use roost_protocol::{
    Device, DeviceKind, Encoding, OkBody, Operation, OperationKind, Push, Request, ServerFrame,
    Target,
};
use tokio::time::timeout;

/// A client that frames by itself.
pub(crate) struct Client {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    buffer: BytesMut,
}

impl Client {
    async fn open(node: &TestNode) -> Self {
        Self::on(node.quic().await).await
    }

    /// A client on a connection that stands.
    pub(crate) async fn on(connection: Connection) -> Self {
        let (send, recv) = connection.open_bi().await.unwrap();
        Self { connection, send, recv, buffer: BytesMut::new() }
    }

    async fn connected(node: &TestNode, user: &str) -> Self {
        let mut client = Self::open(node).await;
        client.connect(node, user).await;
        client
    }

    /// Says who this is.
    pub(crate) async fn connect(&mut self, node: &TestNode, user: &str) {
        let client = self;
        let connect = Operation::Connect(Connect {
            token: node.token(user).into(),
            device: Device { id: "phone".into(), kind: DeviceKind::App },
            after: None,
            window: None,
            applied: None,
        });
        client.request(1, connect).await;
        match client.next(OperationKind::Connect).await {
            Some(ServerFrame::Reply { id: 1, ok: OkBody::Connected(connected) }) => {
                assert_eq!(connected.user, user);
            }
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a sign of life, and gets it.
    pub(crate) async fn ping(&mut self, id: u64) {
        self.request(id, Operation::Ping(Ping {})).await;
        let answer = self.next(OperationKind::Ping).await;
        assert!(
            matches!(answer, Some(ServerFrame::Reply { ok: OkBody::Pong(_), .. })),
            "{answer:?}"
        );
    }

    pub(crate) async fn request(&mut self, id: u64, operation: Operation) {
        let mut out = BytesMut::new();
        Encoding::encode_request_framed((&Request { id, operation }).into(), &mut out);
        self.send.write_all(&out).await.unwrap();
    }

    /// The next envelope, a reply being one to `operation`; none at the end of the stream.
    async fn next(&mut self, operation: OperationKind) -> Option<ServerFrame> {
        let frame = timeout(PATIENCE, self.frame()).await.expect("an envelope in time")?;
        Encoding::MessagePack.decode_server(&frame, &|_| Some(operation)).unwrap()
    }

    async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = FrameDecoder.next(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            let chunk = self.recv.read_chunk(usize::MAX, true).await.ok().flatten()?;
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }

    /// Whether the next envelope is an answer, and no goodbye.
    pub(crate) async fn is_answered(&mut self) -> bool {
        let next = self.next(OperationKind::Ping).await;
        matches!(next, Some(ServerFrame::Reply { .. } | ServerFrame::Error { .. }))
    }

    /// The closing push's code and the connection's.
    pub(crate) async fn end(mut self) -> (String, u64) {
        let mut code = String::new();
        while let Some(frame) = self.next(OperationKind::Ping).await {
            if let ServerFrame::Push(Push::Closing(closing)) = frame {
                code = closing.code.to_string();
            }
        }
        match timeout(PATIENCE, self.connection.closed()).await.expect("the end in time") {
            ConnectionError::ApplicationClosed(close) => (code, close.error_code.into_inner()),
            other => panic!("{other}"),
        }
    }
}

fn send_to(user: &str, n: u64) -> Operation {
    Operation::Send(SendMessage {
        target: Target::User(user.into()),
        client_id: format!("c{n}").into(),
        body: vec![0xff, n as u8].into(),
        content_type: None,
        ttl_ms: None,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_travel_and_bytes_stay_bytes() {
    let node = TestNode::start().await;
    let mut alice = Client::connected(&node, "alice").await;
    let mut bob = Client::connected(&node, "bob").await;
    alice.request(2, send_to("bob", 1)).await;
    let Some(ServerFrame::Push(Push::Items(push))) = bob.next(OperationKind::Ping).await else {
        panic!("no items")
    };
    assert_eq!((push.tail, push.items.len(), push.items[0].seq), (1, 1, 1));
    let roost_protocol::ItemContent::Message { message, .. } = &push.items[0].content else {
        panic!("no message")
    };
    assert_eq!((message.body.as_bytes(), message.sender.as_str()), (&[0xff, 1][..], "alice"));
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_may_come_in_pieces() {
    let node = TestNode::start().await;
    let mut alice = Client::connected(&node, "alice").await;
    let mut out = BytesMut::new();
    let request = Request { id: 5, operation: Operation::Ping(Ping {}) };
    Encoding::encode_request_framed((&request).into(), &mut out);
    for byte in out {
        alice.send.write_all(&[byte]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let answer = alice.next(OperationKind::Ping).await;
    assert!(
        matches!(answer, Some(ServerFrame::Reply { id: 5, ok: OkBody::Pong(_) })),
        "{answer:?}"
    );
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_too_long_is_refused_by_its_length() {
    let node = TestNode::start().await;
    let mut client = Client::connected(&node, "alice").await;
    let length = u32::try_from(MAX_FRAME_BYTES + 1).unwrap();
    client.send.write_all(&length.to_be_bytes()).await.unwrap();
    assert_eq!(client.end().await, ("frame_too_large".to_owned(), 4003));
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_and_half_frames_end_the_connection() {
    let node = TestNode::start().await;
    let mut client = Client::open(&node).await;
    client.send.write_all(b"\x00\x00\x00\x03abc").await.unwrap();
    assert_eq!(client.end().await, ("bad_frame".to_owned(), 4003));
    let mut client = Client::open(&node).await;
    client.send.write_all(b"\x00\x00\x00\x09half").await.unwrap();
    client.send.finish().unwrap();
    assert_eq!(client.end().await, ("bad_frame".to_owned(), 4003));
    node.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_node_and_a_replaced_device_say_so() {
    let node = TestNode::start().await;
    let first = Client::connected(&node, "alice").await;
    let second = Client::connected(&node, "alice").await;
    assert_eq!(first.end().await, ("replaced".to_owned(), 4002));
    let ends = async { assert_eq!(second.end().await, ("shutting_down".to_owned(), 4000)) };
    tokio::join!(node.node.shutdown(), ends);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_has_one_stream() {
    let node = TestNode::start().await;
    let client = Client::connected(&node, "alice").await;
    let second = timeout(Duration::from_millis(200), client.connection.open_bi()).await;
    assert!(second.is_err(), "a second stream was granted");
    let aside = timeout(Duration::from_millis(200), client.connection.open_uni()).await;
    assert!(aside.is_err(), "a one-way stream was granted");
    node.node.shutdown().await;
}
