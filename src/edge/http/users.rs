//! What a user has: its queue and its devices.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use roost_protocol::CompactString;
use roost_protocol::reply::Page;
use roost_protocol::request::Pull;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ApiError;
use super::input::{Freshness, Params};
use crate::edge::Context;
use crate::edge::convert::{device_kind_out, user_id};

#[derive(Deserialize)]
pub(super) struct QueueParams {
    #[serde(default)]
    after: u64,
    limit: Option<u32>,
    #[serde(default)]
    local: bool,
}

/// `GET /v1/users/{user}/queue`.
pub(super) async fn queue(
    State(context): State<Arc<Context>>,
    Path(user): Path<CompactString>,
    Params(QueueParams { after, limit, local }): Params<QueueParams>,
) -> Result<Json<Page>, ApiError> {
    let user = user_id(&user)?;
    let deadline = Instant::now() + context.options.request_timeout;
    let pull = Pull { after, limit, linearizable: !local, applied: None };
    Ok(Json(context.reads.pull(user, pull, 0, deadline).await?))
}

/// `GET /v1/users/{user}/devices`.
pub(super) async fn devices(
    State(context): State<Arc<Context>>,
    Path(user): Path<CompactString>,
    Params(freshness): Params<Freshness>,
) -> Result<Json<Value>, ApiError> {
    let user = user_id(&user)?;
    if !freshness.local {
        let deadline = Instant::now() + context.options.request_timeout;
        context.cluster.read_barrier(deadline).await?;
    }
    let devices = context.reads.view(move |view| view.devices(&user)).await?;
    let devices: Vec<Value> = devices
        .iter()
        .map(|(id, device)| {
            json!({
                "id": id.as_str(),
                "kind": device_kind_out(device.kind),
                "cursor": device.cursor,
                "registered_at_ms": device.registered_at_ms,
            })
        })
        .collect();
    Ok(Json(json!({ "devices": devices })))
}
