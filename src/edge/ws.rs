//! The WebSocket transport: `GET /v1/ws` on the client port.
//!
//! The upgrade is refused to browsers of foreign origins and to clients that offer subprotocols
//! only which this node does not speak. Compression is never offered. A message's length is looked
//! at before room is made for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use roost_protocol::limits::MAX_FRAME_BYTES;
use roost_protocol::{CloseCode, Encoding, ErrorCode, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode as WireCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};

use super::Context;
use super::http::ApiError;
use super::session::driver;
use super::transport::{FrameSink, FrameSource, Inbound, Transport};

/// Bytes that are read at a time; each connection has a buffer of this size.
const READ_BUFFER: usize = 8 * 1024;
/// Written frames are gathered up to this many bytes before they leave.
const WRITE_BUFFER: usize = 16 * 1024;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Answers `GET /v1/ws`.
pub(crate) async fn upgrade(State(context): State<Arc<Context>>, mut request: Request) -> Response {
    if !origin_allowed(request.headers(), &context.options.allowed_origins) {
        return ApiError::new(ErrorCode::Forbidden, "this origin may not connect").into_response();
    }
    let Some((encoding, subprotocol)) = choose_subprotocol(request.headers()) else {
        let message = "none of the offered subprotocols is spoken here";
        return ApiError::new(ErrorCode::BadRequest, message).into_response();
    };
    let Ok(mut response) = create_response_with_body(&request, Body::empty) else {
        return ApiError::new(ErrorCode::BadRequest, "this is no WebSocket handshake")
            .with_status(StatusCode::UPGRADE_REQUIRED)
            .into_response();
    };
    if let Some(name) = subprotocol {
        let name = HeaderValue::from_static(name);
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    }
    let permit = context.gate.session();
    if permit.is_none() {
        context.metrics.refused.inc();
    }
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(connection(context, upgraded, encoding, permit));
    response
}

async fn connection(
    context: Arc<Context>,
    upgraded: OnUpgrade,
    encoding: Encoding,
    permit: Option<OwnedSemaphorePermit>,
) {
    let Ok(Ok(io)) = timeout(context.options.connect_timeout, upgraded).await else { return };
    let socket =
        WebSocketStream::from_raw_socket(TokioIo::new(io), Role::Server, Some(config())).await;
    let (sink, stream) = socket.split();
    let refused = permit.is_none().then_some(CloseCode::Overloaded);
    let _open = context.metrics.connection("websocket");
    let (source, sink) = (Source { stream, encoding }, Sink { sink, encoding });
    driver::serve::<WebSocket>(context, source, sink, encoding, refused).await;
    drop(permit);
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME_BYTES))
        .max_frame_size(Some(MAX_FRAME_BYTES))
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
}

/// Whether a browser of the request's origin may connect. What is no browser sends none.
fn origin_allowed(headers: &HeaderMap, allowed: &[String]) -> bool {
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let Ok(origin) = origin.to_str() else { return false };
    if allowed.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(origin)) {
        return true;
    }
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match (origin.split_once("://"), host) {
        (Some(("http" | "https", authority)), Some(host)) => authority.eq_ignore_ascii_case(host),
        _ => false,
    }
}

/// The encoding, and the subprotocol to name: the client's first that is spoken here, JSON if it
/// offers none. `None` if it offers others only.
fn choose_subprotocol(headers: &HeaderMap) -> Option<(Encoding, Option<&'static str>)> {
    let mut offered = headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(str::trim)
        .peekable();
    if offered.peek().is_none() {
        return Some((Encoding::Json, None));
    }
    offered.find_map(|name| match name {
        SUBPROTOCOL_JSON => Some((Encoding::Json, Some(SUBPROTOCOL_JSON))),
        SUBPROTOCOL_MSGPACK => Some((Encoding::MessagePack, Some(SUBPROTOCOL_MSGPACK))),
        _ => None,
    })
}

/// The transport.
pub(crate) struct WebSocket;

/// The receiving half.
pub(crate) struct Source {
    stream: SplitStream<Socket>,
    encoding: Encoding,
}

/// The sending half.
pub(crate) struct Sink {
    sink: SplitSink<Socket, Message>,
    encoding: Encoding,
}

impl FrameSource for Source {
    const WATCH_SILENCE: bool = true;

    async fn next(&mut self) -> Inbound {
        match self.stream.next().await {
            Some(Ok(message)) => inbound(message, self.encoding),
            Some(Err(WsError::Capacity(_))) => Inbound::Unreadable(CloseCode::FrameTooLarge),
            Some(Err(WsError::Utf8(_) | WsError::Protocol(_))) => {
                Inbound::Unreadable(CloseCode::BadFrame)
            }
            Some(Err(_)) | None => Inbound::Ended,
        }
    }
}

fn inbound(message: Message, encoding: Encoding) -> Inbound {
    match (message, encoding) {
        (Message::Text(text), Encoding::Json) => Inbound::Frame(text.into()),
        (Message::Binary(bytes), Encoding::MessagePack) => Inbound::Frame(bytes),
        (Message::Text(_) | Message::Binary(_), _) => Inbound::Unreadable(CloseCode::BadFrame),
        // The library answers pings by itself.
        (Message::Ping(_) | Message::Pong(_), _) => Inbound::Alive,
        (Message::Close(_) | Message::Frame(_), _) => Inbound::Ended,
    }
}

impl FrameSink for Sink {
    async fn write(&mut self, frames: &mut Vec<Bytes>) -> io::Result<()> {
        for frame in frames.drain(..) {
            let message = match self.encoding {
                Encoding::Json => {
                    Message::Text(Utf8Bytes::try_from(frame).map_err(io::Error::other)?)
                }
                Encoding::MessagePack => Message::Binary(frame),
            };
            self.sink.feed(message).await.map_err(io::Error::other)?;
        }
        self.sink.flush().await.map_err(io::Error::other)
    }

    async fn probe(&mut self) -> io::Result<()> {
        self.sink.send(Message::Ping(Bytes::new())).await.map_err(io::Error::other)
    }
}

impl Transport for WebSocket {
    type Source = Source;
    type Sink = Sink;

    async fn close(
        source: Source,
        mut sink: Sink,
        farewell: Option<(CloseCode, &'static str)>,
        linger: Duration,
    ) {
        let goodbye = async {
            match farewell {
                Some((code, message)) => {
                    let code = WireCode::from(code.number());
                    let frame = CloseFrame { code, reason: message.into() };
                    sink.sink.send(Message::Close(Some(frame))).await
                }
                // The peer closes: its close frame is answered.
                None => sink.sink.close().await,
            }
        };
        if !matches!(timeout(linger, goodbye).await, Ok(Ok(()))) {
            return;
        }
        let Ok(socket) = sink.sink.reunite(source.stream) else { return };
        let _ = timeout(linger, drain(socket.into_inner())).await;
    }
}

/// Says that nothing more comes, then reads what the peer still sends and throws it away: data that
/// nobody read would make the operating system reset the connection, and the peer might lose the
/// closing frame with it.
async fn drain(mut io: TokioIo<Upgraded>) -> io::Result<()> {
    io.shutdown().await?;
    let mut scratch = [0; 4 * 1024];
    while io.read(&mut scratch).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_is_no_browser_needs_no_origin() {
        assert!(origin_allowed(&headers(&[("host", "chat.example")]), &[]));
    }

    #[test]
    fn the_own_origin_may_connect_and_others_only_if_allowed() {
        let from = |origin: &str, allowed: &[&str]| {
            let allowed: Vec<_> = allowed.iter().map(|one| (*one).to_owned()).collect();
            origin_allowed(&headers(&[("host", "chat.example:7070"), ("origin", origin)]), &allowed)
        };
        assert!(from("http://chat.example:7070", &[]));
        assert!(from("https://CHAT.example:7070", &[]));
        assert!(!from("https://chat.example", &[]));
        assert!(!from("https://evil.example", &[]));
        assert!(!from("https://chat.example:7070.evil.example", &[]));
        assert!(!from("file://chat.example:7070", &[]));
        assert!(!from("null", &[]));
        assert!(from("https://app.example", &["https://app.example"]));
        assert!(!from("https://app.example.evil", &["https://app.example"]));
        assert!(from("null", &["*"]));
    }

    #[test]
    fn the_clients_first_known_subprotocol_is_chosen() {
        let chosen = |pairs: &[(&'static str, &str)]| choose_subprotocol(&headers(pairs));
        let name = "sec-websocket-protocol";
        assert_eq!(chosen(&[]), Some((Encoding::Json, None)));
        assert_eq!(
            chosen(&[(name, "x, roost.v1.msgpack, roost.v1.json")]),
            Some((Encoding::MessagePack, Some(SUBPROTOCOL_MSGPACK)))
        );
        assert_eq!(
            chosen(&[(name, "x"), (name, "roost.v1.json")]),
            Some((Encoding::Json, Some(SUBPROTOCOL_JSON)))
        );
        assert_eq!(chosen(&[(name, "x, roost.v2.json")]), None);
    }

    #[test]
    fn frames_of_the_other_kind_are_bad() {
        let text = || Message::Text("{}".into());
        let binary = || Message::Binary(Bytes::from_static(b"\x80"));
        assert!(matches!(inbound(text(), Encoding::Json), Inbound::Frame(_)));
        assert!(matches!(inbound(binary(), Encoding::MessagePack), Inbound::Frame(_)));
        let bad = Inbound::Unreadable(CloseCode::BadFrame);
        assert_eq!(inbound(binary(), Encoding::Json), bad);
        assert_eq!(inbound(text(), Encoding::MessagePack), bad);
    }
}
