//! QUIC: one bidirectional stream of length-prefixed MessagePack envelopes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, ReadError, RecvStream, SendStream, VarInt};
use roost_protocol::CloseCode;
use roost_protocol::frame::FrameDecoder;

use super::{connect_error, resolve};
use crate::error::{ClientError, CloseReason};
use crate::options::ConnectOptions;
use crate::tls;

/// Room that a read finds at least.
const READ_BYTES: usize = 16 * 1024;
/// How long a stream that ended waits for the connection's own reason.
const REASON_WAIT: Duration = Duration::from_millis(500);

/// The writing half.
pub(crate) struct QuicSink {
    connection: Connection,
    stream: SendStream,
}

/// The reading half.
pub(crate) struct QuicSource {
    connection: Connection,
    stream: RecvStream,
    buffer: BytesMut,
}

/// A UDP socket that many QUIC connections share, instead of one for each.
///
/// They also share what the options that it was opened with say of trust, server name and times.
#[derive(Clone)]
pub struct QuicSocket {
    endpoint: quinn::Endpoint,
    config: ClientConfig,
}

impl QuicSocket {
    /// Opens a socket for connections to nodes of the same address family as the options' endpoint.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] for a trust that cannot be used, [`ClientError::Connect`] if the
    /// system refuses the socket.
    pub async fn open(options: &ConnectOptions) -> Result<Self, ClientError> {
        let addresses = resolve(options).await?;
        let address = *addresses.first().ok_or_else(|| connect_error(options, &"no address"))?;
        Ok(Self { endpoint: endpoint_for(options, address)?, config: client_config(options)? })
    }
}

impl std::fmt::Debug for QuicSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QuicSocket")
    }
}

fn endpoint_for(
    options: &ConnectOptions,
    address: SocketAddr,
) -> Result<quinn::Endpoint, ClientError> {
    let local: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    quinn::Endpoint::client(SocketAddr::new(local, 0))
        .map_err(|error| connect_error(options, &error))
}

pub(super) async fn open(options: &ConnectOptions) -> Result<(QuicSink, QuicSource), ClientError> {
    // Unlike TCP, UDP does not tell that nobody is there: one address has to do.
    let addresses = resolve(options).await?;
    let address = *addresses.first().ok_or_else(|| connect_error(options, &"no address"))?;
    let (endpoint, config) = match &options.socket {
        Some(shared) => (shared.endpoint.clone(), shared.config.clone()),
        None => (endpoint_for(options, address)?, client_config(options)?),
    };
    let connection = endpoint
        .connect_with(config, address, &options.server_name)
        .map_err(|error| connect_error(options, &error))?
        .await
        .map_err(|error| connect_error(options, &error))?;
    let (send, recv) =
        connection.open_bi().await.map_err(|error| connect_error(options, &error))?;
    let sink = QuicSink { connection: connection.clone(), stream: send };
    Ok((sink, QuicSource { connection, stream: recv, buffer: BytesMut::new() }))
}

fn client_config(options: &ConnectOptions) -> Result<ClientConfig, ClientError> {
    let invalid = |error: &dyn std::fmt::Display| ClientError::Invalid(error.to_string());
    let tls = tls::client_config(&options.trust)?;
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| invalid(&error))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(options.keep_alive));
    let idle = options.idle_timeout.try_into().map_err(|error| invalid(&error))?;
    transport.max_idle_timeout(Some(idle));
    // The node opens no streams of its own.
    transport.max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport.max_concurrent_uni_streams(VarInt::from_u32(0));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

impl QuicSink {
    pub(super) async fn write(&mut self, frames: &mut Vec<Bytes>) -> Result<(), CloseReason> {
        let written = self.stream.write_all_chunks(frames).await;
        frames.clear();
        match written {
            Ok(()) => Ok(()),
            Err(quinn::WriteError::ConnectionLost(error)) => Err(reason(&error)),
            Err(error) => Err(ended(&self.connection, error.to_string()).await),
        }
    }

    /// Waits until the node has what was written: a connection that is closed sends no more of it.
    pub(super) async fn close(&mut self) {
        if self.stream.finish().is_ok() {
            // However it ends, the connection closes now.
            let _ = self.stream.stopped().await;
        }
        self.connection.close(VarInt::from_u32(0), b"");
    }
}

impl QuicSource {
    pub(super) async fn next(&mut self) -> Result<Bytes, CloseReason> {
        use tokio::io::AsyncReadExt as _;
        loop {
            match FrameDecoder.next(&mut self.buffer) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(error) => {
                    let code = CloseCode::FrameTooLarge;
                    let number = VarInt::from_u32(u32::from(code.number()));
                    self.connection.close(number, code.as_str().as_bytes());
                    return Err(CloseReason::lost(error.to_string()));
                }
            }
            self.buffer.reserve(READ_BYTES);
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => {
                    return Err(ended(&self.connection, "the node ended the stream".into()).await);
                }
                Ok(_) => {}
                Err(error) => return Err(self.read_failed(error).await),
            }
        }
    }

    async fn read_failed(&self, error: std::io::Error) -> CloseReason {
        let lost = error.get_ref().and_then(|inner| inner.downcast_ref::<ReadError>());
        match lost {
            Some(ReadError::ConnectionLost(error)) => reason(error),
            _ => ended(&self.connection, error.to_string()).await,
        }
    }
}

/// The stream ended; the connection's own reason usually follows at once and says more.
async fn ended(connection: &Connection, what: String) -> CloseReason {
    match tokio::time::timeout(REASON_WAIT, connection.closed()).await {
        Ok(error) => reason(&error),
        Err(_) => CloseReason::lost(what),
    }
}

fn reason(error: &ConnectionError) -> CloseReason {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseReason::from_number(
            close.error_code.into_inner(),
            &String::from_utf8_lossy(&close.reason),
        ),
        ConnectionError::LocallyClosed => CloseReason::local(),
        other => CloseReason::lost(other.to_string()),
    }
}
