//! A node in the test's own process: one user's queue in memory, over WebSocket and QUIC, with
//! faults on demand. Several nodes share one [`Cluster`], as real ones share a log.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use roost_client::{Endpoint, Transport, Trust};
use roost_protocol::frame::FrameDecoder;
use roost_protocol::limits::{Limits, window_size};
use roost_protocol::reply::{Acked, Closing, Connected, ItemsPush, Page, Pong, Sent};
use roost_protocol::{
    CloseCode, Encoding, ErrorBody, ErrorCode, Item, ItemContent, Message, OkBody, Operation, Push,
    Request, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, ServerFrame,
};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::server::{
    ErrorResponse, Request as Upgrade, Response,
};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, http::HeaderValue};

/// How long a condition may take to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a node does wrong, or says instead of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Carries out this many sends, then one more, and cuts the connection instead of answering.
    CutAfterSends(u64),
    /// Pushes this many items on a connection, then cuts it.
    CutAfterItems(u64),
    /// Answers this many sends with this code; they have no effect.
    Refuse(u64, ErrorCode),
    /// Says nothing after `connect`.
    Silent,
    /// Closes with this code after `connect`.
    Close(CloseCode),
    /// Holds this many replies back, then gives them in the opposite order.
    Reverse(usize),
}

/// What the nodes share: the queue and its cursor.
pub(crate) struct Cluster {
    state: Mutex<State>,
    tail: watch::Sender<u64>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) head: u64,
    pub(crate) cursor: u64,
    pub(crate) messages: Vec<Message>,
    pub(crate) connects: Vec<Option<u64>>,
    pub(crate) applied_asked: Vec<Option<u64>>,
    pub(crate) faults: HashMap<u64, Fault>,
    pub(crate) good_token: String,
}

impl Cluster {
    pub(crate) fn new() -> Arc<Self> {
        let state = State { head: 1, good_token: "good".into(), ..State::default() };
        Arc::new(Self { state: Mutex::new(state), tail: watch::Sender::new(0) })
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock())
    }

    pub(crate) fn fault(&self, node: u64, fault: Fault) {
        self.with(|state| state.faults.insert(node, fault));
    }

    pub(crate) fn bodies(&self) -> Vec<String> {
        self.with(|state| {
            state.messages.iter().map(|m| m.body.text().unwrap().to_owned()).collect()
        })
    }

    /// Puts a message into the queue.
    pub(crate) fn append(&self, client_id: &str, body: roost_protocol::Body) -> Sent {
        let mut state = self.state.lock();
        let known = state.messages.iter().find(|m| m.client_id == client_id).map(|m| m.seq);
        let seq = known.unwrap_or_else(|| {
            let seq = state.messages.len() as u64 + 1;
            state.messages.push(Message {
                seq,
                sender: "alice".into(),
                at_ms: seq,
                body,
                content_type: None,
                client_id: client_id.into(),
                expires_at_ms: None,
            });
            self.tail.send_replace(seq);
            seq
        });
        let duplicate = known.is_some();
        Sent { conversation: "c".into(), seq, at_ms: seq, duplicate, applied: 10 + seq }
    }

    fn items(&self, after: u64, limit: usize) -> Vec<Item> {
        let state = self.state.lock();
        let messages = state.messages.iter().skip(after as usize).take(limit);
        messages
            .map(|message| Item {
                seq: message.seq,
                content: ItemContent::Message {
                    conversation: "c".into(),
                    message: message.clone(),
                },
            })
            .collect()
    }
}

/// What a session tells its transport.
enum Out {
    Frame(ServerFrame),
    Close(CloseCode),
    Cut,
}

/// A node; it stops when dropped, without a word.
pub(crate) struct Node {
    pub(crate) websocket: SocketAddr,
    pub(crate) quic: SocketAddr,
    pub(crate) authority: Arc<[u8]>,
    pub(crate) pongs: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
    endpoint: quinn::Endpoint,
}

impl Drop for Node {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.endpoint.close(0u32.into(), b"");
    }
}

impl Node {
    pub(crate) async fn start(id: u64, cluster: &Arc<Cluster>) -> Self {
        let pongs = Arc::new(AtomicU64::new(0));
        let (endpoint, authority) = quic_endpoint();
        let quic = endpoint.local_addr().unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let websocket = listener.local_addr().unwrap();
        let tasks = vec![
            tokio::spawn(serve_websocket(id, cluster.clone(), listener, pongs.clone())),
            tokio::spawn(serve_quic(id, cluster.clone(), endpoint.clone())),
        ];
        Self { websocket, quic, authority, pongs, tasks, endpoint }
    }

    pub(crate) fn endpoint(&self, transport: Transport) -> Endpoint {
        Endpoint::from(match transport {
            Transport::Quic => self.quic,
            _ => self.websocket,
        })
    }

    pub(crate) fn trust(&self) -> Trust {
        Trust::Authority(self.authority.clone())
    }
}

fn quic_endpoint() -> (quinn::Endpoint, Arc<[u8]>) {
    let signed = rcgen::generate_simple_self_signed(vec!["roost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.unwrap())
        .unwrap();
    tls.alpn_protocols = vec![roost_protocol::ALPN.to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    (endpoint, signed.cert.pem().into_bytes().into())
}

async fn serve_quic(id: u64, cluster: Arc<Cluster>, endpoint: quinn::Endpoint) {
    let mut sessions = tokio::task::JoinSet::new();
    while let Some(incoming) = endpoint.accept().await {
        let cluster = cluster.clone();
        sessions.spawn(async move {
            let Ok(connection) = incoming.await else { return };
            let Ok((mut send, mut recv)) = connection.accept_bi().await else { return };
            let (requests, queue) = mpsc::channel(16);
            let (out, mut replies) = mpsc::channel(16);
            let mut session = tokio::task::JoinSet::new();
            session.spawn(serve(id, cluster, queue, out));
            let read = async move {
                use tokio::io::AsyncReadExt as _;
                let mut buffer = BytesMut::new();
                while let Ok(1..) = recv.read_buf(&mut buffer).await {
                    while let Some(frame) = FrameDecoder.next(&mut buffer).unwrap() {
                        let request = Encoding::MessagePack.decode_request(&frame).unwrap();
                        let _ = requests.send(request).await;
                    }
                }
                // What was read is still carried out.
                drop(requests);
                session.join_next().await;
            };
            let write = async {
                while let Some(out) = replies.recv().await {
                    match out {
                        Out::Frame(frame) => {
                            let mut bytes = BytesMut::new();
                            Encoding::encode_server_framed(&frame, &mut bytes);
                            let _ = send.write_all(&bytes).await;
                        }
                        Out::Close(code) => {
                            // What a closed connection had not sent is never sent.
                            let _ = send.finish();
                            let _ = send.stopped().await;
                            let number = u32::from(code.number());
                            connection.close(number.into(), code.as_str().as_bytes());
                        }
                        Out::Cut => {
                            let _ = send.finish();
                            let _ = send.stopped().await;
                            connection.close(9999u32.into(), b"");
                        }
                    }
                }
            };
            tokio::select! { () = read => {}, () = write => {} }
        });
    }
}

async fn serve_websocket(
    id: u64,
    cluster: Arc<Cluster>,
    listener: tokio::net::TcpListener,
    pongs: Arc<AtomicU64>,
) {
    let mut sessions = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (cluster, pongs) = (cluster.clone(), pongs.clone());
        sessions.spawn(async move {
            let mut encoding = Encoding::Json;
            // The size of the error is the handshake crate's own.
            #[allow(clippy::result_large_err)]
            let choose = |upgrade: &Upgrade, mut response: Response| {
                let offered = upgrade.headers().get("sec-websocket-protocol").unwrap();
                let chosen = if offered == SUBPROTOCOL_MSGPACK {
                    encoding = Encoding::MessagePack;
                    SUBPROTOCOL_MSGPACK
                } else {
                    SUBPROTOCOL_JSON
                };
                let value = HeaderValue::from_static(chosen);
                response.headers_mut().insert("sec-websocket-protocol", value);
                Ok::<_, ErrorResponse>(response)
            };
            let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, choose).await else {
                return;
            };
            let (mut sink, mut source) = socket.split();
            let (requests, queue) = mpsc::channel(16);
            let (out, mut replies) = mpsc::channel(16);
            let mut session = tokio::task::JoinSet::new();
            session.spawn(serve(id, cluster, queue, out));
            let read = async move {
                while let Some(Ok(message)) = source.next().await {
                    let bytes: Bytes = match message {
                        tungstenite::Message::Text(text) => text.into(),
                        tungstenite::Message::Binary(bytes) => bytes,
                        tungstenite::Message::Pong(_) => {
                            pongs.fetch_add(1, Ordering::Relaxed);
                            continue;
                        }
                        _ => continue,
                    };
                    let _ = requests.send(encoding.decode_request(&bytes).unwrap()).await;
                }
                drop(requests);
                session.join_next().await;
            };
            let write = async {
                let _ = sink.send(tungstenite::Message::Ping(Bytes::new())).await;
                while let Some(out) = replies.recv().await {
                    match out {
                        Out::Frame(frame) => {
                            let bytes = encoding.server_bytes(&frame);
                            let message = match encoding {
                                Encoding::Json => {
                                    tungstenite::Message::Text(bytes.try_into().unwrap())
                                }
                                Encoding::MessagePack => tungstenite::Message::Binary(bytes),
                            };
                            let _ = sink.send(message).await;
                        }
                        Out::Close(code) => {
                            let reason = code.as_str().into();
                            let frame = CloseFrame { code: code.number().into(), reason };
                            let _ = sink.send(tungstenite::Message::Close(Some(frame))).await;
                        }
                        Out::Cut => return,
                    }
                }
            };
            tokio::select! { () = read => {}, () = write => {} }
        });
    }
}

/// One session, whatever carries it.
async fn serve(
    id: u64,
    cluster: Arc<Cluster>,
    mut requests: mpsc::Receiver<Request>,
    out: mpsc::Sender<Out>,
) {
    let Some(Request { id: request, operation: Operation::Connect(connect) }) =
        requests.recv().await
    else {
        return;
    };
    let fault = cluster.with(|state| state.faults.get(&id).copied());
    if connect.token.as_str() != cluster.with(|state| state.good_token.clone()) {
        let error = ErrorBody::new(ErrorCode::Unauthorized, "bad token");
        let _ = out.send(Out::Frame(ServerFrame::Error { id: request, error })).await;
        let _ = out.send(Out::Close(CloseCode::Unauthorized)).await;
        return;
    }
    let connected = cluster.with(|state| {
        state.connects.push(connect.after);
        state.applied_asked.push(connect.applied);
        let after = connect.after.unwrap_or(state.cursor);
        Connected {
            user: "alice".into(),
            device: connect.device.clone(),
            node: id,
            head: state.head,
            tail: state.messages.len() as u64,
            cursor: state.cursor,
            resumed: after + 1 >= state.head,
            applied: 10 + state.messages.len() as u64,
            server_time_ms: 1,
            limits: Limits::default(),
        }
    });
    let mut pushed = if connected.resumed {
        connect.after.unwrap_or(connected.cursor)
    } else {
        connected.head - 1
    };
    let ok = OkBody::Connected(Box::new(connected));
    let _ = out.send(Out::Frame(ServerFrame::Reply { id: request, ok })).await;

    let window = u64::from(window_size(connect.window));
    let mut tail = cluster.tail.subscribe();
    let mut sends = 0;
    let mut items_left = match fault {
        Some(Fault::CutAfterItems(items)) => items,
        _ => u64::MAX,
    };
    let mut held = Vec::new();
    if let Some(Fault::Close(code)) = fault {
        let closing = Closing::new(code, "as the test wants");
        let _ = out.send(Out::Frame(ServerFrame::Push(Push::Closing(closing)))).await;
        let _ = out.send(Out::Close(code)).await;
        return;
    }
    loop {
        let silent = fault == Some(Fault::Silent);
        let room =
            (cluster.with(|state| state.cursor) + window).saturating_sub(pushed).min(items_left);
        let items = if silent { Vec::new() } else { cluster.items(pushed, room.min(20) as usize) };
        if let Some(last) = items.last() {
            pushed = last.seq;
            items_left -= items.len() as u64;
            let tail = cluster.with(|state| state.messages.len() as u64);
            let push = ItemsPush { items, tail, applied: 10 + tail };
            let _ = out.send(Out::Frame(ServerFrame::Push(Push::Items(push)))).await;
            continue;
        }
        if items_left == 0 {
            let _ = out.send(Out::Cut).await;
            return;
        }
        let request = tokio::select! {
            _ = tail.changed() => continue,
            request = requests.recv() => request,
        };
        let Some(Request { id: request, operation }) = request else { return };
        if silent {
            continue;
        }
        sends += u64::from(matches!(operation, Operation::Send(_)));
        let frame = match fault {
            Some(Fault::Refuse(times, code)) if sends > 0 && sends <= times => {
                ServerFrame::Error { id: request, error: ErrorBody::new(code, "as the test wants") }
            }
            _ => answer(&cluster, request, operation),
        };
        if matches!(fault, Some(Fault::CutAfterSends(times)) if sends > times) {
            let _ = out.send(Out::Cut).await;
            return;
        }
        held.push(frame);
        if matches!(fault, Some(Fault::Reverse(replies)) if held.len() < replies) {
            continue;
        }
        while let Some(frame) = held.pop() {
            let _ = out.send(Out::Frame(frame)).await;
        }
    }
}

fn answer(cluster: &Cluster, id: u64, operation: Operation) -> ServerFrame {
    let tail = cluster.with(|state| state.messages.len() as u64);
    let ok = match operation {
        Operation::Send(send) => OkBody::Sent(cluster.append(&send.client_id, send.body)),
        Operation::Pull(pull) => {
            let items = cluster.items(pull.after, 500);
            let head = cluster.with(|state| state.head);
            OkBody::Page(Page { items, head, tail, more: false, applied: 10 + tail })
        }
        Operation::Ack(ack) if ack.seq <= tail => {
            let cursor = cluster.with(|state| {
                state.cursor = state.cursor.max(ack.seq);
                state.cursor
            });
            OkBody::Acked(Acked { cursor, applied: 10 + tail })
        }
        Operation::Ack(_) => {
            let error = ErrorBody::new(ErrorCode::BadRequest, "`seq` is beyond the tail");
            return ServerFrame::Error { id, error };
        }
        Operation::Ping(_) => OkBody::Pong(Pong { server_time_ms: 1 }),
        other => {
            let error = ErrorBody::new(ErrorCode::UnknownOperation, other.kind().as_str());
            return ServerFrame::Error { id, error };
        }
    };
    ServerFrame::Reply { id, ok }
}
