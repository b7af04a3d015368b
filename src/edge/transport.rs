//! What a session needs of a transport, and the task that writes to it.
//!
//! A transport is split in two: a source that gives frames, and a sink that takes them. The writer
//! task owns the sink, so that a client that reads slowly delays neither what it sends nor what
//! others get. How much may wait is the session's to bound; how long, the writer's.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use roost_protocol::CloseCode;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

/// Frames that the writer may be behind.
const MAX_FRAMES: usize = 2 * roost_protocol::limits::MAX_IN_FLIGHT;
/// Frames that are written together.
const MAX_BATCH: usize = 64;

/// What a source read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inbound {
    /// A frame.
    Frame(Bytes),
    /// A sign of life that is no frame.
    Alive,
    /// Something that is no frame of this connection, or one that is too long.
    Unreadable(CloseCode),
    /// The end.
    Ended,
}

/// A transport, by its two halves.
pub(crate) trait Transport: Send + 'static {
    /// Where frames come from.
    type Source: FrameSource;
    /// Where frames go to.
    type Sink: FrameSink;

    /// Ends the connection with a code, after all that was sent, so that the peer can still read
    /// it. Waits for the peer at most `linger`.
    fn close(
        source: Self::Source,
        sink: Self::Sink,
        farewell: Option<(CloseCode, &'static str)>,
        linger: Duration,
    ) -> impl Future<Output = ()> + Send;
}

/// Gives frames.
pub(crate) trait FrameSource: Send + 'static {
    /// Whether the session must watch for silence; not if the transport does.
    const WATCH_SILENCE: bool;

    /// The next thing that comes. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Inbound> + Send;
}

/// Takes frames.
pub(crate) trait FrameSink: Send + 'static {
    /// Writes frames and sees to it that they leave.
    fn write(&mut self, frames: &mut Vec<Bytes>) -> impl Future<Output = io::Result<()>> + Send;

    /// Asks the peer for a sign of life, where the transport does not by itself.
    fn probe(&mut self) -> impl Future<Output = io::Result<()>> + Send;
}

/// How far the writer is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    frames: AtomicUsize,
    bytes: AtomicUsize,
    end: OnceLock<WriterEnd>,
    notify: Notify,
}

impl Progress {
    /// Waits until something was written, or the writer ended.
    pub(crate) async fn made(&self) {
        self.notify.notified().await;
    }

    /// How the writer ended, if it did.
    pub(crate) fn end(&self) -> Option<WriterEnd> {
        self.end.get().copied()
    }

    /// Takes what was written since: frames and bytes.
    pub(crate) fn take(&self) -> (usize, usize) {
        (self.frames.swap(0, Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed))
    }
}

/// The writer task's handle.
pub(crate) struct Writer<K> {
    frames: mpsc::Sender<Bytes>,
    progress: Arc<Progress>,
    task: JoinHandle<(K, WriterEnd)>,
}

/// How a writer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriterEnd {
    /// Everything was written.
    Done,
    /// The peer did not take over what was written.
    TooSlow,
    /// The connection is gone.
    Broken,
}

impl<K: FrameSink> Writer<K> {
    /// Starts a writer.
    pub(crate) fn start(sink: K, write_timeout: Duration, keep_alive: Duration) -> Self {
        let (frames, queue) = mpsc::channel(MAX_FRAMES);
        let progress = Arc::new(Progress::default());
        let task =
            tokio::spawn(write_all(sink, queue, Arc::clone(&progress), write_timeout, keep_alive));
        Self { frames, progress, task }
    }

    /// Hands a frame over; false if the writer is gone or hopelessly behind.
    pub(crate) fn send(&self, frame: Bytes) -> bool {
        self.frames.try_send(frame).is_ok()
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Writes what is left, and gives the sink back unless that takes too long.
    pub(crate) async fn finish(self, within: Duration) -> Option<K> {
        drop(self.frames);
        let abort = self.task.abort_handle();
        match timeout(within, self.task).await {
            Ok(Ok((sink, WriterEnd::Done | WriterEnd::TooSlow))) => Some(sink),
            Ok(_) => None,
            Err(_) => {
                abort.abort();
                None
            }
        }
    }
}

async fn write_all<K: FrameSink>(
    mut sink: K,
    mut queue: mpsc::Receiver<Bytes>,
    progress: Arc<Progress>,
    write_timeout: Duration,
    keep_alive: Duration,
) -> (K, WriterEnd) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    let mut probe_at = Instant::now() + keep_alive;
    let outcome = loop {
        let written = match timeout_at(probe_at, queue.recv_many(&mut batch, MAX_BATCH)).await {
            Ok(0) => break WriterEnd::Done,
            Ok(frames) => {
                let bytes: usize = batch.iter().map(Bytes::len).sum();
                let written = timeout(write_timeout, sink.write(&mut batch)).await;
                progress.frames.fetch_add(frames, Ordering::Relaxed);
                progress.bytes.fetch_add(bytes, Ordering::Relaxed);
                written
            }
            Err(_) => {
                probe_at = Instant::now() + keep_alive;
                timeout(write_timeout, sink.probe()).await
            }
        };
        batch.clear();
        progress.notify.notify_one();
        match written {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break WriterEnd::Broken,
            Err(_) => break WriterEnd::TooSlow,
        }
    };
    // Nobody hands anything over to a writer that has said its end.
    drop(queue);
    let _ = progress.end.set(outcome);
    progress.notify.notify_one();
    (sink, outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sink that takes so many frames, then none.
    struct Takes(usize);

    impl FrameSink for Takes {
        async fn write(&mut self, frames: &mut Vec<Bytes>) -> io::Result<()> {
            for _ in frames.drain(..) {
                match self.0.checked_sub(1) {
                    Some(left) => self.0 = left,
                    None => std::future::pending().await,
                }
            }
            Ok(())
        }

        async fn probe(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn what_was_sent_is_written_before_the_end() {
        let writer = Writer::start(Takes(100), SECOND, SECOND);
        for _ in 0..100 {
            assert!(writer.send(Bytes::from_static(b"x")));
        }
        assert_eq!(writer.finish(SECOND).await.unwrap().0, 0);
    }

    #[tokio::test]
    async fn a_peer_that_takes_nothing_ends_the_writer_in_time() {
        let patience = Duration::from_millis(20);
        let writer = Writer::start(Takes(0), patience, SECOND * 60);
        assert!(writer.send(Bytes::from_static(b"x")));
        let started = Instant::now();
        while writer.progress().end().is_none() {
            writer.progress().made().await;
        }
        assert_eq!(writer.progress().end(), Some(WriterEnd::TooSlow));
        assert!(started.elapsed() >= patience);
        assert!(!writer.send(Bytes::from_static(b"y")));
    }
}
