//! One node in the test's own process, and clients that say exactly what a test wants said, right
//! or wrong.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use roost::auth::{Grant, SigningKey};
use roost::config::NodeConfig;
use roost::edge::EdgeOptions;
use roost::keys::{ClusterKeys, NodeKeys};
use roost::node::Node;
use roost_storage::engine::EngineKind;
use roost_storage::model::{DeviceId, UserId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node of its own cluster.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    pub(crate) keys: NodeKeys,
    data: TempDir,
}

impl TestNode {
    /// Starts a node and waits until it can serve.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same, with an edge of other bounds and times.
    pub(crate) async fn start_with(change: impl FnOnce(&mut EdgeOptions)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let cluster_keys = ClusterKeys::open_or_create(&data.path().join("keys")).unwrap();
        let keys = cluster_keys.issue_node(1, &["127.0.0.1".to_owned()]).unwrap();
        let config = NodeConfig {
            data: data.path().to_owned(),
            node_id: 1,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            peer_listen: free_udp_address().await,
            advertise: None,
            peers: BTreeMap::new(),
            keys: None,
            engine: Some(EngineKind::Sled),
            verify_store: None,
            dirty_bytes: 64 * 1024 * 1024,
            log_keep_entries: 1_000,
            token_public_keys: Vec::new(),
            token_secrets: Vec::new(),
            allowed_origins: vec!["https://app.example".to_owned()],
            log: "warn".to_owned(),
        };
        let mut edge = EdgeOptions::from(&config);
        change(&mut edge);
        let node = Node::start_with(&config, keys.clone(), edge).await.unwrap();
        let node = Self { node, keys, data };
        node.ready().await;
        node
    }

    async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.http("GET", "/readyz", None, None).await.0 != 200 {
            assert!(Instant::now() < deadline, "the node does not become ready");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// The node's data folder.
    pub(crate) fn data(&self) -> &Path {
        self.data.path()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.node.client_addr()
    }

    pub(crate) fn token(&self, user: &str) -> String {
        self.mint(user, None, false)
    }

    pub(crate) fn admin(&self) -> String {
        self.mint("root", None, true)
    }

    pub(crate) fn mint(&self, user: &str, device: Option<&str>, admin: bool) -> String {
        self.sign(&Grant {
            user: UserId::new(user).unwrap(),
            device: device.map(|device| DeviceId::new(device).unwrap()),
            admin,
            ttl_s: 600,
        })
    }

    /// A user's token for so many seconds.
    pub(crate) fn short_token(&self, user: &str, ttl_s: u64) -> String {
        self.sign(&Grant { user: UserId::new(user).unwrap(), device: None, admin: false, ttl_s })
    }

    fn sign(&self, grant: &Grant) -> String {
        SigningKey::new(&self.keys.token).unwrap().mint(grant).unwrap()
    }

    /// The value of a line of `/metrics`.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let Value::String(metrics) = self.http("GET", "/metrics", None, None).await.1 else {
            panic!("no text")
        };
        let value = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        value.unwrap_or_else(|| panic!("no {name}\n{metrics}")).parse().unwrap()
    }

    /// One HTTP request: status, and the body as JSON (or as a JSON string).
    pub(crate) async fn http(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<Value>,
    ) -> (u16, Value) {
        let url = format!("http://{}{path}", self.address());
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = reqwest::Client::new().request(method, url).timeout(PATIENCE);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A WebSocket handshake with these headers.
    pub(crate) fn handshake(&self, headers: &[(&'static str, &str)]) -> Request {
        let url = format!("ws://{}/v1/ws", self.address());
        let mut request = url.into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        request
    }

    /// A WebSocket with JSON.
    pub(crate) async fn websocket(&self) -> JsonClient {
        let (socket, _) = connect_async(self.handshake(&[])).await.unwrap();
        JsonClient { socket, pushed: Vec::new() }
    }

    /// A connected client.
    pub(crate) async fn client(&self, user: &str, device: &str) -> JsonClient {
        let mut client = self.websocket().await;
        let reply = client.connect(&self.token(user), device, json!({})).await;
        assert!(reply.get("ok").is_some(), "{reply}");
        client
    }

    /// A QUIC connection with the protocol's ALPN.
    pub(crate) async fn quic(&self) -> quinn::Connection {
        timeout(PATIENCE, self.connecting(&Self::endpoint(&self.keys))).await.unwrap().unwrap()
    }

    /// The same from an endpoint that others share, not waited for.
    pub(crate) fn connecting(&self, endpoint: &quinn::Endpoint) -> quinn::Connecting {
        endpoint.connect(self.address(), roost::keys::CLUSTER_NAME).unwrap()
    }

    /// An endpoint that trusts a cluster's nodes.
    pub(crate) fn endpoint(keys: &NodeKeys) -> quinn::Endpoint {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(keys.ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![roost_protocol::ALPN.to_vec()];
        let tls = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
        endpoint
    }
}

async fn free_udp_address() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap()
}

/// A client that speaks JSON over a WebSocket, one request at a time.
pub(crate) struct JsonClient {
    pub(crate) socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// Pushes that came while a reply was waited for.
    pushed: Vec<Value>,
}

impl JsonClient {
    pub(crate) async fn send(&mut self, message: Message) {
        self.socket.send(message).await.unwrap();
    }

    /// The next envelope; none at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("an envelope in time");
            match message {
                Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Sends a request, and gives its answer.
    pub(crate) async fn ask(&mut self, id: u64, operation: &str, fields: Value) -> Value {
        let request = json!({ "id": id, operation: fields });
        self.send(Message::text(request.to_string())).await;
        self.answer(id).await
    }

    /// The answer to a request that was sent.
    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        loop {
            let envelope = self.next().await.expect("an answer before the end");
            if envelope["id"] == id {
                return envelope;
            }
            assert!(envelope.get("id").is_none(), "an answer to nothing: {envelope}");
            self.pushed.push(envelope);
        }
    }

    pub(crate) async fn connect(&mut self, token: &str, device: &str, more: Value) -> Value {
        let mut fields = json!({ "token": token, "device": { "id": device, "kind": "app" } });
        let Value::Object(more) = more else { panic!("an object") };
        fields.as_object_mut().unwrap().extend(more);
        self.ask(1, "connect", fields).await
    }

    /// The next push.
    pub(crate) async fn push(&mut self) -> Value {
        if !self.pushed.is_empty() {
            return self.pushed.remove(0);
        }
        self.next().await.expect("a push before the end")
    }

    /// The next `count` pushed items; they may come in several pushes.
    pub(crate) async fn items(&mut self, count: usize) -> Vec<Value> {
        let mut items = Vec::new();
        while items.len() < count {
            let push = self.push().await;
            items.extend(push["items"]["items"].as_array().expect("items").iter().cloned());
        }
        items
    }

    /// The closing push's code, and the close frame's number.
    pub(crate) async fn end(&mut self) -> (String, u16) {
        let mut code = String::new();
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("the end in time");
            match message.expect("a close frame before the end").expect("a close frame") {
                Message::Text(text) => {
                    let envelope: Value = serde_json::from_str(&text).unwrap();
                    if let Some(closing) = envelope.get("closing") {
                        code = closing["code"].as_str().unwrap().to_owned();
                    }
                }
                Message::Close(frame) => return (code, frame.expect("a code").code.into()),
                _ => {}
            }
        }
    }
}

/// The error code of an answer.
pub(crate) fn code(answer: &Value) -> &str {
    answer["error"]["code"].as_str().unwrap_or_else(|| panic!("no error: {answer}"))
}

/// The bodies of items that are messages, in order.
pub(crate) fn bodies(items: &[Value]) -> Vec<&str> {
    items.iter().filter_map(|item| item["message"]["body"].as_str()).collect()
}

/// The sequences of items.
pub(crate) fn seqs(items: &[Value]) -> Vec<u64> {
    items.iter().map(|item| item["seq"].as_u64().unwrap()).collect()
}
