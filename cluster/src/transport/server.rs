//! QUIC's answering side.

use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};

use super::CLOSE_REFUSED;
use super::link::PeerServer;
use super::quic::read_all;
use super::tls::peer_of;

/// How long a peer may take from its first packet to its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Accepts peers until the endpoint is closed.
pub(crate) async fn serve(endpoint: Endpoint, server: PeerServer) {
    while let Some(incoming) = endpoint.accept().await {
        let server = server.clone();
        tokio::spawn(async move {
            if let Err(reason) = connection(incoming, server).await {
                tracing::debug!("peer connection: {reason}");
            }
        });
    }
}

async fn connection(incoming: Incoming, server: PeerServer) -> Result<(), String> {
    let greeting = async {
        let connection = incoming.await.map_err(|error| error.to_string())?;
        let from = peer_of(&connection).ok_or("the certificate names no node")?;
        let (mut send, receive) = next_stream(&connection).await?;
        let greeted = server.greet(from, &read(receive).await?).await;
        let (answer, welcome) = greeted.inspect_err(|_| {
            connection.close(CLOSE_REFUSED, b"another node's certificate");
        })?;
        reply(&mut send, answer).await?;
        match welcome {
            true => Ok((connection, from)),
            false => Err(format!("node {from} was refused")),
        }
    };
    let (connection, from) = tokio::time::timeout(GREETING_TIMEOUT, greeting)
        .await
        .map_err(|_| "no greeting in time")??;
    loop {
        let (mut send, receive) = next_stream(&connection).await?;
        let server = server.clone();
        tokio::spawn(async move {
            let served = async {
                let answer = server.answer(from, &read(receive).await?).await?;
                reply(&mut send, answer).await
            };
            if let Err(reason) = served.await {
                tracing::debug!(peer = from, "peer call: {reason}");
            }
        });
    }
}

async fn next_stream(connection: &Connection) -> Result<(SendStream, RecvStream), String> {
    connection.accept_bi().await.map_err(|error| error.to_string())
}

async fn read(mut receive: RecvStream) -> Result<Bytes, String> {
    read_all(&mut receive).await.map_err(|error| error.to_string())
}

async fn reply(send: &mut SendStream, answer: Vec<u8>) -> Result<(), String> {
    send.write_chunk(answer.into()).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())
}
