//! From requests to the store's commands, and from their replies to answers. What a request breaks
//! of the published limits is refused here, before anything is proposed.

use roost_cluster::{Committed, SubmitError};
use roost_protocol::reply::{Acked, Created, MembersCount, Sent};
use roost_protocol::request::{ChangeMembers, CreateConversation, SendMessage};
use roost_protocol::{ErrorBody, ErrorCode, OkBody, Target as WireTarget};
use roost_storage::command::{Actor, Attempt, Command, Reply, Target};
use roost_storage::limits::{MAX_BODY_BYTES, MAX_CONTENT_TYPE_BYTES, MAX_NAME_BYTES, MAX_TTL_MS};
use roost_storage::model::{Retention, UserId};

use super::convert::{client_id, conversation_id, conversation_kind, user_id, user_ids};
use super::errors::{bad_request, error, submit_error, unexpected_reply};

/// A `send` of this user.
pub(crate) fn send(
    sender: UserId,
    request: SendMessage,
    attempt: Attempt,
) -> Result<Command, ErrorBody> {
    if request.body.len() > MAX_BODY_BYTES {
        return Err(too_large("body", MAX_BODY_BYTES));
    }
    if request.content_type.as_ref().is_some_and(|text| text.len() > MAX_CONTENT_TYPE_BYTES) {
        return Err(too_large("content_type", MAX_CONTENT_TYPE_BYTES));
    }
    if let Some(ttl_ms) = request.ttl_ms {
        check_ttl(ttl_ms)?;
    }
    Ok(Command::Send {
        sender,
        target: match request.target {
            WireTarget::Conversation(id) => Target::Conversation(conversation_id(&id)?),
            WireTarget::User(id) => Target::User(user_id(&id)?),
        },
        client_id: client_id(&request.client_id)?,
        attempt,
        body: request.body.into_bytes(),
        content_type: request.content_type,
        ttl_ms: request.ttl_ms,
    })
}

/// A `create_conversation` of this user.
pub(crate) fn create(
    owner: UserId,
    request: CreateConversation,
    attempt: Attempt,
) -> Result<Command, ErrorBody> {
    if request.name.as_ref().is_some_and(|name| name.len() > MAX_NAME_BYTES) {
        return Err(too_large("name", MAX_NAME_BYTES));
    }
    Ok(Command::CreateConversation {
        owner,
        kind: conversation_kind(request.kind),
        members: user_ids(&request.members)?,
        name: request.name.map(String::from),
        retention: retention(request.retention)?,
        client_id: client_id(&request.client_id)?,
        attempt,
    })
}

fn retention(asked: Option<roost_protocol::Retention>) -> Result<Retention, ErrorBody> {
    match asked {
        None | Some(roost_protocol::Retention::Forever) => Ok(Retention::Forever),
        Some(roost_protocol::Retention::Ttl { ttl_ms }) => {
            check_ttl(ttl_ms)?;
            Ok(Retention::Ttl { ttl_ms })
        }
        Some(roost_protocol::Retention::UntilDelivered) => {
            Err(bad_request("this version has no retention `until_delivered` yet"))
        }
    }
}

fn check_ttl(ttl_ms: u64) -> Result<(), ErrorBody> {
    if (1..=MAX_TTL_MS).contains(&ttl_ms) {
        Ok(())
    } else {
        Err(bad_request(format!("`ttl_ms` is 1 to {MAX_TTL_MS}")))
    }
}

/// An `add_members`.
pub(crate) fn add_members(actor: Actor, request: &ChangeMembers) -> Result<Command, ErrorBody> {
    Ok(Command::AddMembers {
        actor,
        conversation: conversation_id(&request.conversation)?,
        members: user_ids(&request.members)?,
    })
}

/// A `remove_members`.
pub(crate) fn remove_members(actor: Actor, request: &ChangeMembers) -> Result<Command, ErrorBody> {
    Ok(Command::RemoveMembers {
        actor,
        conversation: conversation_id(&request.conversation)?,
        members: user_ids(&request.members)?,
    })
}

fn too_large(name: &str, most: usize) -> ErrorBody {
    error(ErrorCode::TooLarge, format!("`{name}` has more than {most} bytes"))
}

/// The answer to a request whose command is done.
pub(crate) fn answer(result: Result<Committed, SubmitError>) -> Result<OkBody, ErrorBody> {
    let Committed { reply, index: applied } = result.map_err(|why| submit_error(&why))?;
    Ok(match reply {
        Reply::Sent { conversation, seq, at_ms, duplicate } => {
            OkBody::Sent(Sent { conversation: conversation.into(), seq, at_ms, duplicate, applied })
        }
        Reply::Created { conversation, duplicate } => {
            OkBody::Created(Created { conversation: conversation.into(), duplicate, applied })
        }
        Reply::Members { count } => {
            OkBody::Members(MembersCount { members: u64::from(count), applied })
        }
        Reply::Cursor { cursor } => OkBody::Acked(Acked { cursor, applied }),
        // No request of the client protocol deletes.
        Reply::Deleted => return Err(unexpected_reply()),
    })
}

#[cfg(test)]
mod tests {
    use roost_protocol::ConversationKind;

    use super::*;

    fn alice() -> UserId {
        UserId::new("alice").unwrap()
    }

    fn message(body: Vec<u8>, ttl_ms: Option<u64>) -> SendMessage {
        SendMessage {
            target: WireTarget::User("bob".into()),
            client_id: "1".into(),
            body: body.into(),
            content_type: None,
            ttl_ms,
        }
    }

    fn group(retention: Option<roost_protocol::Retention>) -> CreateConversation {
        CreateConversation {
            kind: ConversationKind::Group,
            members: vec!["bob".into()],
            name: None,
            retention,
            client_id: "1".into(),
        }
    }

    #[test]
    fn a_body_has_a_limit() {
        let send = |len| send(alice(), message(vec![b'x'; len], None), Attempt(1));
        assert!(send(MAX_BODY_BYTES).is_ok());
        assert_eq!(send(MAX_BODY_BYTES + 1).unwrap_err().code, ErrorCode::TooLarge);
    }

    #[test]
    fn a_lifetime_is_neither_nothing_nor_for_ever() {
        for ttl_ms in [0, MAX_TTL_MS + 1, u64::MAX] {
            let refused = send(alice(), message(Vec::new(), Some(ttl_ms)), Attempt(1));
            assert_eq!(refused.unwrap_err().code, ErrorCode::BadRequest);
            let retention = Some(roost_protocol::Retention::Ttl { ttl_ms });
            let refused = create(alice(), group(retention), Attempt(1));
            assert_eq!(refused.unwrap_err().code, ErrorCode::BadRequest);
        }
        assert!(send(alice(), message(Vec::new(), Some(MAX_TTL_MS)), Attempt(1)).is_ok());
    }

    #[test]
    fn until_delivered_is_refused_by_name() {
        let retention = Some(roost_protocol::Retention::UntilDelivered);
        let refused = create(alice(), group(retention), Attempt(1)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::BadRequest);
        assert!(refused.message.contains("until_delivered"));
    }
}
