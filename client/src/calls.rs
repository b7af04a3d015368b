//! The operations as methods, the same on a [`Connection`](crate::Connection) and a
//! [`Client`](crate::Client).

use std::future::Future;

use roost_protocol::reply::{
    Acked, ConversationsPage, Created, HistoryPage, MembersCount, Page, Pong, Sent,
};
use roost_protocol::request::{
    Ack, ChangeMembers, Conversations, CreateConversation, History, Leave, Ping, Pull, SendMessage,
};
use roost_protocol::{CompactString, OkBody, Operation};

use crate::error::ClientError;

/// A request that knows the type of its answer.
pub trait Ask: Send {
    /// The answer.
    type Ok;
    /// The request as the protocol carries it.
    fn into_operation(self) -> Operation;
    /// The answer as the protocol carries it; `None` if it is another one's.
    fn from_ok(ok: OkBody) -> Option<Self::Ok>;
}

/// Adds members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddMembers(pub ChangeMembers);
/// Removes members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoveMembers(pub ChangeMembers);

macro_rules! asks {
    ($($request:ident => $operation:ident($into:expr), $answer:ident($ok:ident);)*) => {
        $(impl Ask for $request {
            type Ok = $ok;
            fn into_operation(self) -> Operation {
                let into: fn($request) -> _ = $into;
                Operation::$operation(into(self))
            }
            fn from_ok(ok: OkBody) -> Option<$ok> {
                match ok {
                    OkBody::$answer(ok) => Some(ok),
                    _ => None,
                }
            }
        })*
    };
}

asks! {
    SendMessage => Send(|request| request), Sent(Sent);
    Pull => Pull(|request| request), Page(Page);
    Ack => Ack(|request| request), Acked(Acked);
    History => History(|request| request), History(HistoryPage);
    Conversations => Conversations(|request| request), Conversations(ConversationsPage);
    CreateConversation => CreateConversation(|request| request), Created(Created);
    AddMembers => AddMembers(|request| request.0), Members(MembersCount);
    RemoveMembers => RemoveMembers(|request| request.0), Members(MembersCount);
    Leave => Leave(|request| request), Members(MembersCount);
    Ping => Ping(|request| request), Pong(Pong);
}

/// The operations of a node.
pub trait Calls: Sync {
    /// Carries out any operation.
    fn call(
        &self,
        operation: Operation,
    ) -> impl Future<Output = Result<OkBody, ClientError>> + Send;

    /// Carries out an operation whose answer's type is known.
    fn ask<A: Ask>(&self, ask: A) -> impl Future<Output = Result<A::Ok, ClientError>> + Send {
        let call = self.call(ask.into_operation());
        async move {
            A::from_ok(call.await?)
                .ok_or_else(|| ClientError::Protocol("an answer to another operation".into()))
        }
    }

    /// Sends a message. Repeat it with the same `client_id` if the outcome is unknown.
    fn send(&self, message: SendMessage) -> impl Future<Output = Result<Sent, ClientError>> + Send {
        self.ask(message)
    }

    /// Reads the queue above `after`.
    fn pull(
        &self,
        after: u64,
        limit: Option<u32>,
    ) -> impl Future<Output = Result<Page, ClientError>> + Send {
        self.ask(Pull { after, limit, ..Pull::default() })
    }

    /// Acknowledges the queue up to `seq`, for this device.
    fn ack(&self, seq: u64) -> impl Future<Output = Result<Acked, ClientError>> + Send {
        self.ask(Ack { seq })
    }

    /// Reads a conversation's messages.
    fn history(
        &self,
        request: History,
    ) -> impl Future<Output = Result<HistoryPage, ClientError>> + Send {
        self.ask(request)
    }

    /// Lists the user's conversations.
    fn conversations(
        &self,
        request: Conversations,
    ) -> impl Future<Output = Result<ConversationsPage, ClientError>> + Send {
        self.ask(request)
    }

    /// Makes a conversation.
    fn create_conversation(
        &self,
        request: CreateConversation,
    ) -> impl Future<Output = Result<Created, ClientError>> + Send {
        self.ask(request)
    }

    /// Adds members to a conversation.
    fn add_members(
        &self,
        conversation: CompactString,
        members: Vec<CompactString>,
    ) -> impl Future<Output = Result<MembersCount, ClientError>> + Send {
        self.ask(AddMembers(ChangeMembers { conversation, members }))
    }

    /// Removes members from a conversation.
    fn remove_members(
        &self,
        conversation: CompactString,
        members: Vec<CompactString>,
    ) -> impl Future<Output = Result<MembersCount, ClientError>> + Send {
        self.ask(RemoveMembers(ChangeMembers { conversation, members }))
    }

    /// Ends the user's own membership.
    fn leave(
        &self,
        conversation: CompactString,
    ) -> impl Future<Output = Result<MembersCount, ClientError>> + Send {
        self.ask(Leave { conversation })
    }

    /// Asks for the node's time.
    fn ping(&self) -> impl Future<Output = Result<Pong, ClientError>> + Send {
        self.ask(Ping {})
    }
}
