//! The QUIC listener: TLS 1.3, ALPN `roost/1`, one bidirectional stream a connection.
//!
//! What costs before a client is known is bounded: handshakes at a time, their time, and the bytes
//! that wait for them; when many come, clients must prove their address first. There is no 0-RTT:
//! a request that is replayed would be carried out twice.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, EndpointConfig, Incoming, RecvStream, SendStream, VarInt};
pub(crate) use quinn::{Endpoint, ServerConfig};
use roost_protocol::frame::{FrameDecoder, FrameTooLarge, split_frame};
use roost_protocol::limits::MAX_FRAME_BYTES;
use roost_protocol::{ALPN, CloseCode, Framing};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::session::driver;
use super::transport::{Farewell, Inbound, Link, Outbox};
use super::{Certificate, Context, EdgeError, EdgeOptions};

/// Bytes of one connection that may wait to be read: a frame, and a little of the next.
const RECEIVE_WINDOW: u32 = MAX_FRAME_BYTES as u32 + 256 * 1024;
/// Bytes of one connection that may wait to be acknowledged by the client.
const SEND_WINDOW: u64 = 1024 * 1024;
/// Connections whose first packet was seen, and that wait to be looked at.
const MAX_INCOMING: usize = 1_024;
/// Bytes that those may have sent already, each and all together.
const INCOMING_BYTES: u64 = 64 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 * 1024 * 1024;
/// Bytes that are taken from a stream at a time.
const CHUNK: usize = 64 * 1024;
/// Frames that are handed to the transport at a time.
const WRITE_CHUNKS: usize = 16;

/// TLS and transport of the listener.
pub(crate) fn server_config(
    certificate: Certificate,
    options: &EdgeOptions,
) -> Result<ServerConfig, EdgeError> {
    let refused = |why: &dyn std::fmt::Display| EdgeError::Certificate(why.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|why| refused(&why))?
        .with_no_client_auth()
        .with_single_cert(certificate.chain, certificate.key)
        .map_err(|why| refused(&why))?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.max_early_data_size = 0;
    let tls = QuicServerConfig::try_from(tls).map_err(|why| refused(&why))?;
    let mut config = ServerConfig::with_crypto(Arc::new(tls));
    config
        .transport_config(Arc::new(transport(options)))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    Ok(config)
}

fn transport(options: &EdgeOptions) -> quinn::TransportConfig {
    let idle = u32::try_from(options.idle_timeout.as_millis()).unwrap_or(u32::MAX);
    let mut transport = quinn::TransportConfig::default();
    transport
        // The one stream of the protocol: a second can't be opened.
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(options.keep_alive))
        .max_idle_timeout(Some(VarInt::from_u32(idle).into()));
    transport
}

/// Binds the listener.
pub(crate) fn endpoint(address: SocketAddr, config: ServerConfig) -> io::Result<Endpoint> {
    let socket = std::net::UdpSocket::bind(address)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime)
}

/// Takes clients until the node stops.
pub(crate) async fn serve(context: Arc<Context>, endpoint: Endpoint) {
    let mut stopping = pin!(context.stopping());
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            () = stopping.as_mut() => return,
        };
        let Some(incoming) = incoming else { return };
        if context.gate.handshakes_crowded() && incoming.may_retry() {
            // A client that can't be reached at its address costs nothing more than this.
            let _ = incoming.retry();
            continue;
        }
        match context.gate.handshake() {
            Some(permit) => {
                tokio::spawn(connection(Arc::clone(&context), incoming, permit));
            }
            None => {
                context.metrics.refused.inc();
                incoming.refuse();
            }
        }
    }
}

/// Carries one connection, from its first packet.
async fn connection(context: Arc<Context>, incoming: Incoming, handshake: OwnedSemaphorePermit) {
    let patience = context.options.connect_timeout;
    let Ok(connecting) = incoming.accept() else { return };
    let Ok(Ok(connection)) = timeout(patience, connecting).await else { return };
    let permit = context.gate.session();
    // Who gets no place among the sessions keeps the handshake's until it has been told.
    let (refused, _place) = if permit.is_some() {
        drop(handshake);
        (None, None)
    } else {
        (Some(CloseCode::Overloaded), Some(handshake))
    };
    if refused.is_some() {
        context.metrics.refused.inc();
    }
    // The stream shows itself with the client's first frame.
    let Ok(Ok((send, recv))) = timeout(patience, connection.accept_bi()).await else {
        connection.close(number(CloseCode::Idle), CloseCode::Idle.as_str().as_bytes());
        return;
    };
    let _open = context.metrics.connection("quic");
    let link = Quic::new(connection, send, recv);
    driver::serve(context, link, Framing::Quic, refused).await;
    drop(permit);
}

fn number(code: CloseCode) -> VarInt {
    VarInt::from(code.number())
}

/// One connection's stream.
pub(crate) struct Quic {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    /// What the transport gave last, as far as no frame was taken out of it.
    chunk: Bytes,
    /// The beginning of a frame whose end has not come.
    buffer: BytesMut,
}

impl Quic {
    fn new(connection: Connection, send: SendStream, recv: RecvStream) -> Self {
        Self { connection, send, recv, chunk: Bytes::new(), buffer: BytesMut::new() }
    }

    /// The next whole frame that is here.
    fn frame(&mut self) -> Result<Option<Bytes>, FrameTooLarge> {
        if self.buffer.is_empty()
            && let Some(frame) = split_frame(&mut self.chunk)?
        {
            return Ok(Some(frame));
        }
        self.buffer.extend_from_slice(&std::mem::take(&mut self.chunk));
        FrameDecoder.next(&mut self.buffer)
    }
}

impl Link for Quic {
    // The keep-alive is below the stream, and so is the watch over it.
    const WATCH_SILENCE: bool = false;

    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Inbound> {
        loop {
            match self.frame() {
                Ok(Some(frame)) => return Poll::Ready(Inbound::Frame(frame)),
                Ok(None) => {}
                Err(_) => return Poll::Ready(Inbound::Unreadable(CloseCode::FrameTooLarge)),
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            // The future holds nothing: dropped before it is ready, it has taken nothing.
            match ready!(pin!(self.recv.read_chunk(CHUNK, true)).poll(cx)) {
                Ok(Some(chunk)) => self.chunk = chunk.bytes,
                Ok(None) if self.buffer.is_empty() => return Poll::Ready(Inbound::Ended),
                // The stream ends inside a frame.
                Ok(None) => return Poll::Ready(Inbound::Unreadable(CloseCode::BadFrame)),
                Err(_) => return Poll::Ready(Inbound::Ended),
            }
        }
    }

    fn poll_write(
        &mut self,
        outbox: &mut Outbox,
        cx: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        while !outbox.is_empty() {
            let mut chunks: [Bytes; WRITE_CHUNKS] = std::array::from_fn(|_| Bytes::new());
            let count = outbox.shared(&mut chunks);
            // Like reading: it takes what it can at once, or nothing.
            let written = ready!(pin!(self.send.write_chunks(&mut chunks[..count])).poll(cx));
            outbox.advance(written.map_err(io::Error::other)?.bytes);
        }
        Poll::Ready(Ok(()))
    }

    fn probe(&mut self) {}

    async fn close(mut self, farewell: Farewell, linger: Duration) {
        let Some((code, message)) = farewell else { return };
        if self.send.finish().is_ok() {
            // The closing frame must be there before the connection is not.
            let _ = timeout(linger, self.send.stopped()).await;
        }
        self.connection.close(number(code), message.as_bytes());
    }
}
