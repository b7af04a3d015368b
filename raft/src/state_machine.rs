//! openraft's state machine over [`Store`].
//!
//! Entries are applied in order: small ones in place, since another thread costs more than they do;
//! large ones, and all of them while the store is at its memory bound and waits for a checkpoint,
//! on a thread that may block. The state is in place before anybody hears of it: first the
//! store, then the applied index, then the observer, then the proposer's reply.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, StreamExt};
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::type_config::alias::{SnapshotMetaOf, SnapshotOf};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use roost_storage::command::{Batch, Effect};
use roost_storage::planted::{self, Bug};
use roost_storage::store::{AppliedState, Payload, Store};
use roost_storage::{Fault, codec};
use tokio::sync::watch;

use crate::host;
use crate::snapshot::{SnapshotData, SnapshotSource, membership_of};
use crate::types::{Entry, LogId, Response, StoredMembership, TypeConfig, log_id, position};

/// Entries applied between two visits of the async runtime.
const APPLY_CHUNK: usize = 64;

/// Bytes of proposals that are applied in place, between two visits of the async runtime.
const IN_PLACE_BYTES: usize = 64 * 1024;

/// Entries to apply, with whoever waits for each.
type Chunk = Vec<(Entry, Option<ApplyResponder<TypeConfig>>)>;

/// What is told about applied entries. Called on the apply path, in order: it must not block.
pub trait ApplyObserver: Send + Sync + 'static {
    /// An entry was applied.
    fn applied(&self, index: u64, effects: &[Effect]);
    /// A snapshot replaced the whole state.
    fn state_replaced(&self);
}

/// The store, as openraft sees it.
#[derive(Clone)]
pub struct StateMachine {
    source: SnapshotSource,
    observer: Arc<dyn ApplyObserver>,
    applied: Arc<watch::Sender<Option<u64>>>,
    /// The index after the newest snapshot that openraft was given.
    given: Arc<AtomicU64>,
}

impl StateMachine {
    /// Wraps an open store with its disk. `applied` is kept at the newest applied index.
    pub fn new(
        source: SnapshotSource,
        observer: Arc<dyn ApplyObserver>,
        applied: Arc<watch::Sender<Option<u64>>>,
    ) -> Self {
        let index = source.store().applied_state().applied.map(|position| position.index);
        applied.send_replace(index);
        let given = AtomicU64::new(next_index(&source.store().checkpoint_state()));
        Self { source, observer, applied, given: Arc::new(given) }
    }

    fn store(&self) -> &Arc<Store> {
        self.source.store()
    }

    fn apply_one(&self, entry: &Entry) -> Result<Response, Fault> {
        let position = position(&entry.log_id);
        let applied = match &entry.payload {
            EntryPayload::Blank => self.store().apply(position, Payload::Blank)?,
            EntryPayload::Normal(proposal) => {
                let restamped = planted::is(Bug::ClockInApply).then(|| restamped(&proposal.0));
                let bytes = restamped.as_deref().unwrap_or(&proposal.0);
                self.store().apply(position, Payload::Batch(bytes))?
            }
            EntryPayload::Membership(membership) => {
                self.store().apply(position, Payload::Membership(&codec::encode(membership)))?
            }
        };
        self.applied.send_replace(Some(position.index));
        self.observer.applied(position.index, &applied.effects);
        Ok(Response { outcomes: applied.outcomes })
    }

    /// Applies from the front what neither waits nor takes long; gives back the rest.
    fn apply_in_place(&self, chunk: Chunk) -> Result<Chunk, Fault> {
        let mut bytes = 0;
        let mut chunk = chunk.into_iter();
        while let Some((entry, _)) = chunk.as_slice().first() {
            if let EntryPayload::Normal(proposal) = &entry.payload {
                bytes += proposal.0.len();
            }
            if bytes > IN_PLACE_BYTES || !self.store().has_room() {
                break;
            }
            self.apply_chunk(chunk.by_ref().take(1).collect())?;
        }
        Ok(chunk.collect())
    }

    fn apply_chunk(&self, chunk: Chunk) -> Result<(), Fault> {
        for (entry, responder) in chunk {
            let response = self.apply_one(&entry)?;
            if let Some(responder) = responder {
                responder.send(response);
            }
        }
        Ok(())
    }

    fn snapshot(&self) -> io::Result<Option<SnapshotOf<TypeConfig, SnapshotData>>> {
        let state = self.store().checkpoint_state();
        if state.applied.is_none() {
            return Ok(None);
        }
        Ok(Some(SnapshotOf::<TypeConfig, _> {
            meta: snapshot_meta(&state)?,
            snapshot: SnapshotData::Checkpoint(self.source.clone()),
        }))
    }
}

/// The index after the newest entry of a state.
fn next_index(state: &AppliedState) -> u64 {
    state.applied.map_or(0, |position| position.index + 1)
}

/// The batch with this node's time.
fn restamped(bytes: &[u8]) -> Vec<u8> {
    let at_ms = host::unix_ms();
    let batch = codec::decode_batch(bytes).map(|batch| Batch { at_ms, ..batch });
    batch.ok().and_then(|batch| codec::encode_batch(&batch).ok()).unwrap_or_else(|| bytes.to_vec())
}

fn snapshot_meta(state: &AppliedState) -> io::Result<SnapshotMetaOf<TypeConfig>> {
    Ok(SnapshotMetaOf::<TypeConfig> {
        last_log_id: state.applied.map(log_id),
        last_membership: membership_of(state)?,
    })
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.store().applied_state();
        Ok((state.applied.map(log_id), membership_of(&state)?))
    }

    async fn apply<Strm>(&mut self, entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut chunks = entries.ready_chunks(APPLY_CHUNK);
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.into_iter().collect::<io::Result<Vec<_>>>()?;
            let rest = self.apply_in_place(chunk)?;
            if !rest.is_empty() {
                let machine = self.clone();
                host::blocking(move || machine.apply_chunk(rest)).await?;
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<TypeConfig>,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        let path = match snapshot {
            SnapshotData::File(path) => path,
            // Our own checkpoint is what we recover from anyway.
            SnapshotData::Checkpoint(source) if Arc::ptr_eq(source.store(), self.store()) => {
                return Ok(());
            }
            SnapshotData::Checkpoint(source) => self.source.copy_from(&source).await?,
        };
        host::install_time().await;
        let store = self.store().clone();
        let state = host::blocking(move || store.import_snapshot(&path)).await?;
        if state.applied.map(log_id) != meta.last_log_id {
            return Err(
                Fault::corrupt("the snapshot file is not the one that was announced").into()
            );
        }
        self.applied.send_replace(state.applied.map(|position| position.index));
        self.given.store(next_index(&state), Ordering::Relaxed);
        self.observer.state_replaced();
        Ok(())
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<SnapshotOf<TypeConfig, SnapshotData>>, io::Error> {
        self.snapshot()
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    /// A checkpoint is the snapshot: one that was made since the last snapshot, else a new one. A
    /// second one right after the first would be nearly empty, and take its place in memory.
    async fn build_snapshot(&mut self) -> Result<SnapshotOf<TypeConfig, SnapshotData>, io::Error> {
        let store = self.store().clone();
        let mut state = store.checkpoint_state();
        if next_index(&state) <= self.given.load(Ordering::Relaxed) {
            state = host::background(move || store.checkpoint()).await?;
        }
        self.given.store(next_index(&state), Ordering::Relaxed);
        Ok(SnapshotOf::<TypeConfig, _> {
            meta: snapshot_meta(&state)?,
            snapshot: SnapshotData::Checkpoint(self.source.clone()),
        })
    }
}
