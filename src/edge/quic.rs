//! The QUIC listener: TLS 1.3, ALPN `roost/1`, one bidirectional stream a connection.
//!
//! What costs before a client is known is bounded: handshakes at a time, their time, and the bytes
//! that wait for them; when many come, clients must prove their address first. There is no 0-RTT:
//! a request that is replayed would be carried out twice.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, EndpointConfig, Incoming, RecvStream, SendStream, VarInt};
pub(crate) use quinn::{Endpoint, ServerConfig};
use roost_protocol::frame::FrameDecoder;
use roost_protocol::limits::MAX_FRAME_BYTES;
use roost_protocol::{ALPN, CloseCode, Encoding};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::session::driver;
use super::transport::{FrameSink, FrameSource, Inbound, Transport};
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
    let source = Source { recv, buffer: BytesMut::new(), connection };
    let sink = Sink { send };
    driver::serve::<Quic>(context, source, sink, Encoding::MessagePack, refused).await;
    drop(permit);
}

fn number(code: CloseCode) -> VarInt {
    VarInt::from(code.number())
}

/// The transport.
pub(crate) struct Quic;

/// The receiving half.
pub(crate) struct Source {
    recv: RecvStream,
    buffer: BytesMut,
    connection: Connection,
}

/// The sending half.
pub(crate) struct Sink {
    send: SendStream,
}

impl FrameSource for Source {
    // The keep-alive is below the stream, and so is the watch over it.
    const WATCH_SILENCE: bool = false;

    async fn next(&mut self) -> Inbound {
        loop {
            match FrameDecoder.next(&mut self.buffer) {
                Ok(Some(frame)) => return Inbound::Frame(frame),
                Ok(None) => {}
                Err(_) => return Inbound::Unreadable(CloseCode::FrameTooLarge),
            }
            match self.recv.read_chunk(CHUNK, true).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk.bytes),
                Ok(None) if self.buffer.is_empty() => return Inbound::Ended,
                // The stream ends inside a frame.
                Ok(None) => return Inbound::Unreadable(CloseCode::BadFrame),
                Err(_) => return Inbound::Ended,
            }
        }
    }
}

impl FrameSink for Sink {
    async fn write(&mut self, frames: &mut Vec<Bytes>) -> io::Result<()> {
        let mut chunks = Vec::with_capacity(2 * frames.len());
        for frame in frames.drain(..) {
            let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
            chunks.push(Bytes::copy_from_slice(&length.to_be_bytes()));
            chunks.push(frame);
        }
        self.send.write_all_chunks(&mut chunks).await.map_err(io::Error::other)
    }

    async fn probe(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Transport for Quic {
    type Source = Source;
    type Sink = Sink;

    async fn close(
        source: Source,
        mut sink: Sink,
        farewell: Option<(CloseCode, &'static str)>,
        linger: Duration,
    ) {
        let Some((code, message)) = farewell else { return };
        if sink.send.finish().is_ok() {
            // The closing frame must be there before the connection is not.
            let _ = timeout(linger, sink.send.stopped()).await;
        }
        source.connection.close(number(code), message.as_bytes());
    }
}
