//! `roost tail`: a user's queue, as it was and as it grows.
//!
//! Each item is printed once and then acknowledged, on the device `cli` unless another is named: the
//! next `roost tail` goes on after it. Nodes that go away are replaced by others without a hole.

use clap::{Args, ValueEnum};
use roost_client::protocol::reply::Connected;
use roost_client::protocol::{DeviceKind, Item, ItemContent, Message};
use roost_client::{Calls as _, Client, ClientError, Delivery, Items};
use roost_storage::model::{DeviceId, UserId};
use tokio::signal::unix::{SignalKind, signal};

use super::output::{note, say, time};
use super::target::{Link, Target};

/// Follow a user's queue
///
/// Prints an item a line, with its sequence, time, conversation, sender and text, and acknowledges
/// it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost tail --as bob
  roost tail --as bob --after 0 --once --json     everything that the queue holds
  roost tail --as bob --device phone --websocket")]
pub(crate) struct Tail {
    /// Whose queue
    #[arg(long = "as", value_name = "USER")]
    user: UserId,
    /// Start after this sequence [default: what the device has acknowledged]
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
    /// End when everything that was there at the start is printed
    #[arg(long)]
    once: bool,
    /// Print each item as one line of JSON
    #[arg(long)]
    json: bool,
    /// The device to be
    #[arg(long, value_name = "ID", default_value = "cli")]
    device: DeviceId,
    /// What the device is
    #[arg(long, value_enum, default_value = "app")]
    kind: Kind,
    #[command(flatten)]
    link: Link,
    #[command(flatten)]
    target: Target,
}

/// The kinds of devices, as the protocol names them.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Kind {
    App,
    Web,
    OfficialAccount,
    MiniProgram,
}

impl From<Kind> for DeviceKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::App => Self::App,
            Kind::Web => Self::Web,
            Kind::OfficialAccount => Self::OfficialAccount,
            Kind::MiniProgram => Self::MiniProgram,
        }
    }
}

impl Tail {
    /// Follows the queue until a signal, or with `--once` until its end.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let mut options = self.target.client_options(&self.link, &self.user, &self.device)?;
        options.device.kind = self.kind.into();
        options.after = self.after;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let (client, items) = Client::connect(options).await?;
        let outcome = tokio::select! {
            outcome = self.follow(&client, items) => outcome,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        };
        client.close().await;
        Ok(outcome?)
    }

    async fn follow(&self, client: &Client, mut items: Items) -> Result<(), ClientError> {
        let end = if self.once { Some(connected(client).await?.tail) } else { None };
        let mut position = match self.after {
            Some(after) => after,
            None => connected(client).await?.cursor,
        };
        while end.is_none_or(|end| position < end) {
            match items.next().await {
                Some(Delivery::Item(item)) => {
                    position = item.seq;
                    self.print(&item);
                }
                Some(Delivery::Skipped { after, head }) => {
                    position = head.saturating_sub(1);
                    note!(
                        "the queue no longer holds what came after {after}; it goes on at {head}"
                    );
                }
                None => return Err(end_of(client)),
            }
        }
        // The last one counts as consumed only when the next is asked for, and none will be.
        if position > 0 {
            client.ack(position.min(end.unwrap_or(position))).await?;
        }
        Ok(())
    }

    fn print(&self, item: &Item) {
        if !self.json {
            return say!("{}", human(item));
        }
        match serde_json::to_string(item) {
            Ok(json) => say!("{json}"),
            Err(error) => note!("item {} cannot be printed: {error}", item.seq),
        }
    }
}

/// The node's answer to the first connection, or a later one.
async fn connected(client: &Client) -> Result<std::sync::Arc<Connected>, ClientError> {
    let mut link = client.link();
    let settled = link.wait_for(|link| !matches!(link, roost_client::Link::Connecting(_))).await;
    match settled.as_deref() {
        Ok(roost_client::Link::Up(connected)) => Ok(connected.clone()),
        _ => {
            drop(settled);
            Err(end_of(client))
        }
    }
}

/// Why the client has ended.
fn end_of(client: &Client) -> ClientError {
    match &*client.link().borrow() {
        roost_client::Link::Down(error) => error.clone(),
        _ => ClientError::DeadlineExceeded,
    }
}

/// An item as one line for people.
fn human(item: &Item) -> String {
    let seq = item.seq;
    match &item.content {
        ItemContent::Message { conversation, message } => {
            format!(
                "{seq} {} {conversation} {}: {}",
                time(message.at_ms),
                message.sender,
                text(message)
            )
        }
        ItemContent::Member { conversation, user, change } => {
            format!("{seq} - {conversation} {user} {change}")
        }
        ItemContent::Expired => format!("{seq} - expired"),
        _ => format!("{seq} - {}", item.kind()),
    }
}

/// A body for a terminal: whatever could move the cursor or start a new line is escaped.
fn text(message: &Message) -> String {
    let Some(text) = message.body.text() else {
        return format!("({} bytes)", message.body.len());
    };
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(body: impl Into<roost_client::protocol::Body>) -> Item {
        let message = Message {
            seq: 7,
            sender: "alice".into(),
            at_ms: 1_760_000_000_000,
            body: body.into(),
            content_type: None,
            client_id: "x".into(),
            expires_at_ms: None,
        };
        Item { seq: 41, content: ItemContent::Message { conversation: "d-1".into(), message } }
    }

    #[test]
    fn an_item_is_one_line_whatever_its_body_holds() {
        assert_eq!(human(&item("hi")), "41 2025-10-09T08:53:20.000Z d-1 alice: hi");
        assert!(human(&item("a\n\u{1b}[2Jb")).ends_with(r"alice: a\n\u{1b}[2Jb"));
        assert!(human(&item(vec![0xff, 0xfe])).ends_with("alice: (2 bytes)"));
    }
}
