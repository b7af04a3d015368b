//! How much of its clients' commands a node takes in at a time.
//!
//! What waits too long is answered too late to be of use, and what waits takes memory. So the
//! commands that were taken in and have no outcome yet are counted, and one beyond the bound is
//! refused at once, before anything is proposed. The bound follows what the cluster carries: while
//! outcomes take longer than [`TARGET`], it shrinks, and while they come sooner, it grows again, as
//! with congestion on a network. It says nothing of who is refused: that is left to chance.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use roost_storage::command::Command;
use tokio::time::Instant;

use super::EdgeOptions;

/// How long an outcome may take before fewer commands are taken in.
const TARGET: Duration = Duration::from_millis(500);
/// Commands that are always taken in, unless the node is set up for fewer.
const MIN_COMMANDS: usize = 256;
/// What a command takes besides its content.
const COMMAND_BYTES: usize = 512;

/// The commands of one node that are under way.
#[derive(Debug)]
pub(crate) struct Budget {
    max_commands: usize,
    max_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    commands: usize,
    bytes: usize,
    limit: usize,
    /// When the limit was lowered last.
    lowered: Option<Instant>,
}

/// A command's place; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    budget: Arc<Budget>,
    taken: Instant,
    bytes: usize,
}

impl Budget {
    /// Nothing under way.
    pub(crate) fn new(options: &EdgeOptions) -> Arc<Self> {
        let (max_commands, max_bytes) = (options.max_commands, options.max_command_bytes);
        let state = State { commands: 0, bytes: 0, limit: max_commands, lowered: None };
        Arc::new(Self { max_commands, max_bytes, state: Mutex::new(state) })
    }

    /// A place for a command, if there is one.
    pub(crate) fn take(self: &Arc<Self>, command: &Command, now: Instant) -> Option<Ticket> {
        let bytes = COMMAND_BYTES + content_bytes(command);
        let mut state = self.state.lock();
        if state.commands >= state.limit || state.bytes + bytes > self.max_bytes {
            return None;
        }
        state.commands += 1;
        state.bytes += bytes;
        Some(Ticket { budget: Arc::clone(self), taken: now, bytes })
    }

    fn learn(&self, taken: Instant, now: Instant) {
        let age = now.saturating_duration_since(taken);
        let mut state = self.state.lock();
        if age <= TARGET {
            state.limit = self.max_commands.min(state.limit + 1);
            return;
        }
        // What is late was let in under the limit of then: one lowering must show first.
        if state.lowered.is_none_or(|at| taken >= at) {
            let under_way = state.commands.min(state.limit);
            // So many would have been on time, if the rest of the cluster's work stays as it is.
            let share = (TARGET.as_secs_f64() / age.as_secs_f64()).clamp(0.25, 0.75);
            let timely = (under_way as f64 * share) as usize;
            state.limit = MIN_COMMANDS.max(timely).min(self.max_commands);
            state.lowered = Some(now);
        }
    }
}

impl Ticket {
    /// The command has its outcome.
    pub(crate) fn done(self, now: Instant) {
        self.budget.learn(self.taken, now);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.budget.state.lock();
        state.commands -= 1;
        state.bytes -= self.bytes;
    }
}

fn content_bytes(command: &Command) -> usize {
    match command {
        Command::Send { body, .. } => body.len(),
        Command::CreateConversation { members, .. }
        | Command::AddMembers { members, .. }
        | Command::RemoveMembers { members, .. } => size_of_val(members.as_slice()),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use roost_storage::command::{Attempt, Target};
    use roost_storage::model::UserId;

    use super::*;

    const MAX_COMMANDS: usize = 4_096;
    const MAX_BYTES: usize = 16 * 1024 * 1024;

    fn new() -> Arc<Budget> {
        let listen = ([127, 0, 0, 1], 0).into();
        Budget::new(&EdgeOptions {
            max_commands: MAX_COMMANDS,
            max_command_bytes: MAX_BYTES,
            ..EdgeOptions::on(listen)
        })
    }

    fn send(body: usize) -> Command {
        Command::Send {
            sender: UserId::new("alice").unwrap(),
            target: Target::User(UserId::new("bob").unwrap()),
            client_id: "1".parse().unwrap(),
            attempt: Attempt(1),
            body: vec![0; body].into(),
            content_type: None,
            ttl_ms: None,
        }
    }

    /// As many places as there are.
    fn fill(budget: &Arc<Budget>, body: usize, now: Instant) -> Vec<Ticket> {
        std::iter::from_fn(|| budget.take(&send(body), now)).collect()
    }

    #[test]
    fn commands_and_their_bytes_are_bounded_and_given_back() {
        let (budget, now) = (new(), Instant::now());
        for (body, places) in [(10, MAX_COMMANDS), (65_536, MAX_BYTES / (65_536 + COMMAND_BYTES))] {
            assert_eq!(fill(&budget, body, now).len(), places);
        }
        assert_eq!(fill(&budget, 0, now).len(), MAX_COMMANDS);
    }

    #[test]
    fn late_outcomes_lower_the_bound_once_a_round_down_to_a_floor() {
        let budget = new();
        let mut now = Instant::now();
        let mut places = vec![fill(&budget, 0, now).len()];
        for _ in 0..20 {
            let taken = fill(&budget, 0, now);
            now += TARGET * 2;
            taken.into_iter().for_each(|ticket| ticket.done(now));
            places.push(fill(&budget, 0, now).len());
        }
        // Twice as late as it may be: half as many.
        assert!(places.windows(2).all(|two| two[1] == MIN_COMMANDS.max(two[0] / 2)), "{places:?}");
        assert_eq!(places.last(), Some(&MIN_COMMANDS));
    }

    #[test]
    fn timely_outcomes_raise_it_again() {
        let budget = new();
        let mut now = Instant::now();
        for _ in 0..20 {
            let taken = fill(&budget, 0, now);
            now += TARGET * 2;
            taken.into_iter().for_each(|ticket| ticket.done(now));
        }
        while fill(&budget, 0, now).len() < MAX_COMMANDS {
            let taken = fill(&budget, 0, now);
            now += TARGET / 2;
            taken.into_iter().for_each(|ticket| ticket.done(now));
        }
    }

    #[test]
    fn what_is_dropped_without_an_outcome_teaches_nothing() {
        let budget = new();
        let now = Instant::now();
        drop(fill(&budget, 0, now));
        assert_eq!(fill(&budget, 0, now + TARGET * 9).len(), MAX_COMMANDS);
    }
}
