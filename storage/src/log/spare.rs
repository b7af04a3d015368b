//! Files for the next segments, filled with zeros before they are needed.
//!
//! A file system notes for each block of a file that is new, or only reserved, when it is written
//! first, so that syncing it means writing metadata too, in a journal that all files of a disk share.
//! What was filled before has none of that. A thread of low priority does it, spread over half of the
//! time that the last segment was enough for: other syncs wait behind each part of it, and the replicas
//! of a shard, which write the same entries, all begin at the same moment. Where it is late, or fails,
//! the writer makes its segment the other way.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use super::segment::{Blank, Segments};
use crate::background::{Laps, Worker};

/// The longest time that a file is filled over.
const MOST_TIME: Duration = Duration::from_secs(8);

/// The thread, and the one file that it has ready.
pub(super) struct Spares {
    /// Each message asks for one file, and says how much time there is.
    wanted: SyncSender<Duration>,
    /// What came of it: none where the disk failed.
    ready: Receiver<Option<Blank>>,
    /// Whether a file was asked for and not taken yet. A second one would be the same file.
    asked: bool,
    /// From one segment to the next.
    laps: Laps,
    /// Ends once nobody can ask.
    _worker: Worker,
}

impl Spares {
    /// Starts it; `None` if the operating system gives no thread.
    pub(super) fn start(segments: Segments) -> Option<Self> {
        let (wanted, wishes) = sync_channel(1);
        let (give, ready) = sync_channel(1);
        let work = move || {
            while let Ok(time) = wishes.recv() {
                let spare = prepare(&segments, time, &wishes).inspect_err(|error| {
                    tracing::debug!(%error, "no file for a later segment of the log");
                });
                if give.send(spare.ok()).is_err() {
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
        Some(Self { wanted, ready, asked: false, laps: Laps::begin(), _worker: worker })
    }

    /// The file, if it is ready; the next one is begun once it is asked for again.
    pub(super) fn take(&mut self) -> Option<Blank> {
        let blank = self.ready.try_recv().ok()?;
        self.asked = false;
        blank
    }

    /// Notes that a segment was begun, and asks for the next one's file if it is `wanted`. One that was
    /// taken must have its new name.
    pub(super) fn next_segment(&mut self, wanted: bool) {
        let time = self.laps.next() / 2;
        if wanted {
            self.ask(time);
        }
    }

    /// Asks for a file, if none is asked for.
    pub(super) fn ask(&mut self, time: Duration) {
        if !self.asked {
            // A thread that ended gives none.
            self.asked = self.wanted.try_send(time.min(MOST_TIME)).is_ok();
        }
    }
}

/// Fills a file over about so much time, or until nobody can ask for it any more.
fn prepare(segments: &Segments, time: Duration, wishes: &Receiver<Duration>) -> io::Result<Blank> {
    let pause = time / segments.spare_parts();
    segments.prepare_spare(|| match wishes.recv_timeout(pause) {
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the log was closed")),
        Ok(_) | Err(RecvTimeoutError::Timeout) => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::fs::sim::SimDisk;
    use crate::log::LogOptions;

    fn segments() -> Segments {
        segments_on(SimDisk::new())
    }

    /// The smallest segments that are filled in several parts.
    fn segments_on(disk: SimDisk) -> Segments {
        let options = LogOptions { segment_bytes: 1024 * 1024, ..LogOptions::default() };
        let segments = Segments::new(Arc::new(disk), Path::new("log"), options);
        assert!(segments.list().unwrap().is_empty());
        segments
    }

    #[test]
    fn a_file_is_whole_when_its_time_is_over() {
        let (_asking, wishes) = sync_channel(1);
        let time = Duration::from_millis(20);
        let began = Instant::now();
        let segments = segments();
        let blank = prepare(&segments, time, &wishes).unwrap();
        assert!(began.elapsed() >= time);
        assert_eq!(blank.len().unwrap(), segments.usual_bytes());
    }

    /// The next file, once it came to something or nothing.
    fn taken(spares: &mut Spares) -> Option<Blank> {
        spares.ask(Duration::ZERO);
        while spares.asked {
            if let Some(blank) = spares.take() {
                return Some(blank);
            }
            std::thread::yield_now();
        }
        None
    }

    #[test]
    fn a_disk_that_was_full_for_a_while_gives_files_later() {
        let disk = SimDisk::new();
        let mut spares = Spares::start(segments_on(disk.clone())).unwrap();
        disk.fill_at(disk.operations() + 10);
        assert!(taken(&mut spares).is_none());
        disk.make_room();
        assert!(taken(&mut spares).is_some());
    }

    #[test]
    fn a_log_that_is_closed_does_not_wait_for_the_rest() {
        let (asking, wishes) = sync_channel(1);
        drop(asking);
        let error = prepare(&segments(), Duration::from_secs(3_600), &wishes).unwrap_err();
        assert!(error.to_string().contains("closed"), "{error}");
    }
}
