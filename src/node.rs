//! How a node is put together: folder, log, store, replica, edge.
//!
//! ```text
//! DATA/
//!   lock                 held while a node runs on the folder
//!   identity.toml        which node this folder is, for ever
//!   boot                 on sled, when the store was last counted anew
//!   keys/                the cluster's keys, unless they are elsewhere
//!   shards/0/log/        the Raft log
//!   shards/0/state/      checkpoint journal and snapshot files
//!   shards/0/engine/     the cold tier
//! ```

use std::fs::{File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use roost_cluster::{Cluster, ClusterOptions, PeerTls, checkpoints};
use roost_storage::Fault;
use roost_storage::engine::{self, EngineKind};
use roost_storage::fs::real::RealDisk;
use roost_storage::fs::{Disk, OpenMode};
use roost_storage::log::{Log, LogOptions};
use roost_storage::model::ShardId;
use roost_storage::store::{Store, StoreOptions};
use serde::{Deserialize, Serialize};

use crate::auth::Auth;
use crate::config::NodeConfig;
use crate::edge::{Certificate, Edge, EdgeOptions, Hub};
use crate::keys::NodeKeys;

/// The only shard of this version.
const SHARD: ShardId = ShardId(0);
/// How long sessions may take to close, and leadership to move, at a shutdown.
pub const GRACE: Duration = Duration::from_secs(3);
/// The version of the folder's layout.
const LAYOUT_VERSION: u32 = 1;
const IDENTITY_FILE: &str = "identity.toml";
/// The machine's run in which the store was last found whole, on an engine that may lose something.
const BOOT_FILE: &str = "boot";
/// Locked in the data folder while a node runs on it.
pub(crate) const LOCK_FILE: &str = "lock";

/// A running node.
pub struct Node {
    cluster: Cluster,
    edge: Edge,
    hub: Arc<Hub>,
    _lock: File,
}

/// Which node a data folder is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    version: u32,
    node_id: u64,
    /// Random, in hexadecimal. The cluster's membership remembers it.
    store_id: String,
}

impl Node {
    /// Starts a node on its data folder. It is up, but may not know a leader yet.
    ///
    /// # Errors
    /// What kept it from starting, in words for whoever runs it.
    pub async fn start(config: &NodeConfig, keys: NodeKeys) -> anyhow::Result<Self> {
        Self::start_with(config, keys, config.into()).await
    }

    /// The same, with an edge of other bounds and times than a node has by default.
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub async fn start_with(
        config: &NodeConfig,
        keys: NodeKeys,
        edge: EdgeOptions,
    ) -> anyhow::Result<Self> {
        let data = config.data.as_path();
        let disk = RealDisk::open(data.to_path_buf())
            .with_context(|| format!("the data folder {} can't be used", data.display()))?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let lock = lock(data)?;
        let store_id = identity(disk.as_ref(), data, config.node_id)?;
        let (log, store) = open_storage(config, &disk).await?;

        let auth = Auth::load(&keys.token, &config.token_public_keys, &config.token_secrets)?;
        let hub = Hub::new();
        let options = ClusterOptions {
            node_id: config.node_id,
            shard: SHARD,
            peer_listen: config.peer_listen,
            peer_addr: peer_address(config),
            client_addr: config.client_address(),
            peers: config.peers.clone(),
            store_id,
            incarnation: rand::random(),
            log_keep_entries: config.log_keep_entries,
            tls: PeerTls::new(keys.ca.clone(), keys.chain.clone(), keys.key.clone_key())?,
        };
        let cluster = Cluster::start(options, log, store, disk, hub.clone()).await?;
        let certificate = Certificate { chain: keys.chain, key: keys.key };
        let edge = Edge::start(cluster.clone(), hub.clone(), auth, certificate, edge).await?;
        Ok(Self { cluster, edge, hub, _lock: lock })
    }

    /// Where clients connect.
    pub fn client_addr(&self) -> SocketAddr {
        self.edge.local_addr()
    }

    /// This node's part of the cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Waits until the node stops at a fault, and says which.
    pub async fn failed(&self) -> String {
        let mut stopped = self.hub.stopped();
        // The hub outlives this call, so there is an answer if the wait ends.
        let reason = stopped.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
        reason.unwrap_or_default()
    }

    /// Stops: tells sessions to go elsewhere, hands over leadership, writes a last checkpoint.
    pub async fn shutdown(self) {
        self.edge.shutdown(GRACE).await;
        self.cluster.shutdown(GRACE).await;
    }
}

/// Keeps a second node off the folder for as long as the file lives.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join(LOCK_FILE);
    let file = File::create(&path).with_context(|| format!("{} can't be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another node runs on {}; stop it first, or use another --data", data.display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("{} can't be locked", path.display()))
        }
    }
}

/// The folder's random id, made at the first start.
fn identity(disk: &dyn Disk, data: &Path, node_id: u64) -> anyhow::Result<u64> {
    let path = data.join(IDENTITY_FILE);
    if !disk.exists(Path::new(IDENTITY_FILE))? {
        if disk.exists(&shard_folder().join("engine/ENGINE"))? {
            bail!(
                "{} is missing, but the folder has data: it was not copied whole",
                path.display()
            );
        }
        return make_identity(disk, node_id)
            .with_context(|| format!("{} can't be written", path.display()));
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("{} can't be read", path.display()))?;
    let identity: Identity =
        toml::from_str(&text).with_context(|| format!("{} does not parse", path.display()))?;
    if identity.version != LAYOUT_VERSION {
        bail!(
            "the data folder has layout version {}, this build reads {LAYOUT_VERSION}",
            identity.version
        );
    }
    if identity.node_id != node_id {
        bail!(
            "the data folder belongs to node {}, not to node {node_id}; a node keeps its number for ever",
            identity.node_id
        );
    }
    u64::from_str_radix(&identity.store_id, 16)
        .with_context(|| format!("{}: store_id", path.display()))
}

fn make_identity(disk: &dyn Disk, node_id: u64) -> anyhow::Result<u64> {
    let store_id: u64 = rand::random();
    let identity =
        Identity { version: LAYOUT_VERSION, node_id, store_id: format!("{store_id:016x}") };
    replace(disk, IDENTITY_FILE, &toml::to_string(&identity)?)?;
    Ok(store_id)
}

/// Makes or replaces a file of the data folder, as a whole and durably.
fn replace(disk: &dyn Disk, name: &str, text: &str) -> io::Result<()> {
    let draft = PathBuf::from(format!("{name}.tmp"));
    let file = disk.open(&draft, OpenMode::Truncate)?;
    file.write_at(0, text.as_bytes())?;
    file.sync()?;
    disk.rename(&draft, Path::new(name))?;
    disk.sync_dir(Path::new(""))
}

/// Which run of the machine this is, where the operating system says so.
fn boot_id() -> Option<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// Whether the machine is still in the run in which the store was last opened and found whole: what a
/// process wrote then cannot have been lost since.
fn is_same_boot(data: &Path) -> bool {
    let Some(current) = boot_id() else { return false };
    std::fs::read_to_string(data.join(BOOT_FILE)).is_ok_and(|known| known.trim() == current)
}

/// Opens the store. On an engine that may lose what it reported durable, counts everything anew when the
/// machine was started since.
fn open_store(config: &NodeConfig, disk: &Arc<dyn Disk>, kind: EngineKind) -> Result<Store, Fault> {
    let shard = shard_folder();
    let engine = engine::open(kind, &config.data.join(&shard).join("engine"))?;
    let after_boot = kind.may_lose_flushed() && !is_same_boot(&config.data);
    let options = StoreOptions {
        shard: SHARD,
        dirty_bytes: config.dirty_bytes,
        checkpoint_early: checkpoints::early(config.node_id),
        verify: config.verify_store.unwrap_or(after_boot),
        ..StoreOptions::default()
    };
    let verified = options.verify;
    let store = Store::open(disk.clone(), &shard.join("state"), engine, options)?;
    if after_boot
        && verified
        && let Some(boot) = boot_id()
    {
        replace(disk.as_ref(), BOOT_FILE, &boot)
            .map_err(|error| Fault::io(format!("write {BOOT_FILE}"), error))?;
    }
    Ok(store)
}

fn shard_folder() -> PathBuf {
    PathBuf::from(format!("shards/{}", SHARD.0))
}

/// Opens log, engine and store, replaying what a crash left. Off the async threads: it reads all
/// of the log.
async fn open_storage(
    config: &NodeConfig,
    disk: &Arc<dyn Disk>,
) -> anyhow::Result<(Arc<Log>, Arc<Store>)> {
    let (config, disk) = (config.clone(), disk.clone());
    let opened = tokio::task::spawn_blocking(move || {
        let shard = shard_folder();
        let folder = config.data.join(&shard).join("engine");
        let kind = config.engine.map_or_else(|| engine::owner(&folder), |kind| Ok(Some(kind)))?;
        let store = open_store(&config, &disk, kind.unwrap_or_default())?;
        let log = Log::open(disk, &shard.join("log"), LogOptions::default())?;
        Ok::<_, Fault>((Arc::new(log), Arc::new(store)))
    });
    Ok(opened.await.context("opening the store was interrupted")??)
}

/// The peer address that others are told: as they were configured, else where it listens.
fn peer_address(config: &NodeConfig) -> String {
    config.peers.get(&config.node_id).cloned().unwrap_or_else(|| config.peer_listen.to_string())
}
