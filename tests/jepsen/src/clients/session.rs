//! One client that makes one call at a time, on whichever node takes it, and writes every call into
//! the history.

use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::StdRng;
use roost_checker::{Answer, Op};
use roost_client::protocol::request::{Ack, History, Pull, SendMessage};
use roost_client::protocol::{Item, OkBody, Operation, Target};
use roost_client::{Calls as _, ClientError, Connection, Pushes, Transport};

use super::{Shared, User, any_transport};
use crate::recorder::{brief, brief_items, brief_messages};

/// Most items of a page.
const PAGE: u32 = 100;

/// A client's state.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) user: User,
    pub(crate) process: u64,
    pub(crate) rng: StdRng,
    /// The newest applied index that it was told; carried to the next node.
    pub(crate) applied: u64,
    pub(crate) connection: Option<Connection>,
    pub(crate) node: u64,
    device: String,
}

/// How a send ended.
pub(crate) enum SendEnd {
    /// It is stored.
    Stored,
    /// It is surely not, or was refused.
    Failed,
    /// Nobody knows.
    Unknown,
}

impl Session {
    pub(crate) fn new(
        shared: Arc<Shared>,
        user: User,
        process: u64,
        device: &str,
        rng: StdRng,
    ) -> Self {
        let device = device.to_owned();
        Self { shared, user, process, rng, applied: 0, connection: None, node: 0, device }
    }

    fn saw(&mut self, applied: u64) {
        self.applied = self.applied.max(applied);
    }

    /// Connects to a node; gives the connection's number in the history, the cursor and the pushes.
    pub(crate) async fn connect(
        &mut self,
        node: u64,
        transport: Option<Transport>,
        after: Option<u64>,
        window: u32,
    ) -> Option<(u64, u64, Pushes)> {
        let transport = transport.unwrap_or_else(|| any_transport(&mut self.rng));
        let cluster = &self.shared.cluster;
        let mut options = cluster.options(node, transport, &self.user.token, &self.device).ok()?;
        options.window = Some(window);
        options.after = after;
        options.applied = Some(self.applied);
        let op = Op::Connect {
            user: self.user.name.clone(),
            device: self.device.clone(),
            after,
            window: Some(window),
        };
        let ticket = self.shared.recorder.invoke(self.process, node, op);
        self.node = node;
        match Connection::open(&options).await {
            Ok((connection, pushes)) => {
                let connected = connection.connected().clone();
                let answer = Answer::Connected {
                    head: connected.head,
                    tail: connected.tail,
                    cursor: connected.cursor,
                    resumed: connected.resumed,
                    applied: connected.applied,
                };
                self.shared.recorder.ok(ticket, answer);
                self.saw(connected.applied);
                self.connection = Some(connection);
                Some((ticket.call, connected.cursor, pushes))
            }
            Err(error) => {
                self.shared.recorder.error(ticket, &error);
                None
            }
        }
    }

    /// Makes a call on the connection of the moment and writes it down.
    pub(crate) async fn call(&mut self, op: Op, request: Operation) -> Result<OkBody, ClientError> {
        let Some(connection) = self.connection.clone() else {
            return Err(ClientError::Invalid("no connection".into()));
        };
        let ticket = self.shared.recorder.invoke(self.process, self.node, op);
        let result = connection.call(request).await;
        match &result {
            Ok(ok) => match answer(ok) {
                Some((answer, applied)) => {
                    self.shared.recorder.ok(ticket, answer);
                    self.saw(applied);
                }
                None => {
                    let wrong = ClientError::Protocol("an answer to another operation".into());
                    self.shared.recorder.error(ticket, &wrong);
                }
            },
            Err(error) => {
                self.shared.recorder.error(ticket, error);
                let refused = matches!(error, ClientError::Refused(body) if !body.retry);
                // Another node may do better, and one that is merely slow should not be waited for.
                if !refused {
                    self.connection = None;
                }
            }
        }
        result
    }

    /// Sends.
    pub(crate) async fn send(&mut self, target: Target, client_id: &str, body: &str) -> SendEnd {
        let (conversation, to) = match &target {
            Target::Conversation(id) => (Some(id.to_string()), None),
            Target::User(user) => (None, Some(user.to_string())),
        };
        let op = Op::Send {
            user: self.user.name.clone(),
            client_id: client_id.to_owned(),
            body: brief(body),
            conversation,
            to,
            ttl_ms: None,
        };
        let request = SendMessage {
            target,
            client_id: client_id.into(),
            body: body.into(),
            content_type: None,
            ttl_ms: None,
        };
        match self.call(op, Operation::Send(request)).await {
            Ok(_) => SendEnd::Stored,
            Err(error) if error.outcome_unknown() => SendEnd::Unknown,
            Err(_) => SendEnd::Failed,
        }
    }

    /// Reads a page of the queue.
    pub(crate) async fn pull(&mut self, after: u64, linearizable: bool) -> Option<Vec<Item>> {
        let applied = (!linearizable && self.rng.random_bool(0.8)).then_some(self.applied);
        let user = self.user.name.clone();
        let op = Op::Pull { user, after, linearizable, applied, last: false };
        let request = Pull { after, limit: Some(PAGE), linearizable, applied };
        match self.call(op, Operation::Pull(request)).await {
            Ok(OkBody::Page(page)) => Some(page.items),
            _ => None,
        }
    }

    /// Reads a conversation.
    pub(crate) async fn history(&mut self, conversation: &str, after: u64) {
        let user = self.user.name.clone();
        let op = Op::History { user, conversation: conversation.to_owned(), after, last: false };
        let request = History {
            conversation: conversation.into(),
            before: None,
            after: Some(after),
            limit: Some(PAGE),
            applied: Some(self.applied),
        };
        // What it shows is in the history.
        let _ = self.call(op, Operation::History(request)).await;
    }

    /// Acknowledges the queue.
    pub(crate) async fn ack(&mut self, seq: u64) {
        let op = Op::Ack { user: self.user.name.clone(), device: self.device.clone(), seq };
        // Whether it was, is in the history.
        let _ = self.call(op, Operation::Ack(Ack { seq })).await;
    }
}

/// An answer as the history holds it, and the applied index that it names.
fn answer(ok: &OkBody) -> Option<(Answer, u64)> {
    Some(match ok {
        OkBody::Sent(sent) => {
            let answer = Answer::Sent {
                conversation: sent.conversation.to_string(),
                seq: sent.seq,
                at_ms: sent.at_ms,
                duplicate: sent.duplicate,
                applied: sent.applied,
            };
            (answer, sent.applied)
        }
        OkBody::Page(page) => {
            let mut items = page.items.clone();
            brief_items(&mut items);
            let answer = Answer::Items {
                items,
                head: page.head,
                tail: page.tail,
                more: page.more,
                applied: page.applied,
            };
            (answer, page.applied)
        }
        OkBody::Acked(acked) => (Answer::Acked { cursor: acked.cursor }, acked.applied),
        OkBody::History(page) => {
            let mut messages = page.messages.clone();
            brief_messages(messages.iter_mut());
            (Answer::Messages { messages, more: page.more }, page.applied)
        }
        _ => return None,
    })
}
