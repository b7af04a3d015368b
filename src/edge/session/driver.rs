//! The task that carries one session: it feeds the state machine what happens, and carries out
//! what it wants done.

use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use roost_cluster::host::unix_ms;
use roost_protocol::{CloseCode, Encoding};
use roost_storage::model::UserId;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::admit::{Admitted, admit};
use super::event::{Action, Event};
use super::machine::Session;
use crate::edge::Context;
use crate::edge::hub::{Registration, Signal};
use crate::edge::transport::{FrameSource as _, Inbound, Transport, Writer, WriterEnd};

/// Time that requests in flight have to finish when the node stops.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);
/// A token's longest life as far as the timer is concerned; it is set again when it fires.
const LONGEST_TIMER: Duration = Duration::from_secs(24 * 60 * 60);

/// The farewell to a client that does not read. It may still see the code.
const TOO_SLOW: (CloseCode, &str) = (CloseCode::TooSlow, "the client did not read");

/// Why a connection ends: a code for the peer, or nothing if the peer is gone.
type Farewell = Option<(CloseCode, &'static str)>;

/// What a task under way gave.
enum Done {
    Event(Event),
    Admitted(Box<Admitted>),
}

struct Driver<T: Transport> {
    context: Arc<Context>,
    session: Session,
    writer: Writer<T::Sink>,
    actions: Vec<Action>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    signal: Arc<Signal>,
    seat: Option<Registration>,
    user: Option<UserId>,
    /// When `connect` must have come, the token ends, or shutting down takes too long.
    alarm: Instant,
    expires_at_ms: u64,
    last_heard: Instant,
}

/// Carries a session until its connection has ended. `refused` ends it at once, with a word.
pub(crate) async fn serve<T: Transport>(
    context: Arc<Context>,
    mut source: T::Source,
    sink: T::Sink,
    encoding: Encoding,
    refused: Option<CloseCode>,
) {
    let linger = context.options.linger;
    let mut driver = Driver::<T>::new(context, sink, encoding);
    let farewell = match refused {
        Some(code) => driver.step(Event::End(code)),
        None => driver.run(&mut source).await,
    };
    let Driver { writer, seat, running, .. } = driver;
    // The seat goes first: a client that comes back at once must not meet its own shadow.
    drop((seat, running));
    if let Some(sink) = writer.finish(linger).await {
        T::close(source, sink, farewell.break_value().flatten(), linger).await;
    }
}

impl<T: Transport> Driver<T> {
    fn new(context: Arc<Context>, sink: T::Sink, encoding: Encoding) -> Self {
        let options = &context.options;
        let writer = Writer::start(sink, options.write_timeout, options.keep_alive);
        let alarm = Instant::now() + options.connect_timeout;
        Self {
            context,
            session: Session::new(encoding, rand::random()),
            writer,
            actions: Vec::new(),
            running: FuturesUnordered::new(),
            signal: Arc::new(Signal::default()),
            seat: None,
            user: None,
            alarm,
            expires_at_ms: u64::MAX,
            last_heard: Instant::now(),
        }
    }

    async fn run(&mut self, source: &mut T::Source) -> ControlFlow<Farewell> {
        let mut look = interval(self.context.options.look_interval);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let context = Arc::clone(&self.context);
        let mut stopping = pin!(context.stopping());
        let signal = Arc::clone(&self.signal);
        loop {
            let event = tokio::select! {
                inbound = source.next(), if self.session.wants_input() => self.heard(inbound)?,
                Some(done) = self.running.next(), if !self.running.is_empty() => self.done(done),
                () = signal.woken() => self.woken()?,
                () = self.writer.progress().made() => self.written()?,
                () = sleep_until(self.alarm) => self.alarm(),
                _ = look.tick() => self.looked(),
                () = stopping.as_mut(), if !self.stopping() => {
                    self.alarm = Instant::now() + SHUTDOWN_PATIENCE;
                    self.expires_at_ms = 0;
                    Event::ShuttingDown
                }
            };
            self.step(event)?;
        }
    }

    /// Whether the node is known to stop: the alarm is then for that.
    fn stopping(&self) -> bool {
        self.expires_at_ms == 0
    }

    fn step(&mut self, event: Event) -> ControlFlow<Farewell> {
        let mut actions = std::mem::take(&mut self.actions);
        self.session.step(unix_ms(), event, &mut actions);
        for action in actions.drain(..) {
            self.carry_out(action)?;
        }
        self.actions = actions;
        ControlFlow::Continue(())
    }

    fn heard(&mut self, inbound: Inbound) -> ControlFlow<Farewell, Event> {
        self.last_heard = Instant::now();
        match inbound {
            Inbound::Frame(bytes) => ControlFlow::Continue(Event::Frame(bytes)),
            Inbound::Alive => ControlFlow::Continue(Event::Nothing),
            Inbound::Unreadable(code) => ControlFlow::Continue(Event::Unreadable(code)),
            Inbound::Ended => ControlFlow::Break(None),
        }
    }

    fn done(&mut self, done: Done) -> Event {
        match done {
            Done::Event(event) => event,
            Done::Admitted(admitted) => {
                let Admitted { admission, seat, expires_at_ms } = *admitted;
                self.seat = Some(seat);
                self.user = Some(admission.user.clone());
                if !self.stopping() {
                    self.expires_at_ms = expires_at_ms;
                    self.set_token_alarm();
                }
                Event::Admitted(Box::new(admission))
            }
        }
    }

    fn woken(&mut self) -> ControlFlow<Farewell, Event> {
        let marks = self.signal.take();
        if let Some(code) = marks.end {
            return ControlFlow::Continue(Event::End(code));
        }
        if marks.look {
            self.step(Event::Look)?;
        }
        ControlFlow::Continue(Event::Grew(marks.tail))
    }

    fn written(&mut self) -> ControlFlow<Farewell, Event> {
        match self.writer.progress().end() {
            None => {}
            Some(WriterEnd::TooSlow) => {
                self.context.metrics.slow_clients.inc();
                return ControlFlow::Break(Some(TOO_SLOW));
            }
            Some(WriterEnd::Done | WriterEnd::Broken) => return ControlFlow::Break(None),
        }
        let (frames, bytes) = self.writer.progress().take();
        ControlFlow::Continue(Event::Written { frames, bytes })
    }

    fn alarm(&mut self) -> Event {
        if self.stopping() {
            return Event::End(CloseCode::ShuttingDown);
        }
        if !self.session.is_open() {
            // Looked at again only if an admission is under way.
            self.alarm = Instant::now() + self.context.options.connect_timeout;
            return Event::ConnectTimeout;
        }
        if self.expires_at_ms <= unix_ms() {
            return Event::End(CloseCode::Unauthorized);
        }
        self.set_token_alarm();
        Event::Nothing
    }

    fn set_token_alarm(&mut self) {
        let left = Duration::from_millis(self.expires_at_ms.saturating_sub(unix_ms()));
        self.alarm = Instant::now() + left.min(LONGEST_TIMER);
    }

    fn looked(&mut self) -> Event {
        let silent = self.last_heard.elapsed() >= self.context.options.idle_timeout;
        // While nothing is read, silence says nothing.
        if T::Source::WATCH_SILENCE && silent && self.session.wants_input() {
            return Event::End(CloseCode::Idle);
        }
        Event::Look
    }

    fn carry_out(&mut self, action: Action) -> ControlFlow<Farewell> {
        match action {
            Action::Send(frame) => return self.send(frame),
            Action::Close { code, message } => return ControlFlow::Break(Some((code, message))),
            Action::Count { operation, error } => self.context.metrics.answered(operation, error),
            Action::CountPushed(items) => {
                self.context.metrics.pushed_items.inc_by(items as u64);
            }
            Action::Submit { job, command } => {
                let deadline = self.deadline();
                // The call itself gives the command its place; the future only waits.
                let pending = self.context.cluster.submit(command, deadline);
                self.start(
                    async move { Done::Event(Event::Committed { job, result: pending.await }) },
                );
            }
            Action::Admit { id, connect } => {
                let (context, signal) = (Arc::clone(&self.context), Arc::clone(&self.signal));
                self.start(async move {
                    match admit(&context, id, connect, signal).await {
                        Ok(admitted) => Done::Admitted(Box::new(admitted)),
                        Err(error) => Done::Event(Event::Refused { id, error }),
                    }
                });
            }
            Action::Read { id, query, seen } => {
                let (user, deadline) = (self.user(), self.deadline());
                let (reads, operation) = (self.context.reads.clone(), query.operation());
                self.start(async move {
                    let result = reads.answer(user, query, seen, deadline).await;
                    Done::Event(Event::Answered { id, operation, result })
                });
            }
            Action::ReadQueue { after, limit } => {
                let (user, reads) = (self.user(), self.context.reads.clone());
                self.start(async move {
                    Done::Event(Event::Page(reads.push_page(user, after, limit).await))
                });
            }
        }
        ControlFlow::Continue(())
    }

    fn send(&mut self, frame: Bytes) -> ControlFlow<Farewell> {
        if self.writer.send(frame) {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Some(TOO_SLOW))
    }

    fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.running.push(Box::pin(work));
    }

    fn user(&self) -> UserId {
        self.user.clone().expect("reads follow an admission, which names the user")
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.context.options.request_timeout
    }
}
