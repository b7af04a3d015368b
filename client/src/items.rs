//! The items of a user's queue, across connections: each once, in order.
//!
//! [`Feed`] decides which pushed items are new; [`Items`] is the consumer's end. An item counts as
//! consumed when the consumer asks for the one after it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roost_protocol::Item;
use roost_protocol::reply::Connected;
use tokio::sync::{Notify, mpsc};

use crate::client::Command;

/// What a consumer of [`Items`] gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The next item.
    Item(Item),
    /// The queue no longer holds the items between these: they were trimmed before this device
    /// took them over.
    Skipped {
        /// The last sequence before the hole.
        after: u64,
        /// The first sequence that is there again.
        head: u64,
    },
}

/// How far the consumer got.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    consumed: AtomicU64,
    moved: Notify,
}

impl Progress {
    /// The newest item that the consumer has done with; 0 for none.
    pub(crate) fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Acquire)
    }

    /// Waits until the consumer gets further.
    pub(crate) async fn moved(&self) {
        self.moved.notified().await;
    }
}

/// The items of a user's queue, as long as the [`Client`](crate::Client) lasts.
#[derive(Debug)]
pub struct Items {
    deliveries: mpsc::Receiver<Delivery>,
    progress: Arc<Progress>,
    given: u64,
    /// Keeps the client going while only its items are wanted.
    _commands: mpsc::Sender<Command>,
}

impl Items {
    /// The next item; the one before counts as consumed from now on. `None` when the client has
    /// ended.
    pub async fn next(&mut self) -> Option<Delivery> {
        if self.given > self.progress.consumed() {
            self.progress.consumed.store(self.given, Ordering::Release);
            self.progress.moved.notify_one();
        }
        let delivery = self.deliveries.recv().await?;
        self.given = match &delivery {
            Delivery::Item(item) => item.seq,
            Delivery::Skipped { head, .. } => head.saturating_sub(1),
        };
        Some(delivery)
    }
}

/// What came with a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// New, or known already.
    Taken,
    /// Items before it are missing: the connection is broken.
    Gap,
}

/// The client's end of [`Items`].
#[derive(Debug)]
pub(crate) struct Feed {
    deliveries: mpsc::Sender<Delivery>,
    backlog: VecDeque<Delivery>,
    progress: Arc<Progress>,
    /// Where the queue began for this consumer; `None` before the first connection.
    base: Option<u64>,
    /// The newest sequence in the backlog or beyond; at least `base`.
    delivered: u64,
}

impl Feed {
    /// A feed and its consumer's end, with room for `window` items between them.
    pub(crate) fn new(window: usize, commands: mpsc::Sender<Command>) -> (Self, Items) {
        let (sender, deliveries) = mpsc::channel(window.max(1));
        let progress = Arc::new(Progress::default());
        let items = Items { deliveries, progress: progress.clone(), given: 0, _commands: commands };
        let feed = Self {
            deliveries: sender,
            backlog: VecDeque::new(),
            progress,
            base: None,
            delivered: 0,
        };
        (feed, items)
    }

    /// Where the next connection's pushes must go on; `None` for the device's cursor.
    ///
    /// That is after the consumed item, not after the delivered one: the node counts the window
    /// from there, so what waits for the consumer stays within one window however often the
    /// connection changes. What comes again is passed over.
    pub(crate) fn resume_after(&self) -> Option<u64> {
        self.base.map(|base| base.max(self.progress.consumed()))
    }

    /// How far the consumer got.
    pub(crate) fn progress(&self) -> &Arc<Progress> {
        &self.progress
    }

    /// A connection stands that was asked to go on after `asked`.
    pub(crate) fn connected(&mut self, asked: Option<u64>, connected: &Connected) {
        let expected = asked.unwrap_or(connected.cursor);
        if self.base.is_none() {
            self.base = Some(expected);
            self.delivered = expected;
        }
        let before_head = connected.head.saturating_sub(1);
        if !connected.resumed && before_head > self.delivered {
            let skipped = Delivery::Skipped { after: self.delivered, head: connected.head };
            self.backlog.push_back(skipped);
            self.base = Some(before_head);
            self.delivered = before_head;
        }
    }

    /// Takes a pushed item over, if it is the next one.
    pub(crate) fn offer(&mut self, item: Item) -> Offered {
        let next = self.delivered + 1;
        if item.seq > next {
            return Offered::Gap;
        }
        if item.seq == next {
            self.delivered = next;
            self.backlog.push_back(Delivery::Item(item));
        }
        Offered::Taken
    }

    /// Whether something waits for the consumer.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Moves what the consumer has room for. Returns when something moved, or the consumer has gone.
    pub(crate) async fn deliver(&mut self) {
        match self.deliveries.reserve().await {
            Ok(permit) => {
                if let Some(delivery) = self.backlog.pop_front() {
                    permit.send(delivery);
                }
            }
            Err(_) => self.backlog.clear(),
        }
        while let Ok(permit) = self.deliveries.try_reserve() {
            match self.backlog.pop_front() {
                Some(delivery) => permit.send(delivery),
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use roost_protocol::{Device, DeviceKind, ItemContent};

    use super::*;

    fn feed() -> (Feed, Items) {
        let (commands, _) = mpsc::channel(1);
        Feed::new(4, commands)
    }

    fn item(seq: u64) -> Item {
        Item { seq, content: ItemContent::Expired }
    }

    fn connected(head: u64, cursor: u64, resumed: bool) -> Connected {
        Connected {
            user: "u".into(),
            device: Device { id: "d".into(), kind: DeviceKind::App },
            node: 1,
            head,
            tail: 100,
            cursor,
            resumed,
            applied: 0,
            server_time_ms: 0,
            limits: roost_protocol::limits::Limits::default(),
        }
    }

    #[test]
    fn an_item_is_taken_once_and_only_as_the_next_one() {
        let (mut feed, _items) = feed();
        feed.connected(None, &connected(1, 7, true));
        assert_eq!(feed.offer(item(8)), Offered::Taken);
        assert_eq!(feed.offer(item(8)), Offered::Taken);
        assert_eq!(feed.offer(item(10)), Offered::Gap);
        assert_eq!(feed.backlog.len(), 1);
    }

    #[tokio::test]
    async fn a_new_connection_goes_on_after_what_was_consumed() {
        let (mut feed, mut items) = feed();
        assert_eq!(feed.resume_after(), None);
        feed.connected(None, &connected(1, 7, true));
        assert_eq!(feed.resume_after(), Some(7));
        for seq in 8..=10 {
            assert_eq!(feed.offer(item(seq)), Offered::Taken);
        }
        feed.deliver().await;
        items.next().await;
        assert_eq!(feed.resume_after(), Some(7));
        items.next().await;
        assert_eq!(feed.resume_after(), Some(8));
        feed.connected(Some(8), &connected(1, 7, true));
        for seq in 9..=11 {
            assert_eq!(feed.offer(item(seq)), Offered::Taken);
        }
        feed.deliver().await;
        assert_eq!(items.next().await, Some(Delivery::Item(item(10))));
        assert_eq!(items.next().await, Some(Delivery::Item(item(11))));
    }

    #[tokio::test]
    async fn a_trimmed_queue_is_told_and_goes_on_from_its_head() {
        let (mut feed, mut items) = feed();
        feed.connected(Some(3), &connected(50, 0, false));
        assert_eq!(feed.offer(item(50)), Offered::Taken);
        feed.deliver().await;
        assert_eq!(items.next().await, Some(Delivery::Skipped { after: 3, head: 50 }));
        assert_eq!(items.next().await, Some(Delivery::Item(item(50))));
        assert_eq!(feed.progress().consumed(), 49);
    }
}
