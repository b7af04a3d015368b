//! The WebSocket transport: `GET /v1/ws` on the client port.
//!
//! The upgrade is refused to browsers of foreign origins and to clients that offer subprotocols
//! only which this node does not speak. Compression is never offered. A message's length is looked
//! at before room is made for it.

use std::cell::RefCell;
use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use roost_protocol::websocket::{self, Incoming, Opcode, WebSocketDecoder, WebSocketError};
use roost_protocol::{
    CloseCode, Encoding, ErrorCode, Framing, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK,
};
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;

use super::Context;
use super::http::ApiError;
use super::session::driver;
use super::transport::{Farewell, Inbound, Link, Outbox};

/// Bytes that are read at a time.
const READ_BYTES: usize = 16 * 1024;
/// Frames that are written at a time.
const WRITE_SLICES: usize = 32;

thread_local! {
    /// Where what comes is read to first.
    static READ_ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

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
    let permit = context.gate.websocket();
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
    permit: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
) {
    let Ok(Ok(io)) = timeout(context.options.connect_timeout, upgraded).await else { return };
    // What HTTP needed for the connection goes, but for what was read already.
    let Ok(Parts { io, read_buf, .. }) = io.downcast::<TokioIo<TcpStream>>() else { return };
    let link = WebSocket::new(io.into_inner(), encoding, &read_buf);
    drop(read_buf);
    let refused = permit.is_none().then_some(CloseCode::Overloaded);
    let _open = context.metrics.connection("websocket");
    driver::serve(context, link, Framing::WebSocket(encoding), refused).await;
    drop(permit);
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

/// One connection after its handshake.
pub(crate) struct WebSocket {
    stream: TcpStream,
    encoding: Encoding,
    decoder: WebSocketDecoder,
    /// The beginning of a frame whose end has not come.
    buffer: BytesMut,
    /// The newest ping's answer.
    pong: Option<Bytes>,
    /// Whether to ask for a sign of life.
    ping: bool,
}

impl WebSocket {
    fn new(stream: TcpStream, encoding: Encoding, read: &[u8]) -> Self {
        let (decoder, buffer) = (WebSocketDecoder::default(), BytesMut::from(read));
        Self { stream, encoding, decoder, buffer, pong: None, ping: false }
    }

    /// Takes bytes from the connection: through the thread's own room while nothing waits here for
    /// its end, so that an idle connection has none.
    fn poll_read(&mut self, cx: &mut TaskContext<'_>) -> Poll<io::Result<usize>> {
        if !self.buffer.is_empty() {
            if self.buffer.len() == self.buffer.capacity() {
                self.buffer.reserve(READ_BYTES);
            }
            // The future holds nothing: dropped before it is ready, it has taken nothing.
            return pin!(self.stream.read_buf(&mut self.buffer)).poll(cx);
        }
        READ_ROOM.with_borrow_mut(|room| {
            room.resize(READ_BYTES, 0);
            let mut room = ReadBuf::new(room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
            self.buffer = BytesMut::from(room.filled());
            Poll::Ready(Ok(room.filled().len()))
        })
    }

    fn inbound(&mut self, incoming: Incoming) -> Inbound {
        match (incoming, self.encoding) {
            // JSON that is no UTF-8 is no JSON: its decoder tells.
            (Incoming::Text(bytes), Encoding::Json)
            | (Incoming::Binary(bytes), Encoding::MessagePack) => Inbound::Frame(bytes),
            (Incoming::Text(_) | Incoming::Binary(_), _) => {
                Inbound::Unreadable(CloseCode::BadFrame)
            }
            (Incoming::Ping(bytes), _) => {
                self.pong = Some(bytes);
                Inbound::Alive
            }
            (Incoming::Pong, _) => Inbound::Alive,
            (Incoming::Close(_), _) => Inbound::Ended,
        }
    }
}

impl Link for WebSocket {
    const WATCH_SILENCE: bool = true;

    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Inbound> {
        loop {
            match self.decoder.next(&mut self.buffer) {
                Ok(Some(incoming)) => return Poll::Ready(self.inbound(incoming)),
                Ok(None) => {}
                Err(WebSocketError::TooLarge) => {
                    return Poll::Ready(Inbound::Unreadable(CloseCode::FrameTooLarge));
                }
                Err(WebSocketError::Violation(_)) => {
                    return Poll::Ready(Inbound::Unreadable(CloseCode::BadFrame));
                }
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            match ready!(self.poll_read(cx)) {
                Ok(0) | Err(_) => return Poll::Ready(Inbound::Ended),
                Ok(_) => {}
            }
        }
    }

    fn poll_write(
        &mut self,
        outbox: &mut Outbox,
        cx: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(bytes) = self.pong.take() {
            outbox.push_urgent(websocket::frame(Opcode::Pong, &bytes));
        }
        if std::mem::take(&mut self.ping) {
            outbox.push_urgent(websocket::frame(Opcode::Ping, b""));
        }
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(b""); WRITE_SLICES];
            let count = outbox.slices(&mut slices);
            let stream = Pin::new(&mut self.stream);
            match ready!(stream.poll_write_vectored(cx, &slices[..count]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => outbox.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn probe(&mut self) {
        self.ping = true;
    }

    async fn close(mut self, farewell: Farewell, linger: Duration) {
        let payload = match farewell {
            Some((code, reason)) => [&code.number().to_be_bytes(), reason.as_bytes()].concat(),
            // The peer closes: its close frame is answered.
            None => Vec::new(),
        };
        let goodbye = async {
            self.stream.write_all(&websocket::frame(Opcode::Close, &payload)).await?;
            drain(&mut self.stream).await
        };
        let _ = timeout(linger, goodbye).await;
    }
}

/// Says that nothing more comes, then reads what the peer still sends and throws it away: data that
/// nobody read would make the operating system reset the connection, and the peer might lose the
/// closing frame with it.
async fn drain(stream: &mut TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut scratch = [0; 1024];
    while stream.read(&mut scratch).await? > 0 {}
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
}
