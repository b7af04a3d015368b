//! The answering side.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream};
use roost_raft::NodeId;
use roost_storage::codec;

use super::CLOSE_REFUSED;
use super::tls::peer_of;
use crate::wire::{self, Answer, Call, Hello, MAX_FRAME_BYTES};

/// How long a peer may take from its first packet to its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// Answers a peer's calls.
#[async_trait]
pub(crate) trait Handler: Send + Sync + 'static {
    /// Takes a peer's greeting, or refuses it with a reason.
    async fn greeted(&self, hello: &Hello) -> Result<Hello, String>;
    /// Answers one call of a peer that was greeted.
    async fn call(&self, from: NodeId, call: Call) -> Answer;
}

/// Accepts peers until the endpoint is closed.
pub(crate) async fn serve(endpoint: Endpoint, handler: Arc<dyn Handler>) {
    while let Some(incoming) = endpoint.accept().await {
        let handler = handler.clone();
        tokio::spawn(async move {
            if let Err(reason) = connection(incoming, handler).await {
                tracing::debug!("peer connection: {reason}");
            }
        });
    }
}

async fn connection(incoming: Incoming, handler: Arc<dyn Handler>) -> Result<(), String> {
    let greeting = async {
        let connection = incoming.await.map_err(|error| error.to_string())?;
        let from = peer_of(&connection).ok_or("the certificate names no node")?;
        let (mut send, call) = next_call(&connection).await?;
        let Call::Hello(hello) = call else { return Err("no greeting".to_owned()) };
        if hello.node_id != from {
            connection.close(CLOSE_REFUSED, b"another node's certificate");
            return Err(format!("node {from} greeted as node {}", hello.node_id));
        }
        let answer = match handler.greeted(&hello).await {
            Ok(own) => Answer::Hello(own),
            Err(reason) => Answer::Refused(reason),
        };
        reply(&mut send, &answer).await?;
        match answer {
            Answer::Refused(reason) => Err(reason),
            _ => Ok((connection, from)),
        }
    };
    let (connection, from) = tokio::time::timeout(GREETING_TIMEOUT, greeting)
        .await
        .map_err(|_| "no greeting in time")??;
    loop {
        let (mut send, receive) =
            connection.accept_bi().await.map_err(|error| error.to_string())?;
        let handler = handler.clone();
        tokio::spawn(async move {
            let served = async {
                let call = read_call(receive).await?;
                let answer = handler.call(from, call).await;
                reply(&mut send, &answer).await
            };
            if let Err(reason) = served.await {
                tracing::debug!(peer = from, "peer call: {reason}");
            }
        });
    }
}

async fn next_call(connection: &Connection) -> Result<(SendStream, Call), String> {
    let (send, receive) = connection.accept_bi().await.map_err(|error| error.to_string())?;
    Ok((send, read_call(receive).await?))
}

async fn read_call(mut receive: RecvStream) -> Result<Call, String> {
    let bytes = receive.read_to_end(MAX_FRAME_BYTES).await.map_err(|error| error.to_string())?;
    wire::decode("peer call", &bytes).map_err(|error| error.to_string())
}

async fn reply(send: &mut SendStream, answer: &Answer) -> Result<(), String> {
    let bytes = codec::encode(answer);
    send.write_all(&bytes).await.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())
}
