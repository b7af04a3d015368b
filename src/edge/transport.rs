//! What a session needs of a transport, and what waits to be written to it.
//!
//! One task carries a connection, and polls its link in both directions: a client that reads slowly
//! holds up neither what it sends nor what others get. How much may wait is the session's to bound;
//! how long, the driver's.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use roost_protocol::CloseCode;

/// Room that an empty outbox keeps.
const KEPT_CHUNKS: usize = 16;

/// What a link read.
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

/// Why a connection ends: a code for the peer and its text for people, or nothing if the peer is
/// gone.
pub(crate) type Farewell = Option<(CloseCode, &'static str)>;

/// One connection, as its session sees it. Holds no memory for what is not under way.
pub(crate) trait Link: Send + 'static {
    /// Whether the session must watch for silence, and ask for signs of life; not if the transport
    /// does.
    const WATCH_SILENCE: bool;

    /// The next thing that comes.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Inbound>;

    /// Writes what waits, as far as the peer takes it; ready when nothing waits any more.
    fn poll_write(&mut self, outbox: &mut Outbox, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Asks the peer for a sign of life with the next write.
    fn probe(&mut self);

    /// Ends the connection with a code, after all that was sent, so that the peer can still read
    /// it. Waits for the peer at most `linger`.
    fn close(self, farewell: Farewell, linger: Duration) -> impl Future<Output = ()> + Send;
}

/// Bytes that go out together.
#[derive(Debug)]
struct Chunk {
    rest: Bytes,
    /// The whole length, if it is a frame of the session.
    frame: Option<usize>,
}

/// What waits to be written, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Whether the first chunk is on its way already.
    begun: bool,
    /// The session's frames, and their bytes, that were written and not reported yet.
    written: (usize, usize),
}

impl Outbox {
    /// Adds a frame of the session.
    pub(crate) fn push(&mut self, frame: Bytes) {
        let len = frame.len();
        self.chunks.push_back(Chunk { rest: frame, frame: Some(len) });
    }

    /// Adds bytes of the transport's own, before all frames that are not begun.
    pub(crate) fn push_urgent(&mut self, bytes: Bytes) {
        self.chunks.insert(usize::from(self.begun), Chunk { rest: bytes, frame: None });
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The first chunks, as many as there is room for; how many these are.
    pub(crate) fn slices<'a>(&'a self, room: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.chunks.iter().zip(room);
        chunks.map(|(chunk, slot)| *slot = IoSlice::new(&chunk.rest)).count()
    }

    /// The same, without borrowing and without copying.
    pub(crate) fn shared(&self, room: &mut [Bytes]) -> usize {
        let chunks = self.chunks.iter().zip(room);
        chunks.map(|(chunk, slot)| *slot = chunk.rest.clone()).count()
    }

    /// So many bytes from the front are written.
    pub(crate) fn advance(&mut self, mut bytes: usize) {
        while let Some(first) = self.chunks.front_mut() {
            if bytes < first.rest.len() {
                first.rest.advance(bytes);
                self.begun |= bytes > 0;
                return;
            }
            bytes -= first.rest.len();
            if let Some(len) = first.frame {
                self.written.0 += 1;
                self.written.1 += len;
            }
            self.begun = false;
            self.chunks.pop_front();
        }
        if self.chunks.capacity() > KEPT_CHUNKS {
            self.chunks = VecDeque::new();
        }
    }

    /// The session's frames that were written since this was last asked, and their bytes.
    pub(crate) fn take_written(&mut self) -> (usize, usize) {
        std::mem::take(&mut self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(frames: &[&'static str]) -> Outbox {
        let mut outbox = Outbox::default();
        for frame in frames {
            outbox.push(Bytes::from_static(frame.as_bytes()));
        }
        outbox
    }

    fn waiting(outbox: &Outbox) -> Vec<String> {
        let mut room = vec![Bytes::new(); 8];
        let count = outbox.shared(&mut room);
        room[..count].iter().map(|one| String::from_utf8(one.to_vec()).unwrap()).collect()
    }

    #[test]
    fn whole_frames_are_reported_once() {
        let mut outbox = outbox(&["abc", "de", "f"]);
        outbox.advance(4);
        assert_eq!(outbox.take_written(), (1, 3));
        assert_eq!(waiting(&outbox), ["e", "f"]);
        outbox.advance(2);
        assert_eq!(outbox.take_written(), (2, 3));
        assert!(outbox.is_empty());
        assert_eq!(outbox.take_written(), (0, 0));
    }

    #[test]
    fn what_is_urgent_cuts_no_frame_and_counts_as_none() {
        let mut outbox = outbox(&["abc", "de"]);
        outbox.push_urgent(Bytes::from_static(b"1"));
        assert_eq!(waiting(&outbox), ["1", "abc", "de"]);
        outbox.advance(2);
        outbox.push_urgent(Bytes::from_static(b"2"));
        assert_eq!(waiting(&outbox), ["bc", "2", "de"]);
        outbox.advance(5);
        assert_eq!(outbox.take_written(), (2, 5));
    }

    #[test]
    fn a_write_takes_what_there_is_room_for() {
        let outbox = outbox(&["a", "b", "c"]);
        let mut room = [IoSlice::new(b""); 2];
        assert_eq!(outbox.slices(&mut room), 2);
        assert_eq!((&*room[0], &*room[1]), (&b"a"[..], &b"b"[..]));
    }
}
