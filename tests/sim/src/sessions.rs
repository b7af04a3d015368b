//! A node's door for clients: connections from the network become the edge's sessions.

use std::collections::BTreeMap;

use bytes::Bytes;
use roost::edge::LocalEdge;
use roost_protocol::Encoding;
use tokio::sync::mpsc;

use crate::net::{CLIENTS, Envelope, Net, Place, What};

/// Frames that a socket's buffer holds for a client.
const SOCKET_FRAMES: usize = 16;
/// Frames that a client may be ahead.
const AHEAD_FRAMES: usize = 1_024;

/// Lets clients in until the node ends.
pub(crate) async fn listen(net: Net, node: Place, edge: LocalEdge) {
    let mut inbox = net.listen_clients(node);
    let mut open: BTreeMap<u64, mpsc::Sender<Bytes>> = BTreeMap::new();
    while let Some(Envelope { what, .. }) = inbox.recv().await {
        match what {
            What::Open { conn, encoding } => {
                let (from_client, frames) = mpsc::channel(AHEAD_FRAMES);
                open.insert(conn, from_client);
                tokio::spawn(session(net.clone(), node, edge.clone(), conn, encoding, frames));
            }
            What::FromClient { conn, bytes } => {
                let taken = open.get(&conn).is_some_and(|session| session.try_send(bytes).is_ok());
                if !taken {
                    // The session has ended, or is not of this incarnation.
                    open.remove(&conn);
                    net.send(node, CLIENTS, What::ToClient { conn, bytes: None });
                }
            }
            What::Gone { conn } => {
                open.remove(&conn);
            }
            _ => {}
        }
    }
}

async fn session(
    net: Net,
    node: Place,
    edge: LocalEdge,
    conn: u64,
    encoding: Encoding,
    frames: mpsc::Receiver<Bytes>,
) {
    let (to_client, mut out) = mpsc::channel::<Bytes>(SOCKET_FRAMES);
    let socket = async {
        while let Some(bytes) = out.recv().await {
            net.send(node, CLIENTS, What::ToClient { conn, bytes: Some(bytes) });
            net.wait_for_reader(conn).await;
        }
        net.send(node, CLIENTS, What::ToClient { conn, bytes: None });
    };
    tokio::join!(edge.carry(encoding, frames, to_client), socket);
}
