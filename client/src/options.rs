//! Where to connect, how, and as whom.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use roost_protocol::{Device, DeviceKind, Encoding, Token, limits};

use crate::transport::QuicSocket;

/// A node's client address: one port, TCP for WebSocket and UDP for QUIC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A name or an IP address, an IPv6 one without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A text that is no `host:port`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an endpoint is host:port, as 127.0.0.1:7070 or [::1]:7070")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidEndpoint)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(InvalidEndpoint)?,
            None if host.contains(':') => return Err(InvalidEndpoint),
            None => host,
        };
        if host.is_empty() {
            return Err(InvalidEndpoint);
        }
        Ok(Self { host: host.to_owned(), port: port.parse().map_err(|_| InvalidEndpoint)? })
    }
}

impl From<std::net::SocketAddr> for Endpoint {
    fn from(addr: std::net::SocketAddr) -> Self {
        Self { host: addr.ip().to_string(), port: addr.port() }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How envelopes reach the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// QUIC with MessagePack.
    Quic,
    /// A WebSocket with JSON text frames.
    WebSocketJson,
    /// A WebSocket with MessagePack binary frames.
    WebSocketMessagePack,
}

impl Transport {
    /// The encoding of the envelopes.
    pub fn encoding(self) -> Encoding {
        match self {
            Self::WebSocketJson => Encoding::Json,
            Self::Quic | Self::WebSocketMessagePack => Encoding::MessagePack,
        }
    }
}

/// Which certificates a QUIC connection accepts. A WebSocket has none of its own.
#[derive(Clone)]
pub enum Trust {
    /// Those that this authority signed (PEM, one or more certificates).
    Authority(Arc<[u8]>),
    /// Any: the connection is encrypted, but nobody knows to whom. For trying out.
    Insecure,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authority(_) => "Authority",
            Self::Insecure => "Insecure",
        })
    }
}

/// Everything about one connection.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The node.
    pub endpoint: Endpoint,
    /// How.
    pub transport: Transport,
    /// Whom to believe.
    pub trust: Trust,
    /// The name that the node's certificate must carry; every node's carries `roost`.
    pub server_name: String,
    /// Who this is.
    pub token: Token,
    /// Which of the user's devices.
    pub device: Device,
    /// Pushes start after this queue sequence; the device's cursor by default.
    pub after: Option<u64>,
    /// How many items the node may push ahead of the acknowledged one.
    pub window: Option<u32>,
    /// An applied index that was seen at another node.
    pub applied: Option<u64>,
    /// Time for connecting, handshake and `connect` together.
    pub connect_timeout: Duration,
    /// Time for each call that names none.
    pub call_timeout: Duration,
    /// Time between this side's liveness probes.
    pub keep_alive: Duration,
    /// Silence after which the connection counts as dead.
    pub idle_timeout: Duration,
    /// A socket that QUIC connections share; by default each has its own.
    pub socket: Option<QuicSocket>,
}

impl ConnectOptions {
    /// QUIC to `endpoint`, as an app with the device id `device`.
    pub fn new(endpoint: Endpoint, trust: Trust, token: impl Into<Token>, device: &str) -> Self {
        Self {
            endpoint,
            transport: Transport::Quic,
            trust,
            server_name: "roost".to_owned(),
            token: token.into(),
            device: Device { id: device.into(), kind: DeviceKind::App },
            after: None,
            window: None,
            applied: None,
            connect_timeout: Duration::from_millis(limits::CONNECT_TIMEOUT_MS),
            call_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_millis(limits::KEEP_ALIVE_MS),
            idle_timeout: Duration::from_millis(limits::IDLE_TIMEOUT_MS),
            socket: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written_alike() {
        for text in ["127.0.0.1:7070", "[::1]:7070", "node-1.example:1"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
        for text in ["", "7070", ":7070", "host", "host:", "host:70000", "::1:7070", "[::1:7070"] {
            assert_eq!(text.parse::<Endpoint>(), Err(InvalidEndpoint), "{text}");
        }
    }

    #[test]
    fn debug_output_does_not_show_the_token() {
        let endpoint = "localhost:1".parse().unwrap();
        let options = ConnectOptions::new(endpoint, Trust::Insecure, "secret", "phone");
        assert!(!format!("{options:?}").contains("secret"));
    }
}
