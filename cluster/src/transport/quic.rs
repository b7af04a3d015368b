//! The link over QUIC.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use quinn::{Connection, Endpoint, RecvStream};
use roost_raft::{NodeId, TransportError};

use super::link::{Link, LinkClose, LinkConnection, PeerServer};
use super::server;
use super::tls::node_name;
use super::{CLOSE_REFUSED, CLOSE_SHUTDOWN, CLOSE_SILENT};
use crate::wire::MAX_FRAME_BYTES;

/// How long peers may take to notice that this node closes.
const CLOSE_PATIENCE: Duration = Duration::from_millis(500);

/// A bound peer port, and what this node shows peers it connects to.
pub(crate) struct QuicLink {
    endpoint: Endpoint,
    config: quinn::ClientConfig,
}

impl QuicLink {
    pub(crate) fn new(endpoint: Endpoint, config: quinn::ClientConfig) -> Self {
        Self { endpoint, config }
    }
}

#[async_trait]
impl Link for QuicLink {
    async fn connect(
        &self,
        target: NodeId,
        address: &str,
    ) -> Result<Arc<dyn LinkConnection>, String> {
        let resolved = tokio::net::lookup_host(address)
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        // The endpoint's socket has one address family.
        let ipv4 = self.endpoint.local_addr().is_ok_and(|own| own.is_ipv4());
        let address = resolved
            .into_iter()
            .find(|found| found.is_ipv4() == ipv4)
            .ok_or_else(|| format!("{address} has no usable address"))?;
        let connecting = self
            .endpoint
            .connect_with(self.config.clone(), address, &node_name(target))
            .map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        Ok(Arc::new(QuicConnection(connection)))
    }

    async fn serve(&self, server: PeerServer) {
        server::serve(self.endpoint.clone(), server).await;
    }

    async fn close(&self) {
        self.endpoint.close(CLOSE_SHUTDOWN, b"shutting down");
        // Bounded: a peer that is gone must not hold up the end.
        let _ = tokio::time::timeout(CLOSE_PATIENCE, self.endpoint.wait_idle()).await;
    }
}

/// Why a stream could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unread {
    #[error(transparent)]
    Stream(#[from] quinn::ReadError),
    #[error("more than {MAX_FRAME_BYTES} bytes")]
    TooLong,
}

/// All bytes of a stream, in memory of their own: a piece as it comes keeps its whole datagrams.
pub(crate) async fn read_all(receive: &mut RecvStream) -> Result<Bytes, Unread> {
    let (mut pieces, mut len) = (Vec::new(), 0);
    while let Some(piece) = receive.read_chunk(usize::MAX, true).await? {
        len += piece.bytes.len();
        if len > MAX_FRAME_BYTES {
            return Err(Unread::TooLong);
        }
        pieces.push(piece.bytes);
    }
    Ok(pieces.concat().into())
}

struct QuicConnection(Connection);

#[async_trait]
impl LinkConnection for QuicConnection {
    async fn exchange(&self, mut request: Vec<Bytes>) -> Result<Bytes, TransportError> {
        let lost = |error: String| TransportError::Lost(error);
        let (mut send, mut receive) =
            self.0.open_bi().await.map_err(|error| lost(error.to_string()))?;
        send.write_all_chunks(&mut request).await.map_err(|error| lost(error.to_string()))?;
        send.finish().map_err(|error| lost(error.to_string()))?;
        read_all(&mut receive).await.map_err(|error| lost(error.to_string()))
    }

    fn is_closed(&self) -> bool {
        self.0.close_reason().is_some()
    }

    fn close(&self, why: LinkClose) {
        match why {
            LinkClose::Refused => self.0.close(CLOSE_REFUSED, b"refused"),
            LinkClose::Silent => self.0.close(CLOSE_SILENT, b"no answers, or restarted"),
        }
    }
}
