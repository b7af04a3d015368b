//! The clients: writers that send and read, listeners that are pushed to and acknowledge, probes
//! that find out when a node can write again.

mod listener;
mod probe;
mod session;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roost_checker::{Answer, Op};
use roost_client::protocol::request::CreateConversation;
use roost_client::protocol::{ConversationKind, Token};
use roost_client::{Calls as _, Transport};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::options::Options;
use crate::recorder::Recorder;

pub(crate) use probe::Probes;

/// Groups that the users share.
const GROUPS: usize = 3;
/// Members of each.
const MEMBERS: usize = 5;
/// Who gets the probes' messages.
const SINK: &str = "sink";

/// What all clients share.
pub(crate) struct Shared {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) recorder: Arc<Recorder>,
    /// True when clients shall come to an end.
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) think: Duration,
    pub(crate) groups: Vec<Group>,
    pub(crate) users: Vec<User>,
}

/// A conversation and who is in it.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) members: Vec<String>,
}

/// A user with a token.
#[derive(Debug, Clone)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) token: Token,
}

/// The clients at work.
pub(crate) struct Clients {
    pub(crate) shared: Arc<Shared>,
    pub(crate) probes: Arc<Probes>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Shared {
    /// Whether the clients shall go on.
    pub(crate) fn goes_on(&self) -> bool {
        !*self.stop.borrow()
    }
}

/// Any transport.
pub(crate) fn any_transport(rng: &mut StdRng) -> Transport {
    match rng.random_range(0..4) {
        0 => Transport::WebSocketJson,
        1 => Transport::WebSocketMessagePack,
        _ => Transport::Quic,
    }
}

impl Clients {
    /// Makes users and groups, and lets the clients begin.
    pub(crate) async fn start(
        options: &Options,
        seed: u64,
        cluster: Arc<Cluster>,
        recorder: Arc<Recorder>,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut users = Vec::new();
        for n in 0..options.users {
            users.push(user(&cluster, &format!("u{n}")).await?);
        }
        let mut shared = Shared {
            cluster,
            recorder,
            stop: stopped,
            think: Duration::from_millis(options.think_ms),
            groups: Vec::new(),
            users,
        };
        shared.groups = make_groups(&shared).await?;
        let shared = Arc::new(shared);
        let mut clients =
            Self { shared: shared.clone(), probes: Arc::default(), stop, tasks: Vec::new() };
        for (n, user) in shared.users.iter().enumerate() {
            let process = 2 * n as u64 + 1;
            let rng = |of: u64| StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(of));
            let writer = writer::run(shared.clone(), user.clone(), process, rng(process));
            clients.tasks.push(tokio::spawn(writer));
            let process = process + 1;
            let listener = listener::run(shared.clone(), user.clone(), process, rng(process));
            clients.tasks.push(tokio::spawn(listener));
        }
        for node in shared.cluster.numbers() {
            let user = user(&shared.cluster, &format!("probe{node}")).await?;
            let probe = probe::run(shared.clone(), clients.probes.clone(), user, node);
            clients.tasks.push(tokio::spawn(probe));
        }
        Ok(clients)
    }

    /// Ends the clients; their calls in flight are waited for.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await?;
        }
        Ok(())
    }

    /// Everybody who has a queue.
    pub(crate) fn everybody(&self) -> Vec<String> {
        let users = self.shared.users.iter().map(|user| user.name.clone());
        let probes = self.shared.cluster.numbers().into_iter().map(|node| format!("probe{node}"));
        users.chain(probes).chain([SINK.to_owned()]).collect()
    }
}

async fn user(cluster: &Cluster, name: &str) -> anyhow::Result<User> {
    Ok(User { name: name.to_owned(), token: cluster.token(name).await?.into() })
}

/// Groups that overlap; the first member of each makes it, before any fault.
async fn make_groups(shared: &Shared) -> anyhow::Result<Vec<Group>> {
    let mut groups = Vec::new();
    for n in 0..GROUPS {
        let member = |m: usize| &shared.users[(2 * n + m) % shared.users.len()];
        let count = MEMBERS.min(shared.users.len());
        let members: Vec<String> = (0..count).map(|m| member(m).name.clone()).collect();
        let owner = member(0);
        let options = shared.cluster.options(1, Transport::Quic, &owner.token, "setup")?;
        let (connection, _pushes) = roost_client::Connection::open(&options).await?;
        let op = Op::Create {
            user: owner.name.clone(),
            client_id: format!("group{n}"),
            members: members.clone(),
        };
        let ticket = shared.recorder.invoke(0, 1, op);
        let request = CreateConversation {
            kind: ConversationKind::Group,
            members: members[1..].iter().map(Into::into).collect(),
            name: None,
            retention: None,
            client_id: format!("group{n}").into(),
        };
        let created = connection.create_conversation(request).await?;
        let id = created.conversation.to_string();
        shared.recorder.ok(ticket, Answer::Created { conversation: id.clone() });
        groups.push(Group { id, members });
    }
    Ok(groups)
}
