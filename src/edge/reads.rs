//! Reading the store for clients: fresh enough, cut to a frame, and off the event loop when it may
//! take long.
//!
//! The store's queries are synchronous. Near a queue's tail they touch memory, and are made in
//! place; a deeper page may come from disk, and goes to a thread that may block. How many of these
//! run at once is bounded, and so is what one of them holds: pages are gathered in small pieces
//! until a frame is full.
//!
//! While a snapshot is being installed, which takes seconds, no query waits for it: clients are told
//! `not_available` at once and may ask another node.

use std::io;
use std::sync::Arc;

use roost_cluster::Cluster;
use roost_cluster::host::{self, unix_ms};
use roost_protocol::limits::{DEFAULT_PAGE, MAX_PAGE};
use roost_protocol::reply::{ConversationsPage, HistoryPage, Page};
use roost_protocol::request::{Conversations, History, Pull};
use roost_protocol::size::MAX_PAGE_BYTES;
use roost_protocol::{ErrorBody, ErrorCode, Item, OkBody};
use roost_storage::Fault;
use roost_storage::model::{ConversationId, DeviceId, DeviceRecord, UserId};
use roost_storage::planted::{self, Bug};
use roost_storage::store::{HistoryRange, QueueBounds, Store, View};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::convert::{conversation_id, item_out, message_out, summary_out};
use super::errors::{bad_request, error, fault, submit_error};
use super::session::event::{PushPage, Query};

/// How far below the tail a page may begin to be read in place.
const NEAR: u64 = 64;
/// Elements of one piece of a page.
const PIECE: usize = 64;
/// Reads that may block, at once.
const MAX_BLOCKING: usize = 16;

/// Reads for clients; cheap to clone.
#[derive(Clone)]
pub(crate) struct Reads {
    cluster: Cluster,
    blocking: Arc<Semaphore>,
}

/// A piece of a queue, cut to what fits into a frame.
struct QueuePiece {
    items: Vec<Item>,
    bounds: QueueBounds,
    more: bool,
}

impl QueuePiece {
    fn into_page(self, applied: u64) -> Page {
        let QueueBounds { head, tail } = self.bounds;
        Page { items: self.items, head, tail, more: self.more, applied }
    }

    fn into_push(self, applied: u64) -> PushPage {
        PushPage { items: self.items, tail: self.bounds.tail, applied }
    }
}

impl Reads {
    /// Reads from this node's store.
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, blocking: Arc::new(Semaphore::new(MAX_BLOCKING)) }
    }

    /// The answer to a client's read, if it can be given in place: a pull near the queue's tail that
    /// has to wait for nothing.
    pub(crate) fn answer_now(
        &self,
        user: &UserId,
        query: &Query,
        seen: u64,
    ) -> Option<Result<OkBody, ErrorBody>> {
        let Query::Pull(pull) = query else { return None };
        let shown = seen.max(pull.applied.unwrap_or(0));
        if pull.linearizable || self.cluster.applied() < shown {
            return None;
        }
        let limit = match page_limit(pull.limit) {
            Ok(limit) => limit,
            Err(refusal) => return Some(Err(refusal)),
        };
        let found = self.queue_now(user, pull.after, limit)?;
        Some(found.map(|(piece, applied)| OkBody::Page(piece.into_page(applied))))
    }

    /// A page for pushing, if it can be read in place.
    pub(crate) fn push_page_now(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
    ) -> Option<Result<PushPage, ErrorBody>> {
        let found = self.queue_now(user, after, limit)?;
        Some(found.map(|(piece, applied)| piece.into_push(applied)))
    }

    /// Answers a client's read; `seen` is the log index that the answer must reflect at least.
    pub(crate) async fn answer(
        &self,
        user: UserId,
        query: Query,
        seen: u64,
        deadline: Instant,
    ) -> Result<OkBody, ErrorBody> {
        match query {
            Query::Pull(pull) => self.pull(user, pull, seen, deadline).await.map(OkBody::Page),
            Query::History(history) => {
                self.wait(seen.max(history.applied.unwrap_or(0)), deadline).await?;
                self.history(user, history).await.map(OkBody::History)
            }
            Query::Conversations(page) => {
                self.wait(seen.max(page.applied.unwrap_or(0)), deadline).await?;
                self.conversations(user, page).await.map(OkBody::Conversations)
            }
        }
    }

    /// A page of a user's queue.
    pub(crate) async fn pull(
        &self,
        user: UserId,
        pull: Pull,
        seen: u64,
        deadline: Instant,
    ) -> Result<Page, ErrorBody> {
        let limit = page_limit(pull.limit)?;
        if pull.linearizable {
            self.cluster.read_barrier(deadline).await.map_err(|why| submit_error(&why))?;
        }
        self.wait(seen.max(pull.applied.unwrap_or(0)), deadline).await?;
        let (piece, applied) = self.queue(user, pull.after, limit).await?;
        Ok(piece.into_page(applied))
    }

    /// A page for pushing.
    pub(crate) async fn push_page(
        &self,
        user: UserId,
        after: u64,
        limit: usize,
    ) -> Result<PushPage, ErrorBody> {
        let (piece, applied) = self.queue(user, after, limit).await?;
        Ok(piece.into_push(applied))
    }

    /// Waits until this node applied `index`.
    pub(crate) async fn wait(&self, index: u64, deadline: Instant) -> Result<(), ErrorBody> {
        if self.cluster.applied() >= index || planted::is(Bug::AppliedIgnored) {
            return Ok(());
        }
        self.cluster.wait_applied(index, deadline).await.map_err(|why| submit_error(&why))
    }

    async fn queue(
        &self,
        user: UserId,
        after: u64,
        limit: usize,
    ) -> Result<(QueuePiece, u64), ErrorBody> {
        if let Some(found) = self.queue_now(&user, after, limit) {
            return found;
        }
        // Asked before the page: the page reflects at least this.
        let applied = self.cluster.applied();
        let piece = self.view(move |view| queue_piece(view, &user, after, limit));
        Ok((piece.await?, applied))
    }

    /// A page near the queue's tail; `None` for one that begins deeper, or must wait.
    fn queue_now(
        &self,
        user: &UserId,
        after: u64,
        limit: usize,
    ) -> Option<Result<(QueuePiece, u64), ErrorBody>> {
        let store = self.cluster.store();
        let applied = self.cluster.applied();
        let found = store.try_view(|view| {
            let near = view.queue_bounds(user)?.tail.saturating_sub(after) <= NEAR;
            near.then(|| queue_piece(view, user, after, limit)).transpose()
        });
        match found? {
            Ok(piece) => piece.map(|piece| Ok((piece, applied))),
            Err(why) => Some(Err(fault(&why))),
        }
    }

    async fn history(&self, user: UserId, history: History) -> Result<HistoryPage, ErrorBody> {
        let limit = page_limit(history.limit)?;
        let id = conversation_id(&history.conversation)?;
        let range = match (history.before, history.after) {
            (None, None) => HistoryRange::Newest,
            (Some(before), None) => HistoryRange::Before(before),
            (None, Some(after)) => HistoryRange::After(after),
            (Some(_), Some(_)) => {
                return Err(bad_request("`before` and `after` exclude each other"));
            }
        };
        let applied = self.cluster.applied();
        let found = self.view(move |view| {
            if view.conversation(&id)?.is_none() {
                return Ok(Err(error(ErrorCode::NotFound, "conversation not found")));
            }
            if !view.members(&id)?.contains_key(&user) {
                return Ok(Err(error(ErrorCode::NotAMember, "not a member of this conversation")));
            }
            history_piece(view, &id, range, limit).map(Ok)
        });
        let (messages, more) = found.await??;
        Ok(HistoryPage { messages, more, applied })
    }

    async fn conversations(
        &self,
        user: UserId,
        request: Conversations,
    ) -> Result<ConversationsPage, ErrorBody> {
        let limit = page_limit(request.limit)?;
        let after = request.after.as_deref().map(conversation_id).transpose()?;
        let applied = self.cluster.applied();
        let (conversations, more) =
            self.view(move |view| conversations_piece(view, &user, after, limit)).await?;
        let next = conversations.last().filter(|_| more).map(|last| last.id.clone());
        Ok(ConversationsPage { conversations, more, next, applied })
    }

    /// Where a user's queue begins and ends.
    pub(crate) fn queue_bounds(&self, user: &UserId) -> Result<QueueBounds, ErrorBody> {
        self.look(|view| view.queue_bounds(user))
    }

    /// A user's device, if it is known.
    pub(crate) fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<Option<DeviceRecord>, ErrorBody> {
        self.look(|view| view.device(user, device))
    }

    /// Looks at a few records, in place.
    fn look<T>(&self, look: impl FnOnce(&View<'_>) -> Result<T, Fault>) -> Result<T, ErrorBody> {
        outcome(self.cluster.store().try_view(look))
    }

    /// Makes a query on a thread that may block.
    pub(crate) async fn view<T: Send + 'static>(
        &self,
        query: impl FnOnce(&View<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, ErrorBody> {
        outcome(self.blocking(move |store| store.try_view(query)).await?)
    }

    /// Asks the store, on a thread that may block, for what no install holds back.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Store) -> T + Send + 'static,
    ) -> Result<T, ErrorBody> {
        let permit = Arc::clone(&self.blocking).acquire_owned().await;
        let store = Arc::clone(self.cluster.store());
        let asked = host::blocking(move || {
            // Who asked may be gone by now; the thread still counts until it is done.
            let _permit = permit;
            Ok::<_, io::Error>(ask(&store))
        });
        asked.await.map_err(|why| {
            tracing::error!(%why, "a read ended early");
            error(ErrorCode::Internal, "the read ended early")
        })
    }
}

/// What came of a query; `None` was not asked, for a snapshot is being installed.
fn outcome<T>(found: Option<Result<T, Fault>>) -> Result<T, ErrorBody> {
    match found {
        Some(found) => found.map_err(|why| fault(&why)),
        None => Err(error(ErrorCode::NotAvailable, "this node takes in a snapshot")),
    }
}

/// A request's `limit`.
pub(crate) fn page_limit(limit: Option<u32>) -> Result<usize, ErrorBody> {
    match limit.map(|limit| limit as usize) {
        None => Ok(DEFAULT_PAGE),
        Some(limit) if (1..=MAX_PAGE).contains(&limit) => Ok(limit),
        Some(_) => Err(bad_request(format!("`limit` is 1 to {MAX_PAGE}"))),
    }
}

/// What still fits into a page.
struct Room(usize);

impl Room {
    /// Whether an element of this size goes in. The first one always does: a frame holds any.
    fn take(&mut self, bound: usize, first: bool) -> bool {
        let left = self.0.checked_sub(bound + 1);
        self.0 = left.unwrap_or(0);
        left.is_some() || first
    }
}

/// What still fits into a page of items. Nearly every page is far below a frame's length, so texts
/// are looked at only where the rough bounds of all items pass it.
enum ItemRoom {
    Rough(Room),
    Exact(Room),
}

impl ItemRoom {
    fn new() -> Self {
        Self::Rough(Room(MAX_PAGE_BYTES))
    }

    /// Whether `item` goes in after `items`.
    fn take(&mut self, items: &[Item], item: &Item) -> bool {
        if let Self::Rough(room) = self {
            if room.take(item.encoded_most(), false) {
                return true;
            }
            let taken: usize = items.iter().map(|item| item.encoded_bound() + 1).sum();
            *self = Self::Exact(Room(MAX_PAGE_BYTES.saturating_sub(taken)));
        }
        let Self::Exact(room) = self else { return true };
        room.take(item.encoded_bound(), items.is_empty())
    }
}

fn queue_piece(
    view: &View<'_>,
    user: &UserId,
    after: u64,
    limit: usize,
) -> Result<QueuePiece, Fault> {
    let by_log_ms = if planted::is(Bug::ClockInTtl) { 0 } else { view.now_ms() };
    let now_ms = unix_ms().max(by_log_ms);
    let mut room = ItemRoom::new();
    let mut items: Vec<Item> = Vec::with_capacity(PIECE.min(limit));
    loop {
        let after = items.last().map_or(after, |item| item.seq);
        let page = view.queue_page(user, after, PIECE.min(limit - items.len()), now_ms)?;
        let empty = page.items.is_empty();
        for item in page.items.into_iter().map(item_out) {
            if !room.take(&items, &item) {
                return Ok(QueuePiece { items, bounds: page.bounds, more: true });
            }
            items.push(item);
        }
        if !page.more || empty || items.len() >= limit {
            return Ok(QueuePiece { items, bounds: page.bounds, more: page.more });
        }
    }
}

fn history_piece(
    view: &View<'_>,
    id: &ConversationId,
    mut range: HistoryRange,
    limit: usize,
) -> Result<(Vec<roost_protocol::Message>, bool), Fault> {
    let now_ms = unix_ms().max(view.now_ms());
    let forward = matches!(range, HistoryRange::After(_));
    let mut room = Room(MAX_PAGE_BYTES);
    // In the direction of the query; turned round at the end.
    let mut messages: Vec<roost_protocol::Message> = Vec::new();
    let more = loop {
        let page = view.history(id, range, PIECE.min(limit - messages.len()), now_ms)?;
        let empty = page.messages.is_empty();
        let mut found: Vec<_> = page.messages.into_iter().map(message_out).collect();
        if !forward {
            found.reverse();
        }
        let before = messages.len();
        let whole = found.len();
        for message in found {
            if !room.take(message.encoded_bound(), messages.is_empty()) {
                break;
            }
            messages.push(message);
        }
        if messages.len() - before < whole {
            break true;
        }
        if !page.more || empty || messages.len() >= limit {
            break page.more;
        }
        let Some(last) = messages.last() else { break page.more };
        range =
            if forward { HistoryRange::After(last.seq) } else { HistoryRange::Before(last.seq) };
    };
    if !forward {
        messages.reverse();
    }
    Ok((messages, more))
}

fn conversations_piece(
    view: &View<'_>,
    user: &UserId,
    mut after: Option<ConversationId>,
    limit: usize,
) -> Result<(Vec<roost_protocol::ConversationSummary>, bool), Fault> {
    let now_ms = unix_ms().max(view.now_ms());
    let mut room = Room(MAX_PAGE_BYTES);
    let mut found = Vec::new();
    loop {
        let piece = PIECE.min(limit - found.len());
        let (page, more) = view.conversations(user, after.as_ref(), piece, now_ms)?;
        let empty = page.is_empty();
        for summary in page {
            let id = summary.id.clone();
            let summary = summary_out(summary);
            if !room.take(summary.encoded_bound(), found.is_empty()) {
                return Ok((found, true));
            }
            after = Some(id);
            found.push(summary);
        }
        if !more || empty || found.len() >= limit {
            return Ok((found, more));
        }
    }
}

#[cfg(test)]
mod tests {
    use roost_protocol::{ItemContent, Message};

    use super::*;

    #[test]
    fn a_limit_is_checked_and_has_a_default() {
        assert_eq!(page_limit(None), Ok(DEFAULT_PAGE));
        assert_eq!(page_limit(Some(500)), Ok(500));
        for limit in [0, 501, u32::MAX] {
            assert_eq!(page_limit(Some(limit)).unwrap_err().code, ErrorCode::BadRequest);
        }
    }

    #[test]
    fn a_page_of_items_is_cut_by_what_they_really_take() {
        let item = |len: usize| Item {
            seq: 1,
            content: ItemContent::Message {
                conversation: "g-0-1".into(),
                message: Message {
                    seq: 1,
                    sender: "alice".into(),
                    at_ms: 1,
                    body: "x".repeat(len).into(),
                    content_type: None,
                    client_id: "1".into(),
                    expires_at_ms: None,
                },
            },
        };
        for len in [0, 200, 60_000] {
            let (mut room, mut items) = (ItemRoom::new(), Vec::new());
            while room.take(&items, &item(len)) && items.len() < 10_000 {
                items.push(item(len));
            }
            let each = item(len).encoded_bound() + 1;
            assert_eq!(items.len(), (MAX_PAGE_BYTES / each).min(10_000), "bodies of {len}");
        }
    }

    #[test]
    fn a_page_takes_the_first_element_whatever_its_size() {
        let mut room = Room(10);
        assert!(room.take(100, true));
        assert!(!room.take(1, false));
        let mut room = Room(10);
        assert!(room.take(4, true));
        assert!(room.take(4, false));
        assert!(!room.take(1, false));
    }
}
