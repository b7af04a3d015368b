//! The peer network as a node sees it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use roost_cluster::{Link, LinkClose, LinkConnection, NodeId, PeerServer, TransportError};
use tokio::sync::mpsc;

use crate::net::{Envelope, Net, What};

/// One node's end.
pub(crate) struct SimLink {
    net: Net,
    own: NodeId,
    /// What peers send; taken by whoever serves.
    inbox: Mutex<Option<mpsc::UnboundedReceiver<Envelope>>>,
}

impl SimLink {
    /// A node's end, with where its peers' messages come out.
    pub(crate) fn new(net: Net, own: NodeId, inbox: mpsc::UnboundedReceiver<Envelope>) -> Self {
        Self { net, own, inbox: Mutex::new(Some(inbox)) }
    }
}

struct SimConnection {
    net: Net,
    own: NodeId,
    target: NodeId,
    conn: u64,
    closed: Arc<AtomicBool>,
}

#[async_trait]
impl Link for SimLink {
    async fn connect(
        &self,
        target: NodeId,
        _address: &str,
    ) -> Result<Arc<dyn LinkConnection>, String> {
        let (net, own, conn) = (self.net.clone(), self.own, self.net.number());
        let answer = net.call(own, target, conn, |call| What::Connect { call, conn });
        match answer.await {
            Ok(Some(_)) => {}
            _ => return Err("refused".to_owned()),
        }
        let closed = Arc::new(AtomicBool::new(false));
        net.watch(conn, own, closed.clone());
        Ok(Arc::new(SimConnection { net, own, target, conn, closed }))
    }

    async fn serve(&self, server: PeerServer) {
        let inbox = self.inbox.lock().take();
        let Some(mut inbox) = inbox else { return };
        // Connections, and whether they were greeted.
        let connections: Arc<Mutex<BTreeMap<u64, bool>>> = Arc::default();
        while let Some(Envelope { from, what, .. }) = inbox.recv().await {
            match what {
                What::Connect { call, conn } => {
                    connections.lock().insert(conn, false);
                    let bytes = Some(Bytes::new());
                    self.net.send(self.own, from, What::Reply { call, bytes });
                }
                What::Close { conn } => {
                    connections.lock().remove(&conn);
                }
                What::Request { call, conn, bytes } => {
                    let (net, own, server) = (self.net.clone(), self.own, server.clone());
                    let connections = connections.clone();
                    tokio::spawn(async move {
                        let answer = answer(&server, &connections, from, conn, &bytes).await;
                        net.send(own, from, What::Reply { call, bytes: answer });
                    });
                }
                _ => {}
            }
        }
    }

    async fn close(&self) {
        self.net.leave(self.own);
    }
}

async fn answer(
    server: &PeerServer,
    connections: &Mutex<BTreeMap<u64, bool>>,
    from: NodeId,
    conn: u64,
    request: &Bytes,
) -> Option<Bytes> {
    let greeted = *connections.lock().get(&conn)?;
    if greeted {
        return server.answer(from, request).await.ok().map(Bytes::from);
    }
    let (answer, welcome) = server.greet(from, request).await.ok()?;
    match welcome {
        true => connections.lock().insert(conn, true),
        false => connections.lock().remove(&conn),
    };
    Some(answer.into())
}

#[async_trait]
impl LinkConnection for SimConnection {
    async fn exchange(&self, request: Vec<Bytes>) -> Result<Bytes, TransportError> {
        let lost = || TransportError::Lost("connection lost".to_owned());
        if self.is_closed() {
            return Err(lost());
        }
        let (conn, bytes) = (self.conn, Bytes::from(request.concat()));
        let answer =
            self.net.call(self.own, self.target, conn, |call| What::Request { call, conn, bytes });
        match answer.await {
            Ok(Some(bytes)) => Ok(bytes),
            _ => {
                self.closed.store(true, Ordering::Relaxed);
                Err(lost())
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn close(&self, _why: LinkClose) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            self.net.reset(self.conn);
            self.net.send(self.own, self.target, What::Close { conn: self.conn });
        }
    }
}
