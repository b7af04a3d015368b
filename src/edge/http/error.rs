//! Errors as JSON: `{"error": {"code", "message", "retry"}}`, with the fitting status.

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use roost_cluster::SubmitError;
use roost_protocol::{ErrorBody, ErrorCode};
use serde_json::json;

use crate::edge::errors::submit_error;

/// An answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    /// An error with its code's own status.
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        ErrorBody::new(code, message).into()
    }

    /// The same, with another status.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl From<ErrorBody> for ApiError {
    fn from(body: ErrorBody) -> Self {
        Self { status: status(body.code), body }
    }
}

impl From<SubmitError> for ApiError {
    fn from(why: SubmitError) -> Self {
        submit_error(&why).into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let retry_after_s = self.body.retry_after_ms.map(|ms| ms.div_ceil(1_000));
        let mut response = (self.status, Json(json!({ "error": self.body }))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_s {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::NotConnected => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden | ErrorCode::NotAMember | ErrorCode::Blocked => StatusCode::FORBIDDEN,
        ErrorCode::NotFound | ErrorCode::UnknownOperation => StatusCode::NOT_FOUND,
        ErrorCode::AlreadyExists | ErrorCode::ClientIdReused => StatusCode::CONFLICT,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Overloaded | ErrorCode::NotAvailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Internal | ErrorCode::Other => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// For a path that there is not.
pub(crate) async fn no_such_route() -> ApiError {
    ApiError::new(ErrorCode::NotFound, "there is nothing at this path; see /openapi.json")
}

/// For a path that there is, but not with this method.
pub(crate) async fn no_such_method() -> ApiError {
    ApiError::new(ErrorCode::BadRequest, "this path does not take this method; see /openapi.json")
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}
