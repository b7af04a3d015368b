//! Sessions without a network: a pair of channels in place of a socket. The simulation carries its
//! clients' frames through them, to the same sessions that QUIC and WebSocket have.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use roost_cluster::Cluster;
use roost_protocol::{CloseCode, Encoding};
use tokio::sync::{mpsc, watch};

use super::admission::Gate;
use super::metrics::Metrics;
use super::reads::Reads;
use super::session::driver;
use super::transport::{FrameSink, FrameSource, Inbound, Transport};
use super::{Context, EdgeOptions, Hub};
use crate::auth::Auth;

/// A node's sessions. Clones share them.
#[derive(Clone)]
pub struct LocalEdge {
    context: Arc<Context>,
}

impl LocalEdge {
    /// Sessions over a cluster; `hub` is the one that observes it.
    pub fn new(cluster: Cluster, hub: Arc<Hub>, auth: Auth, options: EdgeOptions) -> Self {
        let context = Context {
            reads: Reads::new(cluster.clone()),
            gate: Gate::new(&options),
            cluster,
            hub,
            auth,
            metrics: Metrics::new(options.data.clone()),
            options,
            shutdown: watch::Sender::new(false),
        };
        Self { context: Arc::new(context) }
    }

    /// Carries one session until it has ended, or the client's sender is gone.
    pub async fn carry(
        &self,
        encoding: Encoding,
        from_client: mpsc::Receiver<Bytes>,
        to_client: mpsc::Sender<Bytes>,
    ) {
        let permit = self.context.gate.session();
        let refused = permit.is_none().then_some(CloseCode::Overloaded);
        let context = Arc::clone(&self.context);
        driver::serve::<Local>(context, Source(from_client), Sink(to_client), encoding, refused)
            .await;
    }
}

struct Local;
struct Source(mpsc::Receiver<Bytes>);
struct Sink(mpsc::Sender<Bytes>);

impl FrameSource for Source {
    const WATCH_SILENCE: bool = true;

    async fn next(&mut self) -> Inbound {
        match self.0.recv().await {
            Some(frame) if frame.is_empty() => Inbound::Alive,
            Some(frame) => Inbound::Frame(frame),
            None => Inbound::Ended,
        }
    }
}

impl FrameSink for Sink {
    async fn write(&mut self, frames: &mut Vec<Bytes>) -> io::Result<()> {
        for frame in frames.drain(..) {
            self.0.send(frame).await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// An empty frame asks for an empty frame.
    async fn probe(&mut self) -> io::Result<()> {
        self.0.send(Bytes::new()).await.map_err(io::Error::other)
    }
}

impl Transport for Local {
    type Source = Source;
    type Sink = Sink;

    async fn close(
        source: Source,
        sink: Sink,
        _farewell: Option<(CloseCode, &'static str)>,
        _linger: Duration,
    ) {
        drop((source, sink));
    }
}
