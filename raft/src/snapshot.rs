//! Moving a whole state to a follower whose log ends before ours begins.
//!
//! The leader writes its newest checkpoint into a file at the speed of its own disk, then sends the
//! file in parts; a slow link therefore never holds back checkpoints. The follower writes the parts
//! into one file, checks it whole when it installs it, and starts over if anything does not fit.
//!
//! While it installs a snapshot, a follower answers nothing that is Raft's: the leader may take it for
//! gone, drop the connection, and lose the answer. So that is asked for until it comes.
//!
//! A follower whose disk fails meanwhile stops, as at any other fault. One whose disk is full goes
//! on: it removes the part that it has and says so, and the leader waits a while before it begins
//! again. Nothing that the follower had promised depends on that file.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{NetworkError, StreamingError, Unreachable};
use openraft::raft::SnapshotResponse;
use parking_lot::Mutex;
use roost_storage::Fault;
use roost_storage::fs::{Disk, DiskFile, OpenMode};
use roost_storage::store::{AppliedState, SnapshotFile, Store};
use tokio::time::Instant;

use crate::host;
use crate::network::{Peer, TransportError};
use crate::types::{NodeId, StoredMembership, TypeConfig, Vote, log_id};
use crate::wire::{self, Reply, Request, SNAPSHOT_CHUNK_BYTES};

/// How long one part may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the follower may take to check and install the file.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(600);

/// How long a leader waits before it asks again for the outcome of an installation.
const ASK_AGAIN_PAUSE: Duration = Duration::from_millis(200);

/// How long a leader waits before it begins again with a follower that had no room.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(2);

/// What openraft holds of a snapshot.
#[derive(Debug, Clone)]
pub enum SnapshotData {
    /// A store's newest checkpoint, wherever that is by the time it is read.
    Checkpoint(SnapshotSource),
    /// A file that arrived, relative to the disk of the node that installs it.
    File(PathBuf),
}

/// The membership that a state was stored with; the empty one before the first.
pub(crate) fn membership_of(state: &AppliedState) -> io::Result<StoredMembership> {
    match &state.membership {
        None => Ok(StoredMembership::default()),
        Some((position, bytes)) => {
            Ok(StoredMembership::new(Some(log_id(*position)), wire::decode("membership", bytes)?))
        }
    }
}

/// A store whose newest checkpoint can be read.
#[derive(Debug, Clone)]
pub struct SnapshotSource {
    store: Arc<Store>,
    disk: Arc<dyn Disk>,
    /// Held from writing the file until it is open, so that no other transfer replaces it between.
    export: Arc<tokio::sync::Mutex<()>>,
    /// Transfers begun.
    count: Arc<AtomicU64>,
    transfers: Transfers,
}

/// By follower, where the log goes on after its snapshot, and when that was installed.
type Transfers = Arc<Mutex<BTreeMap<NodeId, (u64, Option<Instant>)>>>;

/// A transfer that is under way; one that is dropped was given up.
struct UnderWay {
    transfers: Transfers,
    target: NodeId,
}

impl UnderWay {
    /// The snapshot is installed; the follower will ask for what comes after it.
    fn installed(self) {
        if let Some((_, installed)) = self.transfers.lock().get_mut(&self.target) {
            *installed = Some(Instant::now());
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut transfers = self.transfers.lock();
        if transfers.get(&self.target).is_some_and(|(_, installed)| installed.is_none()) {
            transfers.remove(&self.target);
        }
    }
}

impl SnapshotSource {
    /// A store, and the disk that it keeps its files on.
    pub fn new(store: Arc<Store>, disk: Arc<dyn Disk>) -> Self {
        Self {
            store,
            disk,
            export: Arc::default(),
            count: Arc::default(),
            transfers: Arc::default(),
        }
    }

    /// Where the log goes on after each snapshot that is on its way, by follower, or was installed
    /// within this time.
    pub(crate) fn transfers(&self, within: Duration) -> BTreeMap<NodeId, u64> {
        let mut transfers = self.transfers.lock();
        transfers.retain(|_, (_, installed)| installed.is_none_or(|at| at.elapsed() < within));
        transfers.iter().map(|(node, (next, _))| (*node, *next)).collect()
    }

    /// Notes that a snapshot is on its way.
    fn under_way(&self, target: NodeId, state: &AppliedState) -> UnderWay {
        let next = state.applied.map_or(0, |position| position.index + 1);
        self.transfers.lock().insert(target, (next, None));
        UnderWay { transfers: self.transfers.clone(), target }
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Brings another store's newest checkpoint into a file of this one.
    pub(crate) async fn copy_from(&self, other: &Self) -> io::Result<PathBuf> {
        let (snapshot, from) = other.open_newest().await?;
        let receiver = SnapshotReceiver::new(self.store.clone(), self.disk.clone());
        let mut offset = 0;
        while offset < snapshot.len {
            let bytes = read_chunk(from.clone(), offset, snapshot.len).await?;
            receiver.chunk(0, offset, &bytes)?;
            offset += bytes.len() as u64;
        }
        Ok(receiver.finish(0, snapshot.len)?)
    }

    async fn open_newest(&self) -> io::Result<(SnapshotFile, Arc<dyn DiskFile>)> {
        let _exporting = self.export.lock().await;
        let (store, disk) = (self.store.clone(), self.disk.clone());
        let opened = host::blocking(move || {
            let snapshot = store.export_snapshot()?;
            let file = disk
                .open(&snapshot.path, OpenMode::Existing)
                .map_err(|error| Fault::io("open snapshot", error))?;
            Ok::<_, Fault>((snapshot, file))
        });
        opened.await
    }

    pub(crate) async fn send(
        &self,
        peer: &Peer,
        vote: Vote,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let local = |error: io::Error| StreamingError::Unreachable(Unreachable::new(&error));
        // Unique: a term has one leader, and a leader that restarts needs a new term to lead.
        let count = self.count.fetch_add(1, Ordering::Relaxed) & u64::from(u32::MAX);
        let transfer = vote.leader_id.term << 32 | count;
        // The whole state is not written for a follower that is away, or has no room.
        send_part(peer, transfer, 0, Bytes::new()).await?;
        let (snapshot, file) = self.open_newest().await.map_err(local)?;
        let under_way = self.under_way(peer.target(), &snapshot.state);
        let mut offset = 0;
        while offset < snapshot.len {
            let bytes = read_chunk(file.clone(), offset, snapshot.len).await.map_err(local)?;
            let len = bytes.len() as u64;
            send_part(peer, transfer, offset, bytes).await?;
            offset += len;
        }
        let request = Request::SnapshotInstall {
            transfer,
            len: snapshot.len,
            vote,
            last: snapshot.state.applied,
            membership: membership_of(&snapshot.state).map_err(local)?,
        };
        let deadline = Instant::now() + INSTALL_TIMEOUT;
        loop {
            match peer.call(&request, deadline).await {
                Ok(Reply::SnapshotInstall(response)) => {
                    under_way.installed();
                    return Ok(response);
                }
                Ok(other) => return Err(refused(other)),
                Err(error) if Instant::now() + ASK_AGAIN_PAUSE >= deadline => {
                    return Err(not_sent(&error));
                }
                Err(error) => {
                    tracing::debug!(target = peer.target(), %error, "is the snapshot installed?");
                    tokio::time::sleep(ASK_AGAIN_PAUSE).await;
                }
            }
        }
    }
}

/// Has a follower take one part; the first one begins the transfer.
async fn send_part(
    peer: &Peer,
    transfer: u64,
    offset: u64,
    bytes: Bytes,
) -> Result<(), StreamingError<TypeConfig>> {
    let request = Request::SnapshotChunk { transfer, offset, bytes };
    match peer
        .call(&request, Instant::now() + CHUNK_TIMEOUT)
        .await
        .map_err(|error| not_sent(&error))?
    {
        Reply::SnapshotChunk => Ok(()),
        Reply::NoRoom => {
            tokio::time::sleep(NO_ROOM_PAUSE).await;
            Err(refused(Reply::NoRoom))
        }
        other => Err(refused(other)),
    }
}

async fn read_chunk(file: Arc<dyn DiskFile>, offset: u64, len: u64) -> io::Result<Bytes> {
    let size = (len - offset).min(SNAPSHOT_CHUNK_BYTES as u64) as usize;
    let read = host::blocking(move || {
        let mut buffer = vec![0; size];
        file.read_at(offset, &mut buffer)?;
        Ok::<_, io::Error>(Bytes::from(buffer))
    });
    read.await
}

fn not_sent(error: &TransportError) -> StreamingError<TypeConfig> {
    match error {
        TransportError::Unreachable(_) => StreamingError::Unreachable(Unreachable::new(error)),
        TransportError::Timeout | TransportError::Lost(_) => {
            StreamingError::Network(NetworkError::new(error))
        }
    }
}

fn refused(reply: Reply) -> StreamingError<TypeConfig> {
    let reason = match reply {
        Reply::Failed(reason) => reason,
        Reply::NoRoom => "its disk has no room for the snapshot".to_owned(),
        _ => "unexpected reply to a snapshot".to_owned(),
    };
    StreamingError::Unreachable(Unreachable::new(&TransportError::Unreachable(reason)))
}

/// Why a part of a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The part is not the next one of this transfer: the sender starts over.
    #[error("{0}")]
    OutOfStep(&'static str),
    /// The disk is full. What had arrived is removed.
    #[error("no room for a snapshot")]
    NoRoom,
    /// The disk failed: the node stops.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<ReceiveError> for io::Error {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::Fault(fault) => fault.into(),
            other => Self::other(other),
        }
    }
}

/// A snapshot file that is arriving.
struct Incoming {
    transfer: u64,
    next: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

/// Takes a snapshot file in, part by part.
pub(crate) struct SnapshotReceiver {
    store: Arc<Store>,
    disk: Arc<dyn Disk>,
    incoming: Mutex<Option<Incoming>>,
    /// Held while one is installed.
    pub(crate) installing: tokio::sync::Mutex<()>,
}

impl SnapshotReceiver {
    pub(crate) fn new(store: Arc<Store>, disk: Arc<dyn Disk>) -> Self {
        Self { store, disk, incoming: Mutex::new(None), installing: Default::default() }
    }

    /// Writes one part. Blocks on the disk.
    pub(crate) fn chunk(
        &self,
        transfer: u64,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), ReceiveError> {
        let mut slot = self.incoming.lock();
        if offset == 0 {
            self.give_up(&mut slot)?;
            let path = self.store.incoming_snapshot_path();
            let opened = self.disk.open(&path, OpenMode::Truncate);
            let file = opened.map_err(|error| failed("make a file for a snapshot", error))?;
            *slot = Some(Incoming { transfer, next: 0, path, file });
        }
        let incoming = slot
            .as_mut()
            .filter(|incoming| incoming.transfer == transfer && incoming.next == offset)
            .ok_or(ReceiveError::OutOfStep("this part continues no transfer"))?;
        match incoming.file.write_at(offset, bytes) {
            Ok(()) => incoming.next += bytes.len() as u64,
            Err(error) => {
                let error = failed("write a snapshot", error);
                if matches!(error, ReceiveError::NoRoom) {
                    self.give_up(&mut slot)?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes the complete file durable and hands it out. Blocks on the disk.
    pub(crate) fn finish(&self, transfer: u64, len: u64) -> Result<PathBuf, ReceiveError> {
        let incoming = self
            .incoming
            .lock()
            .take_if(|incoming| incoming.transfer == transfer && incoming.next == len)
            .ok_or(ReceiveError::OutOfStep("the snapshot is not complete"))?;
        // Whatever kept a sync from working: nobody knows what it has written.
        incoming.file.sync().map_err(|error| Fault::io("sync a snapshot", error))?;
        Ok(incoming.path)
    }

    /// Removes what has arrived of a transfer that is not needed any more. Blocks on the disk.
    pub(crate) fn discard(&self, transfer: u64) -> Result<(), ReceiveError> {
        let mut slot = self.incoming.lock();
        match slot.as_ref().is_some_and(|incoming| incoming.transfer == transfer) {
            true => self.give_up(&mut slot),
            false => Ok(()),
        }
    }

    /// Removes what has arrived.
    fn give_up(&self, slot: &mut Option<Incoming>) -> Result<(), ReceiveError> {
        let Some(abandoned) = slot.take() else { return Ok(()) };
        let removed = self.disk.remove(&abandoned.path);
        Ok(removed.map_err(|error| Fault::io("remove a part of a snapshot", error))?)
    }
}

/// A full disk is no fault here: nothing was promised yet of what did not fit.
fn failed(what: &str, error: io::Error) -> ReceiveError {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    if full.contains(&error.kind()) {
        return ReceiveError::NoRoom;
    }
    Fault::io(what, error).into()
}
