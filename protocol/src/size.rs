//! How long things become when they are encoded, before they are.
//!
//! A page must fit into a frame. So whoever gathers one adds up these bounds and stops in time;
//! the bounds hold for both encodings, and are close for ordinary text.

use crate::body::Body;
use crate::item::{Item, ItemContent};
use crate::limits::MAX_FRAME_BYTES;
use crate::message::Message;
use crate::model::ConversationSummary;

/// Room for what is around a page's elements: envelope, counters, ids.
pub const PAGE_OVERHEAD_BYTES: usize = 1024;
/// What a page's elements may take together, by their bounds.
pub const MAX_PAGE_BYTES: usize = MAX_FRAME_BYTES - PAGE_OVERHEAD_BYTES;

/// Field names, punctuation and numbers of a message, in JSON.
const MESSAGE_FIELDS: usize = 200;
/// The same of an item, without its message.
const ITEM_FIELDS: usize = 160;
/// The same of a conversation, without its last message.
const SUMMARY_FIELDS: usize = 200;

/// A text in JSON: quotes, and escapes of up to six bytes.
fn text(text: &str) -> usize {
    let escapes = text.bytes().filter(|byte| *byte < 0x20 || matches!(byte, b'"' | b'\\')).count();
    2 + text.len() + 5 * escapes
}

fn body(body: &Body) -> usize {
    match body.text() {
        Some(body) => text(body),
        None => 2 + body.len().div_ceil(3) * 4,
    }
}

/// A body's bytes in the longest form that any text or bytes have.
const LONGEST_BYTE: usize = 6;

impl Message {
    /// An upper bound of its encoded length, in bytes, by its parts' lengths alone: it is found
    /// without looking at them, and may be far off.
    pub fn encoded_most(&self) -> usize {
        let texts = self.sender.len()
            + self.client_id.len()
            + self.content_type.as_ref().map_or(0, |text| text.len());
        MESSAGE_FIELDS + LONGEST_BYTE * (texts + self.body.len()) + 16
    }

    /// An upper bound of its encoded length, in bytes.
    pub fn encoded_bound(&self) -> usize {
        MESSAGE_FIELDS
            + text(&self.sender)
            + text(&self.client_id)
            + self.content_type.as_deref().map_or(0, text)
            + body(&self.body)
    }
}

impl Item {
    /// An upper bound of its encoded length, in bytes, found without looking at texts; it may be far
    /// off.
    pub fn encoded_most(&self) -> usize {
        ITEM_FIELDS
            + match &self.content {
                ItemContent::Message { conversation, message }
                | ItemContent::Edit { conversation, message } => {
                    2 + LONGEST_BYTE * conversation.len() + message.encoded_most()
                }
                _ => return self.encoded_bound(),
            }
    }

    /// An upper bound of its encoded length, in bytes.
    pub fn encoded_bound(&self) -> usize {
        ITEM_FIELDS
            + match &self.content {
                ItemContent::Message { conversation, message }
                | ItemContent::Edit { conversation, message } => {
                    text(conversation) + message.encoded_bound()
                }
                ItemContent::Recall { conversation, message } => {
                    MESSAGE_FIELDS + text(conversation) + text(&message.sender)
                }
                ItemContent::Read { conversation, read } => text(conversation) + text(&read.user),
                ItemContent::Member { conversation, user, .. } => text(conversation) + text(user),
                ItemContent::Expired => 0,
                ItemContent::Other { kind } => text(kind),
            }
    }
}

impl ConversationSummary {
    /// An upper bound of its encoded length, in bytes.
    pub fn encoded_bound(&self) -> usize {
        SUMMARY_FIELDS
            + text(&self.id)
            + self.name.as_deref().map_or(0, text)
            + self.last.as_ref().map_or(0, Message::encoded_bound)
    }
}

/// How many of the elements, in order, fit into one page by their bounds: at least one, if there
/// is one.
pub fn fit_page(bounds: impl IntoIterator<Item = usize>) -> usize {
    let mut left = MAX_PAGE_BYTES;
    let mut count = 0;
    for bound in bounds {
        match left.checked_sub(bound + 1) {
            Some(rest) => left = rest,
            None => break,
        }
        count += 1;
    }
    count
}
