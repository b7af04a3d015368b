//! The session as a state machine: events in, actions out. It knows no socket, clock or task.
//!
//! What it promises:
//!
//! - Commands leave in the order in which their requests came ([`Action::Submit`]).
//! - Every request that was read is answered once, unless the connection ends first.
//! - Pushed items are dense and in order, within the window ([`PushWindow`]).
//! - Reads reflect what this connection's own finished requests did.
//! - What waits for a client that does not read is bounded: past [`MAX_QUEUED_BYTES`] no page is
//!   read for it, and past [`MAX_IN_FLIGHT`] answers, open or unsent, no request is read from it.

use std::collections::VecDeque;

use bytes::Bytes;
use roost_cluster::{Committed, SubmitError};
use roost_protocol::limits::MAX_IN_FLIGHT;
use roost_protocol::reply::{Closing, ItemsPush, Pong};
use roost_protocol::{
    CloseCode, ErrorBody, ErrorCode, Framing, OkBody, Operation, OperationKind, Push, Request,
    RequestError, ServerFrame,
};
use roost_storage::command::{Actor, Attempt, Command, Reply};
use roost_storage::model::{DeviceId, UserId};

use super::acks::Acks;
use super::event::{Action, Admission, Event, Job, PushPage, Query};
use super::window::PushWindow;
use crate::edge::commands;
use crate::edge::convert::conversation_id;
use crate::edge::errors::{bad_request, error};

/// Unsent bytes past which nothing more is read for a connection.
pub(crate) const MAX_QUEUED_BYTES: usize = 256 * 1024;
/// Reads of one connection that are under way at once; each may give a whole frame.
pub(crate) const MAX_READS: usize = 2;

/// One connection's session.
#[derive(Debug)]
pub(crate) struct Session {
    framing: Framing,
    phase: Phase,
    /// Requests that were read and not answered yet.
    in_flight: usize,
    /// Frames that were handed over and not written yet, and their bytes.
    queued_frames: usize,
    queued_bytes: usize,
    /// Unsent bytes past which nothing more is read for this connection now.
    room: usize,
    /// The next attempt's name.
    attempt: u64,
    /// Whether to close once nothing is in flight.
    shutting_down: bool,
    /// The clock's last reading, for `ping`.
    now_ms: u64,
}

#[derive(Debug)]
enum Phase {
    /// `connect` has not come.
    Waiting,
    /// `connect` is being looked at; nothing is read meanwhile.
    Admitting,
    /// The client is connected.
    Open(Box<Open>),
    /// Nothing happens any more.
    Closed,
}

/// What belongs to a connected client.
#[derive(Debug)]
struct Open {
    user: UserId,
    device: DeviceId,
    push: PushWindow,
    acks: Acks,
    /// Reads that wait for their turn.
    reads: VecDeque<(u64, Query)>,
    /// Reads under way.
    reading: usize,
    /// The newest log index of this connection's own finished commands.
    seen: u64,
    /// The newest queue sequence that surely exists.
    known: u64,
}

impl Session {
    /// A session that waits for `connect`. `attempts` is a random number: the names of this
    /// connection's attempts are counted up from it.
    pub(crate) fn new(framing: Framing, attempts: u64) -> Self {
        Self {
            framing,
            phase: Phase::Waiting,
            in_flight: 0,
            queued_frames: 0,
            queued_bytes: 0,
            room: MAX_QUEUED_BYTES,
            attempt: attempts,
            shutting_down: false,
            now_ms: 0,
        }
    }

    /// Says how many unsent bytes the node bears of this connection now; never more than
    /// [`MAX_QUEUED_BYTES`].
    pub(crate) fn set_room(&mut self, bytes: usize) {
        self.room = bytes.min(MAX_QUEUED_BYTES);
    }

    /// Whether the next request may be read.
    pub(crate) fn wants_input(&self) -> bool {
        let open = matches!(self.phase, Phase::Waiting | Phase::Open(_)) && !self.shutting_down;
        open && self.in_flight + self.queued_frames < MAX_IN_FLIGHT && self.queued_bytes < self.room
    }

    /// What was handed over and not written yet: frames and bytes.
    #[cfg(test)]
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.queued_frames, self.queued_bytes)
    }

    /// Whether a client is connected.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Takes an event in at a time (milliseconds since the Unix epoch); appends what is to be done.
    pub(crate) fn step(&mut self, now_ms: u64, event: Event, out: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Closed) {
            return;
        }
        self.now_ms = now_ms;
        match event {
            Event::Frame(bytes) => self.frame(&bytes, out),
            Event::Unreadable(code) | Event::End(code) => self.close(code, out),
            Event::Admitted(admission) => self.admitted(*admission, out),
            Event::Refused { id, error } => self.refused(id, error, out),
            Event::Committed { job, result } => self.committed(job, result, out),
            Event::Answered { id, operation, result } => {
                if let Phase::Open(open) = &mut self.phase {
                    open.reading -= 1;
                }
                self.finish(id, operation, result, out);
            }
            Event::Page(page) => self.page(page, out),
            Event::Grew(tail) => {
                if let Phase::Open(open) = &mut self.phase {
                    open.push.grew(tail);
                    open.known = open.known.max(tail);
                }
            }
            Event::Look => {
                if let Phase::Open(open) = &mut self.phase {
                    open.push.look();
                }
            }
            Event::Written { frames, bytes } => {
                self.queued_frames -= frames;
                self.queued_bytes -= bytes;
            }
            Event::Nothing => {}
            Event::ConnectTimeout => {
                if !self.is_open() {
                    self.close(CloseCode::Idle, out);
                }
            }
            Event::ShuttingDown => self.shutting_down = true,
        }
        self.pump(out);
    }

    /// Starts what has become possible.
    fn pump(&mut self, out: &mut Vec<Action>) {
        if self.shutting_down && self.in_flight == 0 && !matches!(self.phase, Phase::Closed) {
            self.close(CloseCode::ShuttingDown, out);
        }
        let room = self.queued_bytes < self.room;
        let Phase::Open(open) = &mut self.phase else { return };
        if let Some(run) = open.acks.next(open.known) {
            let (user, device) = (open.user.clone(), open.device.clone());
            let command = Command::Acknowledge { user, device, seq: run.seq };
            out.push(Action::Submit { job: Job::Acks { ids: run.ids }, command });
        }
        while room && open.reading < MAX_READS {
            let Some((id, query)) = open.reads.pop_front() else { break };
            open.reading += 1;
            out.push(Action::Read { id, query, seen: open.seen });
        }
        if room
            && !self.shutting_down
            && let Some(wanted) = open.push.next()
        {
            out.push(Action::ReadQueue { after: wanted.after, limit: wanted.limit });
        }
    }

    fn frame(&mut self, bytes: &[u8], out: &mut Vec<Action>) {
        match self.framing.encoding().decode_request(bytes) {
            Ok(request) if self.is_open() => self.request(request, out),
            Ok(request) => self.first_request(request, out),
            Err(RequestError::BadFrame(_)) => self.close(CloseCode::BadFrame, out),
            Err(RequestError::Refused { id, operation, .. })
                if !self.is_open() && operation != Some(OperationKind::Connect) =>
            {
                self.answer(id, operation, Err(not_connected()), out);
            }
            Err(RequestError::Refused { id, operation, code, message }) => {
                self.answer(id, operation, Err(error(code, message)), out);
            }
        }
    }

    fn first_request(&mut self, request: Request, out: &mut Vec<Action>) {
        let operation = request.operation.kind();
        match (request.operation, &self.phase) {
            (Operation::Connect(connect), Phase::Waiting) => {
                self.phase = Phase::Admitting;
                self.in_flight += 1;
                out.push(Action::Admit { id: request.id, connect });
            }
            _ => self.answer(request.id, Some(operation), Err(not_connected()), out),
        }
    }

    fn admitted(&mut self, admission: Admission, out: &mut Vec<Action>) {
        let Admission { id, user, device, connected, start, acknowledged, window } = admission;
        let tail = connected.tail;
        let mut push = PushWindow::new(window, acknowledged, start, tail);
        push.look();
        self.phase = Phase::Open(Box::new(Open {
            user,
            device,
            push,
            acks: Acks::default(),
            reads: VecDeque::new(),
            reading: 0,
            seen: connected.applied,
            known: tail,
        }));
        let ok = OkBody::Connected(Box::new(connected));
        self.finish(id, OperationKind::Connect, Ok(ok), out);
    }

    fn refused(&mut self, id: u64, error: ErrorBody, out: &mut Vec<Action>) {
        self.phase = Phase::Waiting;
        let unauthorized = error.code == ErrorCode::Unauthorized;
        self.finish(id, OperationKind::Connect, Err(error), out);
        if unauthorized {
            self.close(CloseCode::Unauthorized, out);
        }
    }

    /// A connected client's request.
    fn request(&mut self, request: Request, out: &mut Vec<Action>) {
        let Request { id, operation } = request;
        let kind = operation.kind();
        let Phase::Open(open) = &mut self.phase else { return };
        let user = open.user.clone();
        let query = match operation {
            Operation::Ack(ack) => {
                self.in_flight += 1;
                return open.acks.push(id, ack.seq);
            }
            Operation::Pull(pull) => Query::Pull(pull),
            Operation::History(history) => Query::History(history),
            Operation::Conversations(page) => Query::Conversations(page),
            Operation::Ping(_) => {
                let pong = OkBody::Pong(Pong { server_time_ms: self.now_ms });
                return self.answer(id, Some(kind), Ok(pong), out);
            }
            other => return self.command(id, kind, other, user, out),
        };
        self.in_flight += 1;
        open.reads.push_back((id, query));
    }

    /// A request that changes the store.
    fn command(
        &mut self,
        id: u64,
        kind: OperationKind,
        operation: Operation,
        user: UserId,
        out: &mut Vec<Action>,
    ) {
        self.attempt = self.attempt.wrapping_add(1);
        let attempt = Attempt(self.attempt);
        let command = match operation {
            Operation::Send(send) => commands::send(user, send, attempt),
            Operation::CreateConversation(create) => commands::create(user, create, attempt),
            Operation::AddMembers(change) => commands::add_members(Actor::User(user), &change),
            Operation::RemoveMembers(change) => {
                commands::remove_members(Actor::User(user), &change)
            }
            Operation::Leave(leave) => conversation_id(&leave.conversation)
                .map(|conversation| Command::Leave { user, conversation }),
            Operation::Connect(_) => Err(bad_request("this connection is connected already")),
            _ => Err(error(
                ErrorCode::UnknownOperation,
                format!("this version has no operation `{kind}` yet", kind = kind.as_str()),
            )),
        };
        match command {
            Ok(command) => {
                self.in_flight += 1;
                let job = Job::Request { id, operation: kind };
                out.push(Action::Submit { job, command });
            }
            Err(refusal) => self.answer(id, Some(kind), Err(refusal), out),
        }
    }

    fn committed(
        &mut self,
        job: Job,
        result: Result<Committed, SubmitError>,
        out: &mut Vec<Action>,
    ) {
        if let (Phase::Open(open), Ok(committed)) = (&mut self.phase, &result) {
            open.seen = open.seen.max(committed.index);
        }
        match job {
            Job::Request { id, operation } => {
                self.finish(id, operation, commands::answer(result), out);
            }
            Job::Acks { ids } => {
                if let Phase::Open(open) = &mut self.phase {
                    open.acks.done();
                    if let Ok(Committed { reply: Reply::Cursor { cursor }, .. }) = &result {
                        open.push.acknowledge(*cursor);
                        open.known = open.known.max(*cursor);
                    }
                }
                let answer = commands::answer(result);
                for id in ids {
                    self.finish(id, OperationKind::Ack, answer.clone(), out);
                }
            }
        }
    }

    fn page(&mut self, page: Result<PushPage, ErrorBody>, out: &mut Vec<Action>) {
        let Phase::Open(open) = &mut self.phase else { return };
        let Ok(PushPage { items, tail, applied }) = page else { return open.push.failed() };
        let seqs: Vec<u64> = items.iter().map(|item| item.seq).collect();
        open.known = open.known.max(tail);
        if open.push.page(&seqs, tail).is_err() {
            // The client learns from the next `connect` where the queue begins now.
            return self.close(CloseCode::TooSlow, out);
        }
        if !items.is_empty() {
            out.push(Action::CountPushed(items.len()));
            let push = Push::Items(ItemsPush { items, tail, applied });
            self.send(&ServerFrame::Push(push), out);
        }
    }

    /// Answers a request that was in flight.
    fn finish(
        &mut self,
        id: u64,
        operation: OperationKind,
        result: Result<OkBody, ErrorBody>,
        out: &mut Vec<Action>,
    ) {
        self.in_flight -= 1;
        self.answer(id, Some(operation), result, out);
    }

    fn answer(
        &mut self,
        id: u64,
        operation: Option<OperationKind>,
        result: Result<OkBody, ErrorBody>,
        out: &mut Vec<Action>,
    ) {
        let error = result.as_ref().err().map(|error| error.code);
        let frame = match result {
            Ok(ok) => ServerFrame::Reply { id, ok },
            Err(error) => ServerFrame::Error { id, error },
        };
        out.push(Action::Count { operation, error });
        self.send(&frame, out);
    }

    fn send(&mut self, frame: &ServerFrame, out: &mut Vec<Action>) {
        let bytes: Bytes = self.framing.server_frame(frame);
        self.queued_frames += 1;
        self.queued_bytes += bytes.len();
        out.push(Action::Send(bytes));
    }

    fn close(&mut self, code: CloseCode, out: &mut Vec<Action>) {
        let message = close_message(code);
        let mut closing = Closing::new(code, message);
        if code == CloseCode::Overloaded {
            closing.retry_after_ms = Some(crate::edge::errors::OVERLOADED_RETRY_MS);
        }
        self.send(&ServerFrame::Push(Push::Closing(closing)), out);
        self.phase = Phase::Closed;
        out.push(Action::Close { code, message });
    }
}

fn not_connected() -> ErrorBody {
    error(ErrorCode::NotConnected, "the first request is `connect`")
}

fn close_message(code: CloseCode) -> &'static str {
    match code {
        CloseCode::ShuttingDown => "this node stops; another one will do",
        CloseCode::Unauthorized => "no valid token",
        CloseCode::Replaced => "the same device connected elsewhere",
        CloseCode::FrameTooLarge => "a frame was longer than the limit",
        CloseCode::BadFrame => "a frame was no envelope",
        CloseCode::TooSlow => "the client did not keep up; connect again",
        CloseCode::Idle => "nothing came from the client for too long",
        CloseCode::Overloaded => "this node has too much to do",
    }
}
