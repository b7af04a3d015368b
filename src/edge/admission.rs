//! How many may come in.
//!
//! Every connection holds a permit as long as it lives, so the bounds hold whatever clients do, and
//! the last one to leave is noticed.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::EdgeOptions;

/// The permits of this node.
#[derive(Debug)]
pub(crate) struct Gate {
    sessions: Permits,
    websockets: Permits,
    http: Permits,
    handshakes: Permits,
}

/// A number of permits, and how many there are.
#[derive(Debug)]
struct Permits {
    semaphore: Arc<Semaphore>,
    all: u32,
}

impl Permits {
    fn new(count: usize) -> Self {
        let all = u32::try_from(count.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        Self { semaphore: Arc::new(Semaphore::new(all as usize)), all }
    }

    fn try_take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.semaphore).try_acquire_owned().ok()
    }
}

impl Gate {
    /// All permits free.
    pub(crate) fn new(options: &EdgeOptions) -> Self {
        Self {
            sessions: Permits::new(options.max_sessions),
            websockets: Permits::new(options.max_websockets),
            http: Permits::new(options.max_http_connections),
            handshakes: Permits::new(options.max_handshakes),
        }
    }

    /// A session's permit; none if there are too many.
    pub(crate) fn session(&self) -> Option<OwnedSemaphorePermit> {
        self.sessions.try_take()
    }

    /// The permits of a session on a WebSocket; none if there are too many.
    pub(crate) fn websocket(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        Some((self.websockets.try_take()?, self.sessions.try_take()?))
    }

    /// A TCP connection's permit; waits for one.
    pub(crate) async fn http(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.http.semaphore)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    /// A QUIC handshake's permit; none if there are too many.
    pub(crate) fn handshake(&self) -> Option<OwnedSemaphorePermit> {
        self.handshakes.try_take()
    }

    /// Whether so many handshakes are under way that clients must prove their address.
    pub(crate) fn handshakes_crowded(&self) -> bool {
        self.handshakes.semaphore.available_permits() * 2 < self.handshakes.all as usize
    }

    /// Waits until nobody holds a permit.
    pub(crate) async fn all_gone(&self) {
        for permits in [&self.handshakes, &self.http, &self.websockets, &self.sessions] {
            let _all = permits.semaphore.acquire_many(permits.all).await;
        }
    }
}
