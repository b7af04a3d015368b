//! Whether this node lives, whether it can serve, what it counts, and what its API is.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use roost_protocol::ErrorCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ApiError;
use crate::edge::Context;

/// The API's description.
pub(super) const OPENAPI: &str = include_str!("openapi.json");
/// Time for a look at the cluster in `/readyz`.
const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// 200 as long as this node did not stop at a fault.
pub(super) async fn healthz(State(context): State<Arc<Context>>) -> Result<Json<Value>, ApiError> {
    match &*context.hub.stopped().borrow() {
        None => Ok(Json(json!({ "status": "ok" }))),
        Some(reason) => Err(ApiError::new(
            ErrorCode::NotAvailable,
            format!("this node stopped at a fault: {reason}"),
        )),
    }
}

/// 200 once this node knows a leader and has caught up with it.
pub(super) async fn readyz(State(context): State<Arc<Context>>) -> Result<Json<Value>, ApiError> {
    let stopping = *context.shutdown.borrow();
    if stopping || !context.cluster.is_ready() {
        return Err(ApiError::new(ErrorCode::NotAvailable, "this node can't serve now"));
    }
    let caught_up = context.cluster.read_barrier(Instant::now() + READY_TIMEOUT).await;
    match caught_up {
        Ok(point) => Ok(Json(json!({ "status": "ready", "applied": point.index }))),
        Err(_) => Err(ApiError::new(ErrorCode::NotAvailable, "this node has not caught up")),
    }
}

/// The counters, in the Prometheus text format.
pub(super) async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    // Off the async threads: files are looked at.
    let text = tokio::task::spawn_blocking(move || {
        context.metrics.exposition(&context.cluster, context.hub.devices())
    });
    let text = text.await.unwrap_or_default();
    ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// The API's description.
pub(super) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], OPENAPI)
}
