//! The administrators' HTTP API, as commands use it: any node will do, and what may succeed later
//! is tried again until a deadline.
//!
//! A call that is repeated must be one that may be: a read, or a change with a `client_id`.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout_at};

/// Time for one attempt.
const ATTEMPT: Duration = Duration::from_secs(5);
/// The first pause between attempts; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// A node refused it, and would again.
    #[error("{message} ({code})")]
    Refused {
        /// The protocol's code.
        code: String,
        /// What the node said.
        message: String,
    },
    /// No node answered in time; the last reason.
    #[error("no node answers: {0}")]
    NoAnswer(String),
    /// A node answered something else than the API says.
    #[error("unexpected answer from {address}: {reason}")]
    Unexpected {
        /// Which node.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An answer's origin and bytes.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Which node answered, as an index into the addresses.
    pub(crate) node: usize,
    /// How many attempts it took.
    pub(crate) attempts: u32,
    /// The JSON.
    pub(crate) body: Bytes,
}

/// What one attempt gave.
enum Attempt {
    Answered(Bytes),
    Later { reason: String, after: Option<Duration> },
    Refused(ApiError),
}

#[derive(Deserialize)]
struct ErrorAnswer {
    error: ErrorBody,
}

#[derive(Deserialize)]
struct ErrorBody {
    code: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retry: bool,
    #[serde(default)]
    retry_after_ms: Option<u64>,
}

/// Handle to the API of all nodes; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    addresses: std::sync::Arc<[String]>,
    token: std::sync::Arc<str>,
}

impl Api {
    /// Speaks to these nodes (`host:port`) with an administrator's token.
    pub(crate) fn new(addresses: &[String], token: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(2))
            .tcp_nodelay(true)
            .pool_idle_timeout(Duration::from_secs(30))
            .build()?;
        Ok(Self { http, addresses: addresses.into(), token: token.into() })
    }

    /// The nodes' addresses.
    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Calls until a node answers, starting with node `first`, at most until `deadline`.
    pub(crate) async fn call(
        &self,
        first: usize,
        method: Method,
        path: &str,
        json: Option<Bytes>,
        deadline: Instant,
    ) -> Result<Answer, ApiError> {
        let mut pause = FIRST_PAUSE;
        let mut attempts = 0;
        loop {
            let node = (first + attempts as usize) % self.addresses.len();
            attempts += 1;
            let (reason, after) =
                match self.attempt(node, method.clone(), path, json.clone(), deadline).await {
                    Attempt::Answered(body) => return Ok(Answer { node, attempts, body }),
                    Attempt::Refused(error) => return Err(error),
                    Attempt::Later { reason, after } => (reason, after),
                };
            // The other nodes first, then a pause before the next round.
            let round_is_over = (attempts as usize).is_multiple_of(self.addresses.len());
            let wait = after.unwrap_or(if round_is_over { pause } else { Duration::ZERO });
            if Instant::now() + wait >= deadline {
                return Err(ApiError::NoAnswer(reason));
            }
            sleep(wait).await;
            if round_is_over {
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// [`Api::call`] with the answer decoded.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        first: usize,
        method: Method,
        path: &str,
        json: Option<Bytes>,
        deadline: Instant,
    ) -> Result<T, ApiError> {
        let answer = self.call(first, method, path, json, deadline).await?;
        self.decode(&answer)
    }

    /// Reads an answer, borrowing from it where the type can.
    pub(crate) fn decode<'a, T: Deserialize<'a>>(&self, answer: &'a Answer) -> Result<T, ApiError> {
        serde_json::from_slice(&answer.body).map_err(|error| ApiError::Unexpected {
            address: self.addresses[answer.node].clone(),
            reason: error.to_string(),
        })
    }

    async fn attempt(
        &self,
        node: usize,
        method: Method,
        path: &str,
        json: Option<Bytes>,
        deadline: Instant,
    ) -> Attempt {
        let address = &self.addresses[node];
        let mut request =
            self.http.request(method, format!("http://{address}{path}")).bearer_auth(&self.token);
        if let Some(json) = json {
            request = request.header("content-type", "application/json").body(json);
        }
        let exchange = async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.bytes().await?))
        };
        let until = deadline.min(Instant::now() + ATTEMPT);
        match timeout_at(until, exchange).await {
            Ok(Ok((status, body))) if status.is_success() => Attempt::Answered(body),
            Ok(Ok((status, body))) => refusal(address, status, &body),
            Ok(Err(error)) => {
                Attempt::Later { reason: format!("{address}: {}", root_cause(&error)), after: None }
            }
            Err(_) => {
                Attempt::Later { reason: format!("{address}: no answer in time"), after: None }
            }
        }
    }
}

/// Sorts an answer that is not a success.
fn refusal(address: &str, status: StatusCode, body: &[u8]) -> Attempt {
    match serde_json::from_slice::<ErrorAnswer>(body) {
        Ok(ErrorAnswer { error }) if error.retry => Attempt::Later {
            reason: format!("{address}: {} ({})", error.message, error.code),
            after: error.retry_after_ms.map(Duration::from_millis),
        },
        Ok(ErrorAnswer { error: ErrorBody { code, message, .. } }) => {
            Attempt::Refused(ApiError::Refused { code, message })
        }
        Err(_) if status.is_server_error() => {
            Attempt::Later { reason: format!("{address}: {status}"), after: None }
        }
        Err(_) => Attempt::Refused(ApiError::Unexpected {
            address: address.to_owned(),
            reason: status.to_string(),
        }),
    }
}

/// The innermost reason: "connection refused" rather than "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The body of `POST` to [`messages_path`].
#[derive(Debug, Serialize)]
pub(crate) struct NewMessage<'a> {
    /// On whose behalf.
    pub(crate) sender: &'a str,
    /// Names the send for its sender.
    pub(crate) client_id: &'a str,
    /// The text.
    pub(crate) body: &'a str,
}

/// Where a conversation takes messages.
pub(crate) fn messages_path(conversation: &str) -> String {
    format!("/v1/conversations/{}/messages", path_segment(conversation))
}

/// An id as one segment of a path (RFC 3986: everything but the unreserved is escaped).
pub(crate) fn path_segment(id: &str) -> String {
    let mut segment = String::with_capacity(id.len());
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || byte == b'.' && id.len() > 2 {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_escaped_in_paths() {
        assert_eq!(path_segment("g-0-1a"), "g-0-1a");
        assert_eq!(path_segment("a/b?c d"), "a%2Fb%3Fc%20d");
        assert_eq!(path_segment(".."), "%2E%2E");
        assert_eq!(path_segment("ü"), "%C3%BC");
    }

    fn sorted(status: u16, body: &str) -> Attempt {
        refusal("a:1", StatusCode::from_u16(status).unwrap(), body.as_bytes())
    }

    #[test]
    fn what_may_succeed_later_is_told_from_what_may_not() {
        let later = r#"{"error":{"code":"not_available","message":"no leader","retry":true,"retry_after_ms":7}}"#;
        assert!(
            matches!(sorted(503, later), Attempt::Later { after: Some(after), .. } if after.as_millis() == 7)
        );
        let never =
            r#"{"error":{"code":"not_found","message":"conversation not found","retry":false}}"#;
        assert!(
            matches!(sorted(404, never), Attempt::Refused(ApiError::Refused { code, .. }) if code == "not_found")
        );
        assert!(matches!(sorted(502, "<html>"), Attempt::Later { .. }));
        assert!(matches!(sorted(404, "<html>"), Attempt::Refused(ApiError::Unexpected { .. })));
    }

    #[tokio::test]
    async fn a_node_that_is_down_is_passed_over_until_the_deadline() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let api = Api::new(&[closed.to_string()], "token").unwrap();
        let deadline = Instant::now() + Duration::from_millis(100);
        let error = api.call(0, Method::GET, "/healthz", None, deadline).await.unwrap_err();
        assert!(matches!(error, ApiError::NoAnswer(_)), "{error}");
    }
}
