//! Between the store's words and the protocol's: the same things, in two crates that do not know
//! each other.

use roost_protocol as protocol;
use roost_protocol::{CompactString, ErrorBody};
use roost_storage::model;
use roost_storage::store::ConversationSummary;

use super::errors::bad_request;

/// A user's id out of a request. The decoder has checked its length already.
pub(crate) fn user_id(text: &str) -> Result<model::UserId, ErrorBody> {
    model::UserId::new(text).map_err(|why| bad_request(why.to_string()))
}

/// A device's id out of a request.
pub(crate) fn device_id(text: &str) -> Result<model::DeviceId, ErrorBody> {
    model::DeviceId::new(text).map_err(|why| bad_request(why.to_string()))
}

/// A conversation's id out of a request.
pub(crate) fn conversation_id(text: &str) -> Result<model::ConversationId, ErrorBody> {
    model::ConversationId::new(text).map_err(|why| bad_request(why.to_string()))
}

/// A client id out of a request.
pub(crate) fn client_id(text: &str) -> Result<model::ClientId, ErrorBody> {
    model::ClientId::new(text).map_err(|why| bad_request(why.to_string()))
}

/// Users' ids out of a request.
pub(crate) fn user_ids(texts: &[CompactString]) -> Result<Vec<model::UserId>, ErrorBody> {
    texts.iter().map(|text| user_id(text)).collect()
}

/// A device's kind, for the store.
pub(crate) fn device_kind(kind: protocol::DeviceKind) -> model::DeviceKind {
    match kind {
        protocol::DeviceKind::App => model::DeviceKind::App,
        protocol::DeviceKind::Web => model::DeviceKind::Web,
        protocol::DeviceKind::OfficialAccount => model::DeviceKind::OfficialAccount,
        protocol::DeviceKind::MiniProgram => model::DeviceKind::MiniProgram,
    }
}

/// A device's kind, for clients.
pub(crate) fn device_kind_out(kind: model::DeviceKind) -> protocol::DeviceKind {
    match kind {
        model::DeviceKind::App => protocol::DeviceKind::App,
        model::DeviceKind::Web => protocol::DeviceKind::Web,
        model::DeviceKind::OfficialAccount => protocol::DeviceKind::OfficialAccount,
        model::DeviceKind::MiniProgram => protocol::DeviceKind::MiniProgram,
    }
}

/// A conversation's kind, for the store.
pub(crate) fn conversation_kind(kind: protocol::ConversationKind) -> model::ConversationKind {
    match kind {
        protocol::ConversationKind::Direct => model::ConversationKind::Direct,
        protocol::ConversationKind::Group => model::ConversationKind::Group,
        protocol::ConversationKind::Channel => model::ConversationKind::Channel,
    }
}

/// A conversation's kind, for clients.
pub(crate) fn conversation_kind_out(kind: model::ConversationKind) -> protocol::ConversationKind {
    match kind {
        model::ConversationKind::Direct => protocol::ConversationKind::Direct,
        model::ConversationKind::Group => protocol::ConversationKind::Group,
        model::ConversationKind::Channel => protocol::ConversationKind::Channel,
    }
}

/// A retention, for clients.
pub(crate) fn retention_out(retention: model::Retention) -> protocol::Retention {
    match retention {
        model::Retention::Forever => protocol::Retention::Forever,
        model::Retention::Ttl { ttl_ms } => protocol::Retention::Ttl { ttl_ms },
    }
}

/// A member's rights, for clients.
pub(crate) fn role_out(role: model::Role) -> protocol::Role {
    match role {
        model::Role::Owner => protocol::Role::Owner,
        model::Role::Admin => protocol::Role::Admin,
        model::Role::Member => protocol::Role::Member,
    }
}

fn change_out(change: model::MemberChange) -> protocol::MemberChange {
    match change {
        model::MemberChange::Joined => protocol::MemberChange::Joined,
        model::MemberChange::Left => protocol::MemberChange::Left,
        model::MemberChange::Removed => protocol::MemberChange::Removed,
    }
}

/// A message, for clients.
pub(crate) fn message_out(message: model::Message) -> protocol::Message {
    protocol::Message {
        seq: message.seq,
        sender: message.sender.into(),
        at_ms: message.at_ms,
        body: message.body.into(),
        content_type: message.content_type,
        client_id: message.client_id.into(),
        expires_at_ms: message.expires_at_ms,
    }
}

/// An item of a queue, for clients.
pub(crate) fn item_out(item: model::Item) -> protocol::Item {
    let content = match item.content {
        model::ItemContent::Message { conversation, message } => protocol::ItemContent::Message {
            conversation: conversation.into(),
            message: message_out(message),
        },
        model::ItemContent::Member { conversation, user, change } => {
            protocol::ItemContent::Member {
                conversation: conversation.into(),
                user: user.into(),
                change: change_out(change),
            }
        }
        model::ItemContent::Expired => protocol::ItemContent::Expired,
    };
    protocol::Item { seq: item.seq, content }
}

/// A conversation in its member's list, for clients.
pub(crate) fn summary_out(summary: ConversationSummary) -> protocol::ConversationSummary {
    let record = summary.record;
    protocol::ConversationSummary {
        id: summary.id.into(),
        kind: conversation_kind_out(record.kind),
        name: record.name.map(CompactString::from),
        role: role_out(summary.role),
        tail: record.tail,
        read: summary.read,
        unread: record.tail.saturating_sub(summary.read),
        last: summary.last.map(message_out),
    }
}
