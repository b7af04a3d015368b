//! Tokens for users, on an administrator's word.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use roost_cluster::host::unix_ms;
use roost_protocol::{CompactString, ErrorCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ApiError;
use super::input::JsonBody;
use crate::auth::Grant;
use crate::edge::Context;
use crate::edge::convert::{device_id, user_id};

/// How long a token is valid if nothing is said, in seconds.
const DEFAULT_TTL_S: u64 = 60 * 60;
/// How long it may be valid, in seconds.
const MAX_TTL_S: u64 = 30 * 24 * 60 * 60;

#[derive(Deserialize)]
pub(super) struct NewToken {
    user: CompactString,
    device: Option<CompactString>,
    ttl_s: Option<u64>,
}

/// `POST /v1/tokens`.
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    JsonBody(wanted): JsonBody<NewToken>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let ttl_s = wanted.ttl_s.unwrap_or(DEFAULT_TTL_S);
    if !(1..=MAX_TTL_S).contains(&ttl_s) {
        return Err(ApiError::new(ErrorCode::BadRequest, format!("`ttl_s` is 1 to {MAX_TTL_S}")));
    }
    let user = user_id(&wanted.user)?;
    let device = wanted.device.as_deref().map(device_id).transpose()?;
    let grant = Grant { user, device, admin: false, ttl_s };
    let token = context
        .auth
        .signer
        .mint(&grant)
        .map_err(|_| ApiError::new(ErrorCode::Internal, "the token could not be signed"))?;
    let expires_at_ms = unix_ms() + ttl_s * 1_000;
    Ok((StatusCode::CREATED, Json(json!({ "token": token, "expires_at_ms": expires_at_ms }))))
}
