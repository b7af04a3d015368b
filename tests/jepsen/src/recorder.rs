//! The history, as it happens: in memory for the checker, and in a file for whoever looks later.

use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use parking_lot::Mutex;
use roost_checker::history::write_event;
use roost_checker::{Answer, Event, History, Op, Stage};
use roost_client::ClientError;
use roost_client::protocol::{Item, ItemContent, Message};

/// Writes events down in the order in which they come. Shared by all clients.
pub(crate) struct Recorder {
    start: Instant,
    book: Mutex<Book>,
}

struct Book {
    events: Vec<Event>,
    file: BufWriter<File>,
    calls: u64,
}

/// A call that was begun.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    pub(crate) call: u64,
    process: u64,
    node: u64,
}

impl Recorder {
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let file = BufWriter::new(File::create(path)?);
        let book = Book { events: Vec::new(), file, calls: 0 };
        Ok(Self { start: Instant::now(), book: Mutex::new(book) })
    }

    /// A call is about to be made.
    pub(crate) fn invoke(&self, process: u64, node: u64, op: Op) -> Ticket {
        self.write(Event { op: Some(op), ..blank(process, node, Stage::Invoke) })
    }

    /// It was carried out.
    pub(crate) fn ok(&self, ticket: Ticket, answer: Answer) {
        self.end(ticket, Stage::Ok, Some(answer), None);
    }

    /// It was not, or nobody knows.
    pub(crate) fn error(&self, ticket: Ticket, error: &ClientError) {
        let stage = if error.outcome_unknown() { Stage::Unknown } else { Stage::Fail };
        let text = error.code().map_or_else(|| error.to_string(), |code| code.to_string());
        self.end(ticket, stage, None, Some(text));
    }

    /// Something that nobody asked for.
    pub(crate) fn event(&self, process: u64, node: u64, op: Op, answer: Answer) {
        let blank = blank(process, node, Stage::Ok);
        self.write(Event { op: Some(op), answer: Some(answer), ..blank });
    }

    /// Everything so far; the file is complete too.
    pub(crate) fn history(&self) -> anyhow::Result<History> {
        let mut book = self.book.lock();
        book.file.flush()?;
        Ok(History { events: book.events.clone() })
    }

    fn end(&self, ticket: Ticket, stage: Stage, answer: Option<Answer>, error: Option<String>) {
        let blank = blank(ticket.process, ticket.node, stage);
        self.write(Event { call: ticket.call, answer, error, ..blank });
    }

    /// Gives the event its time, and a number if it has none.
    fn write(&self, mut event: Event) -> Ticket {
        let mut book = self.book.lock();
        if event.call == 0 {
            book.calls += 1;
            event.call = book.calls;
        }
        // Taken under the lock: times rise with the places.
        event.time_ns = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let ticket = Ticket { call: event.call, process: event.process, node: event.node };
        // A full disk of the runner's must not pass for a fault of the server's: the history in
        // memory is the one that is checked.
        let _ = write_event(&event, &mut book.file);
        book.events.push(event);
        ticket
    }
}

/// A body as the history holds it: a long one by its beginning, its length and a hash, the same
/// wherever it is sent or read.
pub(crate) fn brief(body: &str) -> String {
    const SHOWN: usize = 64;
    if body.len() <= SHOWN {
        return body.to_owned();
    }
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let beginning: String = body.chars().take(SHOWN / 2).collect();
    format!("{beginning}… {} bytes, {:016x}", body.len(), hasher.finish())
}

/// Messages' bodies as the history holds them. A body that is no text was never sent, and is kept.
pub(crate) fn brief_messages<'a>(messages: impl Iterator<Item = &'a mut Message>) {
    for message in messages {
        if let Some(text) = message.body.text() {
            message.body = brief(text).into();
        }
    }
}

/// The same for items.
pub(crate) fn brief_items(items: &mut [Item]) {
    brief_messages(items.iter_mut().filter_map(|item| match &mut item.content {
        ItemContent::Message { message, .. } => Some(message),
        _ => None,
    }));
}

fn blank(process: u64, node: u64, stage: Stage) -> Event {
    Event { time_ns: 0, process, node, call: 0, stage, op: None, answer: None, error: None }
}
