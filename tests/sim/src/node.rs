//! One node: a runtime of its own, a disk that outlives it, and a clock that may be wrong.
//!
//! A node's runtime has its own virtual time and is given turns. To pause the node is to give it
//! none; to kill it is to drop the runtime, with every task where it stands.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use roost::auth::Auth;
use roost::edge::{EdgeOptions, Hub, LocalEdge};
use roost::keys::TokenKeys;
use roost::node::GRACE;
use roost_cluster::{Cluster, NodeOptions, ReplicaOptions, host};
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::Disk;
use roost_storage::fs::sim::{CrashPolicy, SimDisk, Trouble};
use roost_storage::log::{Log, LogDriver, LogOptions};
use roost_storage::model::ShardId;
use roost_storage::store::{INCOMING_PREFIX, Store, StoreOptions};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::{advance, sleep};

use crate::link::SimLink;
use crate::net::{Net, Place};
use crate::plan::{Plan, Since};
use crate::random::Random;
use crate::sessions;

/// The wall clocks' beginning.
pub(crate) const EPOCH_MS: u64 = 1_760_000_000_000;
/// The log's folder on a node's disk.
pub(crate) const LOG_FOLDER: &str = "log";
/// The cold tier's.
pub(crate) const STATE_FOLDER: &str = "state";

/// A node that runs.
pub(crate) struct Running {
    runtime: Runtime,
    /// Its part of the cluster.
    pub(crate) cluster: Cluster,
    /// Its store.
    pub(crate) store: Arc<Store>,
    /// Its log.
    pub(crate) log: Arc<Log>,
    edge: LocalEdge,
    stopping: Option<Stopping>,
}

/// A node that was told to stop.
struct Stopping {
    /// Whether it has.
    done: Arc<AtomicBool>,
    /// Time in which it could, so without pauses, in milliseconds.
    took_ms: u64,
    /// Whether it led when it was told.
    led: bool,
}

/// How long a node may take to stop: once for its sessions and once for its leadership, in
/// milliseconds.
const STOP_MS: u64 = 2 * GRACE.as_millis() as u64 + 500;

/// How a node's clock is wrong.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Clock {
    /// By so many milliseconds.
    pub(crate) offset_ms: i64,
    /// And by so many parts of a million, since the beginning.
    pub(crate) ppm: i64,
}

impl Clock {
    /// What it shows.
    fn unix_ms(self, now_ms: u64) -> u64 {
        let drift = i64::try_from(now_ms).expect("a short run") * self.ppm / 1_000_000;
        (EPOCH_MS + now_ms).saturating_add_signed(self.offset_ms + drift)
    }
}

/// A node, whether it runs or not.
pub(crate) struct Node {
    /// Its number.
    pub(crate) id: Place,
    /// While it runs.
    pub(crate) running: Option<Running>,
    /// What it keeps.
    pub(crate) disk: SimDisk,
    engine: Arc<MemoryEngine>,
    /// Its clock.
    pub(crate) clock: Clock,
    /// Until when it stands still.
    pub(crate) paused_until: Option<u64>,
    /// Turns that it missed, in milliseconds.
    missed_ms: u64,
    /// When it is started again.
    pub(crate) start_at: Option<u64>,
    /// Whether its disk was damaged so that it need not start.
    pub(crate) damaged: bool,
    /// Whether it was given a reason to stop.
    pub(crate) excused: bool,
    /// Whether it stays down, having found the damage.
    pub(crate) lost: bool,
    /// When it was seen to have failed.
    pub(crate) failed_ms: Option<u64>,
    incarnation: u64,
    sync_ms: Arc<AtomicU64>,
    random: Random,
}

impl Node {
    /// A node on an empty disk.
    pub(crate) fn new(id: Place, plan: &Plan, random: &Random) -> Self {
        Self {
            id,
            running: None,
            disk: SimDisk::new(),
            engine: Arc::new(if plan.whole_checkpoints {
                MemoryEngine::whole()
            } else {
                MemoryEngine::new()
            }),
            clock: Clock::default(),
            paused_until: None,
            missed_ms: 0,
            start_at: Some(0),
            damaged: false,
            excused: false,
            lost: false,
            failed_ms: None,
            incarnation: 0,
            sync_ms: Arc::new(AtomicU64::new(plan.sync_ms)),
            random: random.fork(&format!("node {id}")),
        }
    }

    /// How long its syncs take at most from now on.
    pub(crate) fn set_sync_ms(&self, sync_ms: u64) {
        self.sync_ms.store(sync_ms, Ordering::Relaxed);
    }

    /// Starts it.
    ///
    /// # Errors
    /// Why it does not come up: what its operator would read.
    pub(crate) fn start(
        &mut self,
        plan: &Plan,
        net: &Net,
        keys: &TokenKeys,
        now_ms: u64,
    ) -> Result<(), String> {
        self.start_at = None;
        self.incarnation += 1;
        host::simulate(self.clock.unix_ms(now_ms));
        host::simulate_install_time(Duration::from_millis(plan.install_ms));
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .map_err(|error| error.to_string())?;
        let (cluster, store, log, edge) = runtime.block_on(self.bring_up(plan, net, keys))?;
        self.running = Some(Running { runtime, cluster, store, log, edge, stopping: None });
        Ok(())
    }

    async fn bring_up(
        &mut self,
        plan: &Plan,
        net: &Net,
        keys: &TokenKeys,
    ) -> Result<(Cluster, Arc<Store>, Arc<Log>, LocalEdge), String> {
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let fault = |fault: roost_storage::Fault| fault.to_string();
        let options = StoreOptions {
            dirty_bytes: plan.dirty_bytes,
            inline_checkpoints: true,
            ..StoreOptions::default()
        };
        let store =
            Store::open(disk.clone(), Path::new(STATE_FOLDER), self.engine.clone(), options)
                .map_err(fault)?;
        let wake = Arc::new(Notify::new());
        let woken = wake.clone();
        let options = LogOptions {
            segment_bytes: plan.segment_bytes,
            cache_bytes: 16 * 1024,
            zeros_ahead: false,
            recycled_segments: 2,
        };
        let (log, driver) =
            Log::open_driven(disk.clone(), Path::new(LOG_FOLDER), options, move || {
                wake.notify_one();
            })
            .map_err(fault)?;
        let (store, log) = (Arc::new(store), Arc::new(log));
        tokio::spawn(sync_log(
            driver,
            woken,
            self.sync_ms.clone(),
            self.random.fork(&format!("sync {}", self.incarnation)),
        ));
        let hub = Hub::new();
        let link = SimLink::new(net.clone(), self.id, net.listen(self.id));
        let cluster = Cluster::start_on(
            Arc::new(link),
            self.options(plan),
            log.clone(),
            store.clone(),
            disk,
            hub.clone(),
        )
        .await
        .map_err(|error| error.to_string())?;
        let auth = Auth::load(keys, &[] as &[&Path], &[] as &[&Path])
            .map_err(|error| error.to_string())?;
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let options = EdgeOptions {
            request_timeout: Duration::from_secs(4),
            write_timeout: Duration::from_millis(plan.write_timeout_ms),
            max_commands: plan.max_commands,
            ..EdgeOptions::on(listen)
        };
        let edge = LocalEdge::new(cluster.clone(), hub, auth, options);
        tokio::spawn(sessions::listen(net.clone(), self.id, edge.clone()));
        Ok((cluster, store, log, edge))
    }

    fn options(&self, plan: &Plan) -> NodeOptions {
        let peers: BTreeMap<u64, String> =
            (1..=plan.nodes).map(|id| (id, format!("node-{id}"))).collect();
        NodeOptions {
            node_id: self.id,
            shard: ShardId(0),
            peer_addr: format!("node-{}", self.id),
            client_addr: format!("node-{}", self.id),
            peers,
            store_id: 1_000 + self.id,
            incarnation: self.incarnation,
            replica: ReplicaOptions {
                log_keep_entries: plan.log_keep_entries,
                checkpoint_entries: plan.checkpoint_entries,
                ..ReplicaOptions::new(self.id)
            },
        }
    }

    /// Gives it its turn.
    pub(crate) fn turn(&mut self, now_ms: u64, tick_ms: u64) {
        let Some(running) = &mut self.running else { return };
        if self.paused_until.is_some_and(|until| now_ms < until) {
            self.missed_ms += tick_ms;
            return;
        }
        self.paused_until = None;
        host::simulate(self.clock.unix_ms(now_ms));
        if let Some(stopping) = &mut running.stopping {
            stopping.took_ms += tick_ms;
        }
        let missed = Duration::from_millis(std::mem::take(&mut self.missed_ms));
        running.runtime.block_on(async {
            if !missed.is_zero() {
                advance(missed).await;
            }
            sleep(Duration::from_millis(tick_ms)).await;
        });
    }

    /// Tells it to stop.
    pub(crate) fn tell_to_stop(&mut self) {
        let Some(running) = self.running.as_mut().filter(|running| running.stopping.is_none())
        else {
            return;
        };
        let done = Arc::new(AtomicBool::new(false));
        let (edge, cluster, stopped) =
            (running.edge.clone(), running.cluster.clone(), done.clone());
        running.runtime.spawn(async move {
            edge.shutdown(GRACE).await;
            cluster.shutdown(GRACE).await;
            stopped.store(true, Ordering::Relaxed);
        });
        let led = running.cluster.status().role == "leader";
        running.stopping = Some(Stopping { done, took_ms: 0, led });
    }

    /// Whether it was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.stopping.is_some())
    }

    /// Whether it takes longer to stop than it may.
    pub(crate) fn is_slow_to_stop(&self) -> bool {
        let stopping = self.running.as_ref().and_then(|running| running.stopping.as_ref());
        stopping.is_some_and(|stopping| stopping.took_ms > STOP_MS)
    }

    /// How it stopped, if it was told to and has.
    pub(crate) fn has_stopped(&self) -> Option<&'static str> {
        let running = self.running.as_ref()?;
        let stopping = running.stopping.as_ref().filter(|it| it.done.load(Ordering::Relaxed))?;
        let leader = running.cluster.status().leader;
        Some(match (stopping.led, leader.is_some_and(|leader| leader != self.id)) {
            (true, true) => "handed over and stopped",
            (true, false) => "stopped, with nobody to hand over to",
            (false, _) => "stopped",
        })
    }

    /// Whether it runs on a disk whose power went.
    pub(crate) fn is_dead(&self) -> bool {
        self.running.is_some() && self.disk.has_stopped()
    }

    /// Lets its disk have trouble after so many more operations, now or once a snapshot arrives.
    pub(crate) fn trouble(&mut self, trouble: Trouble, since: Since, after: u64) {
        self.excused = true;
        match since {
            Since::Start => self.disk.trouble_at(self.disk.operations() + after, trouble),
            Since::Snapshot => self.disk.trouble_with(INCOMING_PREFIX, after, trouble),
        }
    }

    /// Lets its engine fail after so many more operations.
    pub(crate) fn engine_trouble(&mut self, after: u64) {
        self.excused = true;
        self.engine.fail_after(after);
    }

    /// Takes back what its disk was set to do; a full one has room again.
    pub(crate) fn mend_disk(&mut self) {
        self.disk.mend();
        self.engine.mend();
    }

    /// For how long it has run on a disk or an engine that failed, in milliseconds.
    pub(crate) fn failed_for_ms(&mut self, now_ms: u64) -> u64 {
        let failed = self.running.is_some()
            && self.paused_until.is_none()
            && (self.engine.has_failed() || self.disk.has_failed());
        if !failed {
            self.failed_ms = None;
            return 0;
        }
        now_ms - *self.failed_ms.get_or_insert(now_ms)
    }

    /// Kills it; `power` decides whether its disk loses what was not synced.
    pub(crate) fn kill(&mut self, net: &Net, power: bool) {
        self.missed_ms = 0;
        self.paused_until = None;
        self.failed_ms = None;
        net.forget(self.id);
        if let Some(Running { runtime, cluster, store, log, edge, .. }) = self.running.take() {
            drop((cluster, store, log, edge));
            runtime.shutdown_background();
        }
        let seed = self.random.next();
        let policy = match (power, seed % 3) {
            (false, _) => CrashPolicy::KeepAll,
            (true, 0) => CrashPolicy::LoseUnsynced,
            (true, _) => CrashPolicy::Torn { seed },
        };
        self.disk = self.disk.crash(policy);
        self.engine = Arc::new(self.engine.crash(seed));
    }
}

/// Writes the log: what gathered while the last sync ran shares the next one.
async fn sync_log(
    mut driver: LogDriver,
    wake: Arc<Notify>,
    sync_ms: Arc<AtomicU64>,
    mut random: Random,
) {
    loop {
        wake.notified().await;
        let most = sync_ms.load(Ordering::Relaxed);
        if most > 0 {
            sleep(Duration::from_millis(random.within(0, most))).await;
        }
        driver.write_waiting();
    }
}
