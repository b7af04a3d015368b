//! Envelopes in and out of one transport; what they say is `connection`'s.

mod quic;
mod websocket;

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use roost_protocol::{Encoding, Operation, RequestRef};

pub use quic::QuicSocket;

use crate::error::{ClientError, CloseReason};
use crate::options::{ConnectOptions, Transport};

/// The writing half.
pub(crate) enum Sink {
    Quic(quic::QuicSink),
    WebSocket(websocket::WebSocketSink),
}

/// The reading half.
pub(crate) enum Source {
    Quic(quic::QuicSource),
    WebSocket(websocket::WebSocketSource),
}

/// Connects the transport; nothing of the protocol is said yet. The caller bounds the time.
pub(crate) async fn open(options: &ConnectOptions) -> Result<(Sink, Source), ClientError> {
    match options.transport {
        Transport::Quic => {
            let (sink, source) = quic::open(options).await?;
            Ok((Sink::Quic(sink), Source::Quic(source)))
        }
        Transport::WebSocketJson | Transport::WebSocketMessagePack => {
            let (sink, source) = websocket::open(options).await?;
            Ok((Sink::WebSocket(sink), Source::WebSocket(source)))
        }
    }
}

/// A request as the transport writes it.
pub(crate) fn encode(transport: Transport, id: u64, operation: &Operation) -> Bytes {
    let request = RequestRef { id, operation };
    let mut out = BytesMut::new();
    match transport {
        Transport::Quic => Encoding::encode_request_framed(request, &mut out),
        Transport::WebSocketJson | Transport::WebSocketMessagePack => {
            transport.encoding().encode_request(request, &mut out);
        }
    }
    out.freeze()
}

impl Sink {
    /// Writes encoded requests, in order, and empties `frames`.
    pub(crate) async fn write(&mut self, frames: &mut Vec<Bytes>) -> Result<(), CloseReason> {
        match self {
            Self::Quic(sink) => sink.write(frames).await,
            Self::WebSocket(sink) => sink.write(frames).await,
        }
    }

    /// Sends a sign of life, where the transport does not do so itself.
    pub(crate) async fn probe(&mut self) -> Result<(), CloseReason> {
        match self {
            Self::Quic(_) => Ok(()),
            Self::WebSocket(sink) => sink.ping().await,
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(&mut self) {
        match self {
            Self::Quic(sink) => sink.close().await,
            Self::WebSocket(sink) => sink.close().await,
        }
    }
}

impl Source {
    /// The next envelope.
    pub(crate) async fn next(&mut self) -> Result<Bytes, CloseReason> {
        match self {
            Self::Quic(source) => source.next().await,
            Self::WebSocket(source) => source.next().await,
        }
    }
}

/// The node's addresses, IPv4 first: a name such as `localhost` often has both, and nodes listen on
/// IPv4 unless they are told otherwise.
async fn resolve(options: &ConnectOptions) -> Result<Vec<SocketAddr>, ClientError> {
    let endpoint = &options.endpoint;
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(|error| connect_error(options, &error))?;
    let mut addresses: Vec<SocketAddr> = found.collect();
    addresses.sort_by_key(SocketAddr::is_ipv6);
    Ok(addresses)
}

fn connect_error(options: &ConnectOptions, reason: &dyn std::fmt::Display) -> ClientError {
    ClientError::Connect { endpoint: options.endpoint.to_string(), reason: reason.to_string() }
}
