//! What this node knows of itself and of the cluster.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use roost_storage::store::{Counts, TierStats};
use serde_json::{Value, json};

use super::ApiError;
use crate::edge::Context;

/// `GET /v1/cluster`: the status, what the store holds, and the digest of its state. Two nodes with
/// digests of the same `applied` have the same digest.
pub(super) async fn show(State(context): State<Arc<Context>>) -> Result<Json<Value>, ApiError> {
    let status = context.cluster.status();
    let found = context
        .reads
        .blocking(|store| (store.counts(), store.tier_stats(), store.digest()))
        .await?;
    let (counts, tiers, (position, digest)) = found;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": context.cluster.is_ready(),
        "node": status.node,
        "role": status.role,
        "leader": status.leader,
        "term": status.term,
        "last_log": status.last_log,
        "committed": status.committed,
        "applied": status.applied,
        "checkpoint": status.checkpoint,
        "purged": status.purged,
        "nodes": status.nodes,
        "counts": shown_counts(counts),
        "tiers": shown_tiers(tiers),
        "digest": {
            "applied": position.map(|position| position.index),
            "value": digest.to_string(),
        },
        "connected_devices": context.hub.devices(),
    })))
}

fn shown_counts(counts: Counts) -> Value {
    json!({
        "users": counts.users,
        "conversations": counts.conversations,
        "messages": counts.messages,
        "references": counts.references,
        "devices": counts.devices,
        "dedup": counts.dedup,
    })
}

fn shown_tiers(tiers: TierStats) -> Value {
    json!({
        "dirty_bytes": tiers.dirty_bytes,
        "warm_bytes": tiers.warm_bytes,
        "cold_bytes": tiers.cold_bytes,
        "checkpoint": tiers.checkpoint,
    })
}
