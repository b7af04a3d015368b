//! What stands before the handlers: the administrator's token, the time that a request has, and the
//! count of what was answered.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use roost_protocol::ErrorCode;
use tokio::time::timeout;

use super::ApiError;
use crate::edge::Context;

/// Time for a whole request: more than a command's own, so that its answer comes first.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Lets administrators through.
pub(super) async fn require_admin(
    State(context): State<Arc<Context>>,
    request: Request,
    next: Next,
) -> Response {
    match check_admin(&context, &request) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check_admin(context: &Context, request: &Request) -> Result<(), ApiError> {
    let unauthorized = |message: String| ApiError::new(ErrorCode::Unauthorized, message);
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer)
        .ok_or_else(|| unauthorized("an administrator's Bearer token is needed".to_owned()))?;
    let identity =
        context.auth.verifier.verify(token).map_err(|why| unauthorized(why.to_string()))?;
    if identity.admin {
        Ok(())
    } else {
        Err(ApiError::new(ErrorCode::Forbidden, "the token is no administrator's"))
    }
}

/// The token of a `Bearer` authorization. The scheme's case does not matter.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Ends a request that takes too long.
pub(super) async fn in_time(request: Request, next: Next) -> Response {
    timeout(REQUEST_TIMEOUT, next.run(request)).await.unwrap_or_else(|_| {
        ApiError::new(ErrorCode::DeadlineExceeded, "no answer in time; the outcome is unknown")
            .into_response()
    })
}

/// Counts the answer.
pub(super) async fn count(
    State(context): State<Arc<Context>>,
    request: Request,
    next: Next,
) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    // Any text may be a method: those that no route has share a label.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE") => known.to_owned(),
        _ => "other".to_owned(),
    };
    let response = next.run(request).await;
    context.metrics.http_answered(&method, &route, response.status().as_u16());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_bearer_tokens_are_taken() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
