//! Sessions without a network: a pair of channels in place of a socket. The simulation carries its
//! clients' frames through them, to the same sessions that QUIC and WebSocket have.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use roost_cluster::Cluster;
use roost_protocol::{CloseCode, Encoding, Framing};
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, watch};

use super::admission::Gate;
use super::budget::Budget;
use super::metrics::Metrics;
use super::reads::Reads;
use super::session::driver;
use super::transport::{Farewell, Inbound, Link, Outbox};
use super::unsent::Unsent;
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
            budget: Budget::new(&options),
            unsent: Unsent::default(),
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
        let link = Local { from_client, to_client, room: None, probe: false };
        driver::serve(context, link, Framing::Bare(encoding), refused).await;
    }

    /// Tells sessions that the node stops, and waits for them to be gone, at most `grace` long.
    pub async fn shutdown(&self, grace: Duration) {
        self.context.stop(grace).await;
    }
}

/// A permit to send to the client, on its way.
type Room = Pin<Box<dyn Future<Output = Result<OwnedPermit<Bytes>, SendError<()>>> + Send>>;

struct Local {
    from_client: mpsc::Receiver<Bytes>,
    to_client: mpsc::Sender<Bytes>,
    room: Option<Room>,
    probe: bool,
}

impl Link for Local {
    const WATCH_SILENCE: bool = true;

    fn poll_next(&mut self, cx: &mut TaskContext<'_>) -> Poll<Inbound> {
        self.from_client.poll_recv(cx).map(|frame| match frame {
            Some(frame) if frame.is_empty() => Inbound::Alive,
            Some(frame) => Inbound::Frame(frame),
            None => Inbound::Ended,
        })
    }

    fn poll_write(
        &mut self,
        outbox: &mut Outbox,
        cx: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        while self.probe || !outbox.is_empty() {
            let sender = &self.to_client;
            let room = self.room.get_or_insert_with(|| Box::pin(sender.clone().reserve_owned()));
            let permit = ready!(room.as_mut().poll(cx));
            self.room = None;
            let permit = permit.map_err(io::Error::other)?;
            // An empty frame asks for an empty frame.
            let mut frame = [Bytes::new()];
            if !std::mem::take(&mut self.probe) {
                outbox.shared(&mut frame);
                outbox.advance(frame[0].len());
            }
            let [frame] = frame;
            permit.send(frame);
        }
        Poll::Ready(Ok(()))
    }

    fn probe(&mut self) {
        self.probe = true;
    }

    async fn close(self, _farewell: Farewell, _linger: Duration) {}
}
