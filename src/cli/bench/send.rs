//! The phase `send`: messages into random conversations, each acknowledged before the sender's next.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use roost_client::protocol::request::SendMessage;
use roost_client::protocol::{Operation, Target};
use tokio::task::JoinSet;

use super::session::Session;
use super::tally::{Counters, Tally};
use super::window::Window;
use super::workload::{Draw, Workload};

/// What all senders share.
pub(crate) struct Senders {
    pub(crate) plan: Arc<Workload>,
    pub(crate) sessions: Vec<Arc<Session>>,
    pub(crate) counters: Arc<Counters>,
}

impl Senders {
    /// Runs so many senders, one send in flight each, until the window ends.
    ///
    /// # Errors
    /// A sender has panicked.
    pub(crate) async fn closed_loop(
        self: &Arc<Self>,
        senders: usize,
        window: Window,
    ) -> anyhow::Result<Tally> {
        let mut tasks = JoinSet::new();
        for sender in 0..senders {
            tasks.spawn(self.clone().keep_sending(sender, window));
        }
        let mut sum = Tally::default();
        while let Some(ended) = tasks.join_next().await {
            sum.add(ended.context("a sender has stopped")?);
        }
        Ok(sum)
    }

    async fn keep_sending(self: Arc<Self>, sender: usize, window: Window) -> Tally {
        let place = sender % self.sessions.len();
        let session = &self.sessions[place];
        let mut rng = SmallRng::from_os_rng();
        let mut tally = Tally::default();
        for count in 0.. {
            let started = Instant::now();
            if started >= window.end {
                break;
            }
            let Draw { conversation, references } = self.plan.draw(place, &mut rng);
            let operation = Operation::Send(SendMessage {
                target: Target::Conversation(conversation.clone()),
                client_id: self.plan.client_id(sender, count),
                body: self.plan.body(&mut rng),
                content_type: None,
                ttl_ms: None,
            });
            match session.ask(&operation).await {
                Ok(_) => {
                    let ended = Instant::now();
                    tally.all += 1;
                    self.counters.done();
                    if window.measures(ended) {
                        tally.references += references;
                        tally.latencies.record(ended - started);
                    }
                }
                Err(error) => {
                    tally.failed(&error);
                    self.counters.failed();
                    session.recover(&error).await;
                }
            }
        }
        tally
    }
}
