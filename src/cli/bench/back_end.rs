//! Sends and pulls as an application's back end makes them: over HTTP, on behalf of users (`--http`).
//!
//! HTTP/1.1 takes one request at a time on a connection. Each request in flight has one, which is kept
//! open for the next.

use std::time::Duration;

use anyhow::Context as _;
use roost_client::protocol::reply::Page;
use roost_client::protocol::request::{Pull, SendMessage};
use roost_client::protocol::{CompactString, ErrorBody, OkBody, Operation, Target};
use roost_client::{ClientError, Endpoint};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::cli::api::{NewMessage, messages_path, path_segment};

/// Handle to the HTTP API of all nodes.
#[derive(Debug)]
pub(crate) struct BackEnd {
    http: reqwest::Client,
    token: String,
}

#[derive(Deserialize)]
struct Refusal {
    error: ErrorBody,
}

impl BackEnd {
    /// Speaks to nodes with an administrator's token.
    ///
    /// # Errors
    /// The HTTP client cannot be set up.
    pub(crate) fn new(token: String, call_timeout: Duration) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .timeout(call_timeout)
            .build()
            .context("no HTTP client")?;
        Ok(Self { http, token })
    }

    /// Asks a node on behalf of a user; `None` for what back ends do not ask, or not in this way.
    pub(crate) async fn ask(
        &self,
        node: &Endpoint,
        user: &CompactString,
        operation: &Operation,
    ) -> Option<Result<OkBody, ClientError>> {
        match operation {
            Operation::Send(SendMessage {
                target: Target::Conversation(conversation),
                client_id,
                body,
                content_type: None,
                ttl_ms: None,
            }) => {
                let body = body.text()?;
                let message = NewMessage { sender: user, client_id, body };
                let url = format!("http://{node}{}", messages_path(conversation));
                Some(self.call(self.http.post(url).json(&message)).await.map(OkBody::Sent))
            }
            Operation::Pull(Pull { after, limit, linearizable, applied: None }) => {
                let limit = limit.map_or_else(String::new, |limit| format!("&limit={limit}"));
                let (user, local) = (path_segment(user), !linearizable);
                let url = format!(
                    "http://{node}/v1/users/{user}/queue?after={after}&local={local}{limit}"
                );
                let page = self.call::<Page>(self.http.get(url)).await;
                Some(page.map(OkBody::Page))
            }
            _ => None,
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, ClientError> {
        let exchange = async {
            let response = request.bearer_auth(&self.token).send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.bytes().await?))
        };
        let (status, bytes) = exchange.await.map_err(|error| match error.is_timeout() {
            true => ClientError::DeadlineExceeded,
            false => ClientError::Protocol(error.without_url().to_string()),
        })?;
        let unexpected = |why: serde_json::Error| ClientError::Protocol(format!("{status}: {why}"));
        if status.is_success() {
            serde_json::from_slice(&bytes).map_err(unexpected)
        } else {
            let refusal: Refusal = serde_json::from_slice(&bytes).map_err(unexpected)?;
            Err(ClientError::Refused(refusal.error))
        }
    }
}
