//! WebSocket: one envelope a message, text for JSON, binary for MessagePack.

use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use roost_protocol::{SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK, WEBSOCKET_PATH, limits};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::ClientRequestBuilder;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::{connect_error, resolve};
use crate::error::{ClientError, CloseReason};
use crate::options::{ConnectOptions, Transport};

/// The writing half.
pub(crate) struct WebSocketSink {
    sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    text: bool,
}

/// The reading half.
pub(crate) struct WebSocketSource(SplitStream<WebSocketStream<TcpStream>>);

pub(super) async fn open(
    options: &ConnectOptions,
) -> Result<(WebSocketSink, WebSocketSource), ClientError> {
    let stream = TcpStream::connect(resolve(options).await?.as_slice())
        .await
        .map_err(|error| connect_error(options, &error))?;
    stream.set_nodelay(true).map_err(|error| connect_error(options, &error))?;
    let text = options.transport == Transport::WebSocketJson;
    let subprotocol = if text { SUBPROTOCOL_JSON } else { SUBPROTOCOL_MSGPACK };
    let uri: Uri = format!("ws://{}{WEBSOCKET_PATH}", options.endpoint)
        .parse()
        .map_err(|error| ClientError::Invalid(format!("endpoint: {error}")))?;
    let request = ClientRequestBuilder::new(uri).with_sub_protocol(subprotocol);
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits::MAX_FRAME_BYTES))
        .max_frame_size(Some(limits::MAX_FRAME_BYTES));
    let (socket, response) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(config))
            .await
            .map_err(|error| connect_error(options, &error))?;
    let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL);
    if chosen.is_none_or(|chosen| chosen != subprotocol) {
        return Err(connect_error(options, &"the server does not speak this protocol"));
    }
    let (sink, source) = socket.split();
    Ok((WebSocketSink { sink, text }, WebSocketSource(source)))
}

impl WebSocketSink {
    pub(super) async fn write(&mut self, frames: &mut Vec<Bytes>) -> Result<(), CloseReason> {
        for frame in frames.drain(..) {
            let message = if self.text {
                let text = Utf8Bytes::try_from(frame).expect("JSON is written as UTF-8");
                Message::Text(text)
            } else {
                Message::Binary(frame)
            };
            self.sink.feed(message).await.map_err(|error| failed(&error))?;
        }
        self.sink.flush().await.map_err(|error| failed(&error))
    }

    pub(super) async fn ping(&mut self) -> Result<(), CloseReason> {
        self.sink.send(Message::Ping(Bytes::new())).await.map_err(|error| failed(&error))
    }

    pub(super) async fn close(&mut self) {
        // Whether the node hears it does not matter: it sees the end of the stream as well.
        let _ = self.sink.close().await;
    }
}

impl WebSocketSource {
    /// The next envelope; pings are answered on the way. An empty one is a control frame's: it says
    /// that the node lives.
    pub(super) async fn next(&mut self) -> Result<Bytes, CloseReason> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Ok(text.into()),
            Some(Ok(Message::Binary(bytes))) => Ok(bytes),
            Some(Ok(Message::Close(Some(close)))) => {
                Err(CloseReason::from_number(u64::from(u16::from(close.code)), &close.reason))
            }
            Some(Ok(Message::Close(None))) | None => {
                Err(CloseReason::lost("the node closed the connection"))
            }
            Some(Ok(_)) => Ok(Bytes::new()),
            Some(Err(error)) => Err(failed(&error)),
        }
    }
}

fn failed(error: &Error) -> CloseReason {
    CloseReason::lost(error.to_string())
}
