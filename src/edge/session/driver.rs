//! The task that carries one session: it feeds the state machine what happens, and carries out
//! what it wants done.
//!
//! A connection has this one task and one timer. Whenever it wakes, it takes in all that is ready,
//! then writes all that came of it at once. While nothing happens, it holds no buffer.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use roost_cluster::host::unix_ms;
use roost_cluster::{Pending, SubmitError};
use roost_protocol::{CloseCode, Framing};
use roost_storage::model::UserId;
use roost_storage::planted::{self, Bug};
use tokio::time::{Instant, timeout};

use super::admit::{Admitted, admit};
use super::event::{Action, Event, Job};
use super::machine::Session;
use super::timer::{Due, Timer};
use crate::edge::Context;
use crate::edge::budget::Ticket;
use crate::edge::hub::{Marks, Registration, Signal};
use crate::edge::transport::{Farewell, Inbound, Link, Outbox};
use crate::edge::unsent::UnsentBytes;

/// Events that are taken in before what came of them is written.
const MAX_EVENTS: usize = 64;
/// Time that requests in flight have to finish when the node stops.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);
/// A token's longest life as far as the timer is concerned; it is set again when it fires.
const LONGEST_TIMER: Duration = Duration::from_secs(24 * 60 * 60);
/// The farewell to a client that does not read. It may still see the code.
const TOO_SLOW: (CloseCode, &str) = (CloseCode::TooSlow, "the client did not read");

thread_local! {
    /// Room for a step's actions, so that no idle connection keeps its own.
    static ACTIONS: Cell<Vec<Action>> = const { Cell::new(Vec::new()) };
}

/// What work under way gave.
enum Done {
    Event(Event),
    Admitted(Box<Admitted>),
}

/// Work under way.
enum Running {
    /// A command that was submitted, and its place in the node's budget.
    Command(Option<(Job, Ticket)>, Pending),
    /// Anything else.
    Other(Pin<Box<dyn Future<Output = Done> + Send>>),
}

impl Future for Running {
    type Output = Done;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Done> {
        match &mut *self {
            Self::Command(job, pending) => {
                let result = ready!(pending.as_mut().poll(cx));
                let (job, ticket) = job.take().expect("a future is not polled after its end");
                ticket.done(Instant::now());
                Poll::Ready(Done::Event(Event::Committed { job, result }))
            }
            Self::Other(work) => work.as_mut().poll(cx),
        }
    }
}

struct Driver<L> {
    context: Arc<Context>,
    session: Session,
    link: L,
    outbox: Outbox,
    unsent: UnsentBytes,
    running: FuturesUnordered<Running>,
    signal: Arc<Signal>,
    seat: Option<Registration>,
    user: Option<UserId>,
    due: Due,
    timer: Timer,
    /// The clock's reading when the task woke.
    now: Instant,
    stopping: bool,
    expires_at_ms: u64,
}

/// Carries a session until its connection has ended. `refused` ends it at once, with a word.
pub(crate) async fn serve<L: Link>(
    context: Arc<Context>,
    link: L,
    framing: Framing,
    refused: Option<CloseCode>,
) {
    let linger = context.options.linger;
    let mut driver = Box::new(Driver::new(Arc::clone(&context), link, framing));
    let farewell = match refused {
        Some(code) => driver.step(Event::End(code)).break_value().flatten(),
        None => {
            let mut stopping = Box::pin(context.stopping());
            poll_fn(|cx| driver.poll(stopping.as_mut(), cx)).await
        }
    };
    Box::pin(driver.finish(farewell, linger)).await;
}

impl<L: Link> Driver<L> {
    fn new(context: Arc<Context>, link: L, framing: Framing) -> Self {
        let options = &context.options;
        let now = Instant::now();
        let due = Due {
            alarm: now + options.connect_timeout,
            look: now + options.look_interval,
            probe: now + options.keep_alive,
            idle: L::WATCH_SILENCE.then_some(now + options.idle_timeout),
            write: None,
        };
        Self {
            session: Session::new(framing, rand::random()),
            link,
            outbox: Outbox::default(),
            unsent: context.unsent.share(),
            running: FuturesUnordered::new(),
            signal: Arc::new(Signal::default()),
            seat: None,
            user: None,
            timer: Timer::at(due.first()),
            due,
            now,
            stopping: false,
            expires_at_ms: u64::MAX,
            context,
        }
    }

    /// Ready when the connection is to end.
    fn poll(
        &mut self,
        stopping: Pin<&mut impl Future<Output = ()>>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Farewell> {
        self.now = Instant::now();
        if !self.stopping && stopping.poll(cx).is_ready() {
            self.stopping = true;
            self.due.alarm = self.now + SHUTDOWN_PATIENCE;
            if let ControlFlow::Break(farewell) = self.step(Event::ShuttingDown) {
                return Poll::Ready(farewell);
            }
        }
        match self.work(cx) {
            ControlFlow::Break(farewell) => Poll::Ready(farewell),
            ControlFlow::Continue(()) => Poll::Pending,
        }
    }

    fn work(&mut self, cx: &mut TaskContext<'_>) -> ControlFlow<Farewell> {
        let mut left = MAX_EVENTS;
        loop {
            while left > 0
                && let Poll::Ready(event) = self.poll_event(cx)
            {
                left -= 1;
                self.step(event?)?;
            }
            let written = self.write(cx)?;
            if left == 0 {
                // Others have their turn before what else is ready here.
                cx.waker().wake_by_ref();
                return ControlFlow::Continue(());
            }
            let due = self.poll_due(cx)?;
            if !written && !due {
                return ControlFlow::Continue(());
            }
        }
    }

    fn poll_event(&mut self, cx: &mut TaskContext<'_>) -> Poll<ControlFlow<Farewell, Event>> {
        if let Poll::Ready(Some(done)) = self.running.poll_next_unpin(cx) {
            return Poll::Ready(ControlFlow::Continue(self.done(done)));
        }
        if let Poll::Ready(marks) = self.signal.poll_marks(cx) {
            return Poll::Ready(self.woken(marks));
        }
        if self.session.wants_input()
            && let Poll::Ready(inbound) = self.link.poll_next(cx)
        {
            return Poll::Ready(self.heard(inbound));
        }
        Poll::Pending
    }

    /// Feeds the state machine an event, and all that follows from it at once.
    fn step(&mut self, event: Event) -> ControlFlow<Farewell> {
        let mut actions = ACTIONS.take();
        let mut following = VecDeque::new();
        let mut next = Some(event);
        let mut flow = ControlFlow::Continue(());
        while let Some(event) = next {
            self.session.set_room(self.unsent.room());
            self.session.step(unix_ms(), event, &mut actions);
            flow = actions.drain(..).try_for_each(|action| {
                self.carry_out(action).map_continue(|event| {
                    following.extend(event);
                })
            });
            if flow.is_break() {
                break;
            }
            next = following.pop_front();
        }
        ACTIONS.set(actions);
        flow
    }

    fn heard(&mut self, inbound: Inbound) -> ControlFlow<Farewell, Event> {
        if let Some(idle) = &mut self.due.idle {
            *idle = self.now + self.context.options.idle_timeout;
        }
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
                if admission.window == 0 {
                    self.signal.be_quiet();
                }
                self.seat = Some(seat);
                self.user = Some(admission.user.clone());
                self.expires_at_ms = expires_at_ms;
                if !self.stopping {
                    self.set_token_alarm();
                }
                Event::Admitted(Box::new(admission))
            }
        }
    }

    fn woken(&mut self, marks: Marks) -> ControlFlow<Farewell, Event> {
        if let Some(code) = marks.end {
            return ControlFlow::Continue(Event::End(code));
        }
        if marks.look {
            self.step(Event::Look)?;
        }
        ControlFlow::Continue(Event::Grew(marks.tail))
    }

    /// Writes what waits; whether a frame of the session got out.
    fn write(&mut self, cx: &mut TaskContext<'_>) -> ControlFlow<Farewell, bool> {
        let rest = match self.link.poll_write(&mut self.outbox, cx) {
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(_)) => return ControlFlow::Break(None),
            Poll::Pending => true,
        };
        let (frames, bytes) = self.outbox.take_written();
        if !rest {
            self.due.write = None;
        } else if frames > 0 || self.due.write.is_none() {
            self.due.write = Some(self.now + self.context.options.write_timeout);
        }
        if frames > 0 {
            self.unsent.remove(bytes);
            self.step(Event::Written { frames, bytes })?;
        }
        ControlFlow::Continue(frames > 0)
    }

    /// Does what is due by the clock; whether there was anything.
    fn poll_due(&mut self, cx: &mut TaskContext<'_>) -> ControlFlow<Farewell, bool> {
        let Poll::Ready(now) = self.timer.poll(self.due.first(), cx) else {
            return ControlFlow::Continue(false);
        };
        self.now = now;
        self.due_now()?;
        ControlFlow::Continue(true)
    }

    fn due_now(&mut self) -> ControlFlow<Farewell> {
        let now = self.now;
        let context = Arc::clone(&self.context);
        if self.due.write.is_some_and(|at| at <= now) {
            context.metrics.slow_clients.inc();
            return ControlFlow::Break(Some(TOO_SLOW));
        }
        if self.due.alarm <= now {
            let event = self.alarm();
            self.step(event)?;
        }
        if self.due.idle.is_some_and(|at| at <= now) {
            // While nothing is read, silence says nothing.
            if self.session.wants_input() {
                self.step(Event::End(CloseCode::Idle))?;
            }
            self.due.idle = Some(now + context.options.idle_timeout);
        }
        if self.due.probe <= now {
            self.due.probe = now + context.options.keep_alive;
            self.link.probe();
        }
        if self.due.look <= now {
            self.due.look = now + context.options.look_interval;
            self.step(if planted::is(Bug::HintLost) { Event::Nothing } else { Event::Look })?;
        }
        ControlFlow::Continue(())
    }

    fn alarm(&mut self) -> Event {
        if self.stopping {
            return Event::End(CloseCode::ShuttingDown);
        }
        if !self.session.is_open() {
            // Looked at again only if an admission is under way.
            self.due.alarm = self.now + self.context.options.connect_timeout;
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
        self.due.alarm = self.now + left.min(LONGEST_TIMER);
    }

    /// Carries out an action; the event that follows from it at once, if there is one.
    fn carry_out(&mut self, action: Action) -> ControlFlow<Farewell, Option<Event>> {
        match action {
            Action::Send(frame) => {
                self.unsent.add(frame.len());
                self.outbox.push(frame);
            }
            Action::Close { code, message } => return ControlFlow::Break(Some((code, message))),
            Action::Count { operation, error } => self.context.metrics.answered(operation, error),
            Action::CountPushed(items) => {
                self.context.metrics.pushed_items.inc_by(items as u64);
            }
            Action::Submit { job, command } => {
                let Some(ticket) = self.context.budget.take(&command, self.now) else {
                    if planted::is(Bug::RefusedYetDone) {
                        drop(self.context.cluster.submit(command, self.deadline()));
                    }
                    let result = Err(SubmitError::Overloaded);
                    return ControlFlow::Continue(Some(Event::Committed { job, result }));
                };
                // The call itself gives the command its place; the future only waits.
                let pending = self.context.cluster.submit(command, self.deadline());
                self.running.push(Running::Command(Some((job, ticket)), pending));
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
                let operation = query.operation();
                let user = self.user.as_ref().expect("reads follow an admission");
                if let Some(result) = self.context.reads.answer_now(user, &query, seen) {
                    let event = Event::Answered { id, operation, result };
                    return ControlFlow::Continue(Some(event));
                }
                let (user, deadline) = (user.clone(), self.deadline());
                let reads = self.context.reads.clone();
                self.start(async move {
                    let result = reads.answer(user, query, seen, deadline).await;
                    Done::Event(Event::Answered { id, operation, result })
                });
            }
            Action::ReadQueue { after, limit } => {
                let user = self.user.as_ref().expect("pushes follow an admission");
                if let Some(page) = self.context.reads.push_page_now(user, after, limit) {
                    return ControlFlow::Continue(Some(Event::Page(page)));
                }
                let (user, reads) = (user.clone(), self.context.reads.clone());
                self.start(async move {
                    Done::Event(Event::Page(reads.push_page(user, after, limit).await))
                });
            }
        }
        ControlFlow::Continue(None)
    }

    fn start(&mut self, work: impl Future<Output = Done> + Send + 'static) {
        self.running.push(Running::Other(Box::pin(work)));
    }

    fn deadline(&self) -> Instant {
        self.now + self.context.options.request_timeout
    }

    /// Writes what is left, unless that takes too long, and says goodbye.
    async fn finish(self: Box<Self>, farewell: Farewell, linger: Duration) {
        let Self { mut link, mut outbox, seat, running, .. } = *self;
        // The seat goes first: a client that comes back at once must not meet its own shadow.
        drop((seat, running));
        let rest: io::Result<()> =
            match timeout(linger, poll_fn(|cx| link.poll_write(&mut outbox, cx))).await {
                Ok(written) => written,
                Err(_) if farewell == Some(TOO_SLOW) => Ok(()),
                Err(_) => return,
            };
        if rest.is_ok() {
            link.close(farewell, linger).await;
        }
    }
}
