//! Conversations, their members, and messages on behalf of users.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roost_cluster::Committed;
use roost_protocol::request::{ChangeMembers, CreateConversation, SendMessage};
use roost_protocol::{Body, CompactString, ConversationKind, ErrorCode, OkBody, Retention, Target};
use roost_storage::command::{Actor, Attempt, Command, Reply};
use roost_storage::model::{ConversationId, ConversationRecord, Members};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::ApiError;
use super::input::{Freshness, JsonBody, Params};
use crate::edge::convert::{
    conversation_id, conversation_kind_out, retention_out, role_out, user_id,
};
use crate::edge::errors::unexpected_reply;
use crate::edge::{Context, commands};

type Answer = Result<(StatusCode, Json<OkBody>), ApiError>;

#[derive(Deserialize)]
pub(super) struct NewConversation {
    /// The first of the members if it is not named.
    owner: Option<CompactString>,
    kind: ConversationKind,
    #[serde(default)]
    members: Vec<CompactString>,
    name: Option<CompactString>,
    retention: Option<WireRetention>,
    client_id: Option<CompactString>,
}

/// `"forever"`, `"until_delivered"` or `{"ttl_ms": N}`.
#[derive(Deserialize)]
#[serde(untagged)]
enum WireRetention {
    Named(NamedRetention),
    Ttl { ttl_ms: u64 },
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum NamedRetention {
    Forever,
    UntilDelivered,
}

impl From<WireRetention> for Retention {
    fn from(retention: WireRetention) -> Self {
        match retention {
            WireRetention::Named(NamedRetention::Forever) => Self::Forever,
            WireRetention::Named(NamedRetention::UntilDelivered) => Self::UntilDelivered,
            WireRetention::Ttl { ttl_ms } => Self::Ttl { ttl_ms },
        }
    }
}

/// `POST /v1/conversations`.
pub(super) async fn create(
    State(context): State<Arc<Context>>,
    JsonBody(wanted): JsonBody<NewConversation>,
) -> Answer {
    let owner = wanted.owner.as_ref().or(wanted.members.first()).ok_or_else(|| {
        ApiError::new(ErrorCode::BadRequest, "`owner` or one of `members` is needed")
    })?;
    let owner = user_id(owner)?;
    let attempt = Attempt(rand::random());
    let request = CreateConversation {
        kind: wanted.kind,
        members: wanted.members,
        name: wanted.name,
        retention: wanted.retention.map(Retention::from),
        // Without a name of its own, the request is told from every other.
        client_id: wanted.client_id.unwrap_or_else(|| format!("http-{:016x}", attempt.0).into()),
    };
    carry_out(&context, commands::create(owner, request, attempt)?).await
}

#[derive(Deserialize)]
pub(super) struct NewMessage {
    sender: CompactString,
    client_id: CompactString,
    body: Option<String>,
    body_base64: Option<String>,
    content_type: Option<CompactString>,
    ttl_ms: Option<u64>,
}

/// `POST /v1/conversations/{id}/messages`.
pub(super) async fn send(
    State(context): State<Arc<Context>>,
    Path(id): Path<CompactString>,
    JsonBody(wanted): JsonBody<NewMessage>,
) -> Answer {
    let sender = user_id(&wanted.sender)?;
    let request = SendMessage {
        target: Target::Conversation(id),
        client_id: wanted.client_id,
        body: body(wanted.body, wanted.body_base64)?,
        content_type: wanted.content_type,
        ttl_ms: wanted.ttl_ms,
    };
    carry_out(&context, commands::send(sender, request, Attempt(rand::random()))?).await
}

fn body(text: Option<String>, base64: Option<String>) -> Result<Body, ApiError> {
    let bad = |message: &str| ApiError::new(ErrorCode::BadRequest, message);
    match (text, base64) {
        (Some(text), None) => Ok(text.into()),
        (None, Some(base64)) => {
            STANDARD.decode(base64).map(Body::from).map_err(|_| bad("`body_base64` is not base64"))
        }
        (Some(_), Some(_)) => Err(bad("`body` and `body_base64` exclude each other")),
        (None, None) => Err(bad("`body` or `body_base64` is missing")),
    }
}

/// `PUT /v1/conversations/{id}/members/{user}`.
pub(super) async fn add_member(
    State(context): State<Arc<Context>>,
    Path((conversation, user)): Path<(CompactString, CompactString)>,
) -> Answer {
    let change = ChangeMembers { conversation, members: vec![user] };
    carry_out(&context, commands::add_members(Actor::Admin, &change)?).await
}

/// `DELETE /v1/conversations/{id}/members/{user}`.
pub(super) async fn remove_member(
    State(context): State<Arc<Context>>,
    Path((conversation, user)): Path<(CompactString, CompactString)>,
) -> Answer {
    let change = ChangeMembers { conversation, members: vec![user] };
    carry_out(&context, commands::remove_members(Actor::Admin, &change)?).await
}

/// Hands a command in; 201 for what is new, 200 for the rest.
async fn carry_out(context: &Context, command: Command) -> Answer {
    let deadline = Instant::now() + context.options.request_timeout;
    let ok = commands::answer(context.cluster.submit(command, deadline).await)?;
    let status = match &ok {
        OkBody::Sent(sent) if !sent.duplicate => StatusCode::CREATED,
        OkBody::Created(created) if !created.duplicate => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    Ok((status, Json(ok)))
}

/// `DELETE /v1/conversations/{id}`.
pub(super) async fn delete(
    State(context): State<Arc<Context>>,
    Path(id): Path<CompactString>,
) -> Result<Json<Value>, ApiError> {
    let command = Command::DeleteConversation { conversation: conversation_id(&id)? };
    let deadline = Instant::now() + context.options.request_timeout;
    match context.cluster.submit(command, deadline).await? {
        Committed { reply: Reply::Deleted, index } => {
            Ok(Json(json!({ "deleted": true, "applied": index })))
        }
        _ => Err(unexpected_reply().into()),
    }
}

/// `GET /v1/conversations/{id}`.
pub(super) async fn show(
    State(context): State<Arc<Context>>,
    Path(id): Path<CompactString>,
    Params(freshness): Params<Freshness>,
) -> Result<Json<Value>, ApiError> {
    let id = conversation_id(&id)?;
    if !freshness.local {
        let deadline = Instant::now() + context.options.request_timeout;
        context.cluster.read_barrier(deadline).await?;
    }
    let applied = context.cluster.applied();
    let wanted = id.clone();
    let found =
        context.reads.view(move |view| Ok((view.conversation(&wanted)?, view.members(&wanted)?)));
    match found.await? {
        (Some(record), members) => Ok(Json(shown(&id, &record, &members, applied))),
        (None, _) => Err(ApiError::new(ErrorCode::NotFound, "conversation not found")),
    }
}

fn shown(
    id: &ConversationId,
    record: &ConversationRecord,
    members: &Members,
    applied: u64,
) -> Value {
    let members: Vec<Value> = members
        .iter()
        .map(|(user, member)| {
            json!({
                "user": user.as_str(),
                "role": role_out(member.role),
                "joined_at_ms": member.joined_at_ms,
            })
        })
        .collect();
    json!({
        "id": id.as_str(),
        "kind": conversation_kind_out(record.kind),
        "name": record.name,
        "retention": retention_out(record.retention),
        "created_at_ms": record.created_at_ms,
        "tail": record.tail,
        "members": members,
        "applied": applied,
    })
}
