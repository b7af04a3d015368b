//! Files for the next segments, filled with zeros before they are needed.
//!
//! A file system notes for each block of a file that is new, or only reserved, when it is written
//! first, so that syncing it means writing metadata too, in a journal that all files of a disk share.
//! What was filled before has none of that. A thread of low priority does it; where it is late, or
//! fails, the writer makes its segment the other way.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::segment::Segments;
use crate::background::Worker;
use crate::fs::DiskFile;

/// The thread, and the one file that it has ready.
pub(super) struct Spares {
    /// Each message asks for one file.
    wanted: SyncSender<()>,
    ready: Receiver<Arc<dyn DiskFile>>,
    /// Ends once nobody can ask.
    _worker: Worker,
}

impl Spares {
    /// Starts it; `None` if the operating system gives no thread.
    pub(super) fn start(segments: Segments) -> Option<Self> {
        let (wanted, wishes) = sync_channel(1);
        let (give, ready) = sync_channel(1);
        let work = move || {
            while wishes.recv().is_ok() {
                let spare = match segments.prepare_spare() {
                    Ok(spare) => spare,
                    Err(error) => {
                        tracing::debug!(%error, "no file for a later segment of the log");
                        break;
                    }
                };
                if give.send(spare).is_err() {
                    break;
                }
            }
            if let Err(error) = segments.remove_spare() {
                tracing::debug!(%error, "the file for a later segment of the log stays");
            }
        };
        let worker = Worker::start("roost-log-ahead", work)
            .inspect_err(|error| tracing::warn!(%error, "the log goes on without files ahead"))
            .ok()?;
        let spares = Self { wanted, ready, _worker: worker };
        spares.wish();
        Some(spares)
    }

    /// The file, if it is ready; the next one is begun once it is asked for again.
    pub(super) fn take(&self) -> Option<Arc<dyn DiskFile>> {
        self.ready.try_recv().ok()
    }

    /// Asks for the next file. The one before must have its new name.
    pub(super) fn wish(&self) {
        // One that is asked for already, or a thread that ended, is as good.
        let _ = self.wanted.try_send(());
    }
}
