//! What this node counts, for `/metrics` in the Prometheus text format.
//!
//! Counters are counted where things happen; positions and sizes are asked of the cluster and the
//! store when somebody looks.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use roost_cluster::Cluster;
use roost_protocol::{ErrorCode, OperationKind};

use super::process::ProcessCosts;

type Gauge64 = Gauge<u64, AtomicU64>;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    operation: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransportLabels {
    transport: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    method: String,
    route: String,
    status: u16,
}

/// The edge's counters and gauges.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// The operating system's figures, whose names have no prefix.
    process: Registry,
    requests: Family<RequestLabels, Counter>,
    /// The counters of answers without an error, by the operation's number: nearly all answers.
    done: Vec<Counter>,
    sessions: Family<TransportLabels, Gauge>,
    opened: Family<TransportLabels, Counter>,
    http: Family<HttpLabels, Counter>,
    /// Items that were pushed.
    pub(crate) pushed_items: Counter,
    /// Connections that were closed because the client did not read.
    pub(crate) slow_clients: Counter,
    /// Connections that were refused because there were too many.
    pub(crate) refused: Counter,
    devices: Gauge64,
    stored: Family<KindLabels, Gauge64>,
    position: Family<KindLabels, Gauge64>,
    bytes: Family<KindLabels, Gauge64>,
    term: Gauge64,
    is_leader: Gauge64,
}

impl Metrics {
    /// All at zero, for a node with this data folder.
    pub(crate) fn new(data: Option<PathBuf>) -> Self {
        let mut process = Registry::default();
        process.register_collector(Box::new(ProcessCosts::new(data)));
        let requests = Family::default();
        let mut metrics = Self {
            registry: Registry::with_prefix("roost"),
            process,
            done: OperationKind::ALL.iter().map(|kind| done(&requests, *kind)).collect(),
            requests,
            sessions: Family::default(),
            opened: Family::default(),
            http: Family::default(),
            pushed_items: Counter::default(),
            slow_clients: Counter::default(),
            refused: Counter::default(),
            devices: Gauge64::default(),
            stored: Family::default(),
            position: Family::default(),
            bytes: Family::default(),
            term: Gauge64::default(),
            is_leader: Gauge64::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "requests",
            "Answered requests of clients, by operation and error code",
            self.requests.clone(),
        );
        r.register("sessions", "Open connections of clients", self.sessions.clone());
        r.register("connections", "Connections of clients so far", self.opened.clone());
        r.register("http_requests", "Answered HTTP requests", self.http.clone());
        r.register("pushed_items", "Queue items pushed", self.pushed_items.clone());
        r.register("slow_clients", "Connections closed as too slow", self.slow_clients.clone());
        r.register("refused_connections", "Connections refused as too many", self.refused.clone());
        r.register("devices", "Devices connected to this node", self.devices.clone());
        r.register("stored", "What the store holds", self.stored.clone());
        r.register("log_position", "Indexes in the replicated log", self.position.clone());
        r.register("store_bytes", "Bytes of the store's tiers", self.bytes.clone());
        r.register("term", "The current term", self.term.clone());
        r.register("is_leader", "1 on the leader", self.is_leader.clone());
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, operation: Option<OperationKind>, error: Option<ErrorCode>) {
        if let (Some(operation), None) = (operation, error) {
            self.done[operation as usize].inc();
            return;
        }
        let operation = operation.map_or("unknown", OperationKind::as_str);
        let code = error.map_or("ok", ErrorCode::as_str);
        self.requests.get_or_create(&RequestLabels { operation, code }).inc();
    }

    /// Counts an HTTP answer. `route` is the route's pattern, not what was asked for: labels are
    /// bounded.
    pub(crate) fn http_answered(&self, method: &str, route: &str, status: u16) {
        let (method, route) = (method.to_owned(), route.to_owned());
        self.http.get_or_create(&HttpLabels { method, route, status }).inc();
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection(&self, transport: &'static str) -> OpenConnection {
        let labels = TransportLabels { transport };
        self.opened.get_or_create(&labels).inc();
        let sessions = self.sessions.get_or_create(&labels).clone();
        sessions.inc();
        OpenConnection(sessions)
    }

    /// The exposition.
    pub(crate) fn exposition(&self, cluster: &Cluster, devices: usize) -> String {
        self.refresh(cluster, devices);
        let mut out = String::new();
        text::encode_registry(&mut out, &self.registry)
            .and_then(|()| text::encode(&mut out, &self.process))
            .expect("a string takes every write");
        out
    }

    fn refresh(&self, cluster: &Cluster, devices: usize) {
        let set = |family: &Family<KindLabels, Gauge64>, kind, value| {
            family.get_or_create(&KindLabels { kind }).set(value);
        };
        let counts = cluster.store().counts();
        set(&self.stored, "users", counts.users);
        set(&self.stored, "conversations", counts.conversations);
        set(&self.stored, "messages", counts.messages);
        set(&self.stored, "references", counts.references);
        set(&self.stored, "devices", counts.devices);
        set(&self.stored, "dedup", counts.dedup);
        let tiers = cluster.store().tier_stats();
        set(&self.bytes, "dirty", tiers.dirty_bytes as u64);
        set(&self.bytes, "warm", tiers.warm_bytes as u64);
        set(&self.bytes, "cold", tiers.cold_bytes);
        let status = cluster.status();
        for (kind, position) in [
            ("last_log", status.last_log),
            ("committed", status.committed),
            ("applied", status.applied),
            ("checkpoint", status.checkpoint),
            ("purged", status.purged),
        ] {
            set(&self.position, kind, position.unwrap_or(0));
        }
        self.term.set(status.term);
        self.is_leader.set(u64::from(status.leader == Some(status.node)));
        self.devices.set(devices as u64);
    }
}

fn done(requests: &Family<RequestLabels, Counter>, kind: OperationKind) -> Counter {
    let labels = RequestLabels { operation: kind.as_str(), code: "ok" };
    requests.get_or_create(&labels).clone()
}

/// An open connection, as long as it is held.
#[derive(Debug)]
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
