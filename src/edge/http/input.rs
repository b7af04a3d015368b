//! What a request says: JSON bodies and query parameters, with errors that quote nothing of it.

use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use roost_protocol::ErrorCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::ApiError;

/// A JSON body.
pub(super) struct JsonBody<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|why| unread(&why))?;
        serde_json::from_slice(&bytes).map(Self).map_err(|why| unusable(&why))
    }
}

fn unread(why: &BytesRejection) -> ApiError {
    if why.status() == StatusCode::PAYLOAD_TOO_LARGE {
        ApiError::new(ErrorCode::TooLarge, "the request's body is too long")
    } else {
        ApiError::new(ErrorCode::BadRequest, "the request's body ended early")
    }
}

/// The library's message may quote values: only what names a field is passed on.
fn unusable(why: &serde_json::Error) -> ApiError {
    let text = why.to_string();
    let what = match text.split(" at line ").next() {
        Some(what) if what.starts_with("missing field") => what,
        _ if why.is_data() => "a field has a wrong type or value",
        _ => "the request's body is no JSON",
    };
    let place = format!("{what} (line {}, column {})", why.line(), why.column());
    ApiError::new(ErrorCode::BadRequest, place)
}

/// Query parameters.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Ok(Query(params)) = Query::<T>::from_request_parts(parts, state).await else {
            return Err(ApiError::new(ErrorCode::BadRequest, "a query parameter is not usable"));
        };
        Ok(Self(params))
    }
}

/// Whether a read may be answered from what this node has, however old that is.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Freshness {
    /// True to do without asking the others.
    #[serde(default)]
    pub(super) local: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Sample {
        #[expect(dead_code, reason = "only read by the deserializer")]
        secret: u64,
    }

    #[test]
    fn an_unusable_body_is_never_quoted() {
        let message = |json: &str| {
            let why = serde_json::from_str::<Sample>(json).unwrap_err();
            serde_json::to_string(&format!("{:?}", unusable(&why))).unwrap()
        };
        assert!(message("{}").contains("missing field `secret`"));
        assert!(!message(r#"{"secret": "hunter2"}"#).contains("hunter2"));
        assert!(!message("hunter2").contains("hunter2"));
    }
}
