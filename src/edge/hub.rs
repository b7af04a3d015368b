//! Who is connected to this node, and waking them.
//!
//! The cluster tells the [`Hub`] what was applied here; the hub tells the sessions of the users
//! concerned. It is called on the apply path: one lock, a look-up for each queue that grew, and a
//! mark on each of its sessions. Nothing waits and nothing is queued: a session that was marked
//! twice before it looked reads its queue once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use roost_cluster::{ClaimTime, Observer};
use roost_protocol::CloseCode;
use roost_storage::command::Effect;
use roost_storage::model::{DeviceId, UserId};
use roost_storage::planted::{self, Bug};
use tokio::sync::watch;

const LOOK: u8 = 1;
const REPLACED: u8 = 2;
const STOPPED: u8 = 4;
const GREW: u8 = 8;

/// What a session is told: marks that it takes when it wakes.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    waker: AtomicWaker,
    tail: AtomicU64,
    marks: AtomicU8,
    /// Whether a queue that grew is no reason to wake.
    quiet: AtomicBool,
}

/// The marks that were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// The queue is said to have grown up to here; 0 if nothing was said.
    pub(crate) tail: u64,
    /// Whether the queue may have grown unnoticed.
    pub(crate) look: bool,
    /// Why the session is to end.
    pub(crate) end: Option<CloseCode>,
}

impl Signal {
    /// Says that nothing is pushed to this session: it learns of its queue when it wakes anyway.
    pub(crate) fn be_quiet(&self) {
        self.quiet.store(true, Ordering::Relaxed);
    }

    fn grew(&self, tail: u64) {
        self.tail.fetch_max(tail, Ordering::Relaxed);
        if !self.quiet.load(Ordering::Relaxed) {
            self.mark(GREW);
        }
    }

    fn mark(&self, mark: u8) {
        // Only the first mark since the last look wakes: the others are seen with it.
        if self.marks.fetch_or(mark, Ordering::Release) == 0 {
            self.waker.wake();
        }
    }

    /// The marks, once there is one.
    pub(crate) fn poll_marks(&self, cx: &mut Context<'_>) -> Poll<Marks> {
        if self.marks.load(Ordering::Relaxed) == 0 {
            self.waker.register(cx.waker());
            if self.marks.load(Ordering::Relaxed) == 0 {
                return Poll::Pending;
            }
        }
        Poll::Ready(self.take())
    }

    /// Takes the marks.
    fn take(&self) -> Marks {
        let marks = self.marks.swap(0, Ordering::Acquire);
        let end = if marks & REPLACED != 0 {
            Some(CloseCode::Replaced)
        } else {
            (marks & STOPPED != 0).then_some(CloseCode::ShuttingDown)
        };
        Marks { tail: self.tail.load(Ordering::Relaxed), look: marks & LOOK != 0, end }
    }
}

#[derive(Debug)]
struct Seat {
    device: DeviceId,
    since: Since,
    signal: Arc<Signal>,
}

/// When a seat was taken.
#[derive(Debug, Clone, Copy)]
enum Since {
    /// Then.
    Known(ClaimTime),
    /// No leader could tell yet; until one does, the newest claim from elsewhere is kept.
    Open { claimed: Option<ClaimTime> },
}

/// The sessions of this node.
#[derive(Debug)]
pub struct Hub {
    users: Mutex<HashMap<UserId, Vec<Seat>>>,
    stopped: watch::Sender<Option<String>>,
}

impl Hub {
    /// An empty hub; hand a clone to the cluster as its observer.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { users: Mutex::default(), stopped: watch::Sender::new(None) })
    }

    /// How many devices are connected here.
    pub fn devices(&self) -> usize {
        self.users.lock().values().map(Vec::len).sum()
    }

    /// Why this node stopped at a fault; none while it runs.
    pub fn stopped(&self) -> watch::Receiver<Option<String>> {
        self.stopped.subscribe()
    }

    /// Takes a device's seat until the registration is dropped. Who has it now is replaced. Without
    /// a time, [`Undated::date`] must follow once it is known.
    pub(crate) fn register(
        self: &Arc<Self>,
        user: &UserId,
        device: &DeviceId,
        since: Option<ClaimTime>,
        signal: Arc<Signal>,
    ) -> Registration {
        let mut users = self.users.lock();
        let seats = users.entry(user.clone()).or_default();
        seats.retain(|seat| {
            let same = seat.device == *device;
            if same {
                seat.signal.mark(REPLACED);
            }
            !same
        });
        let since = since.map_or(Since::Open { claimed: None }, Since::Known);
        seats.push(Seat { device: device.clone(), since, signal: Arc::clone(&signal) });
        Registration { hub: Arc::clone(self), user: user.clone(), signal }
    }

    /// Says when a seat was taken that was taken without a leader. `false` if nobody has it now.
    fn date(&self, user: &UserId, signal: &Arc<Signal>, time: ClaimTime) -> bool {
        let mut users = self.users.lock();
        let seats = users.get_mut(user).into_iter().flatten();
        let Some(seat) = seats.into_iter().find(|seat| Arc::ptr_eq(&seat.signal, signal)) else {
            return false;
        };
        if let Since::Open { claimed: Some(claimed) } = seat.since
            && claimed > time
        {
            seat.signal.mark(REPLACED);
        }
        seat.since = Since::Known(time);
        true
    }

    fn leave(&self, user: &UserId, signal: &Arc<Signal>) {
        let mut users = self.users.lock();
        if let Some(seats) = users.get_mut(user) {
            seats.retain(|seat| !Arc::ptr_eq(&seat.signal, signal));
            if seats.is_empty() {
                users.remove(user);
            }
        }
    }

    fn mark_all(&self, mark: u8) {
        for seat in self.users.lock().values().flatten() {
            seat.signal.mark(mark);
        }
    }
}

impl Observer for Hub {
    fn applied(&self, _index: u64, effects: &[Effect]) {
        let users = self.users.lock();
        if users.is_empty() || planted::is(Bug::HintLost) {
            return;
        }
        for effect in effects {
            let Effect::QueueGrew { user, seq } = effect else { continue };
            for seat in users.get(user).into_iter().flatten() {
                seat.signal.grew(*seq);
            }
        }
    }

    fn state_replaced(&self) {
        self.mark_all(LOOK);
    }

    fn device_claimed(&self, user: &UserId, device: &DeviceId, time: ClaimTime) {
        let mut users = self.users.lock();
        for seat in users.get_mut(user).into_iter().flatten() {
            if seat.device != *device {
                continue;
            }
            match &mut seat.since {
                Since::Known(since) if *since < time => seat.signal.mark(REPLACED),
                Since::Known(_) => {}
                Since::Open { claimed } => *claimed = (*claimed).max(Some(time)),
            }
        }
    }

    fn stopped(&self, reason: &str) {
        self.stopped.send_replace(Some(reason.to_owned()));
        self.mark_all(STOPPED);
    }
}

/// A device's seat.
#[derive(Debug)]
pub(crate) struct Registration {
    hub: Arc<Hub>,
    user: UserId,
    signal: Arc<Signal>,
}

impl Registration {
    /// What dates this seat later, without holding it.
    pub(crate) fn undated(&self) -> Undated {
        Undated {
            hub: Arc::clone(&self.hub),
            user: self.user.clone(),
            signal: Arc::clone(&self.signal),
        }
    }
}

/// A seat that was taken before a leader could say when.
pub(crate) struct Undated {
    hub: Arc<Hub>,
    user: UserId,
    signal: Arc<Signal>,
}

impl Undated {
    /// Whether somebody still sits there.
    pub(crate) fn is_taken(&self) -> bool {
        let users = self.hub.users.lock();
        let mut seats = users.get(&self.user).into_iter().flatten();
        seats.any(|seat| Arc::ptr_eq(&seat.signal, &self.signal))
    }

    /// Says when it was taken; `false` if nobody sits there any more.
    pub(crate) fn date(&self, time: ClaimTime) -> bool {
        self.hub.date(&self.user, &self.signal, time)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.hub.leave(&self.user, &self.signal);
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn sit(hub: &Arc<Hub>, name: &str, device: &str) -> (Arc<Signal>, Registration) {
        let signal = Arc::new(Signal::default());
        let device = DeviceId::new(device).unwrap();
        let registration = hub.register(&user(name), &device, Some(SINCE), Arc::clone(&signal));
        (signal, registration)
    }

    const SINCE: ClaimTime = ClaimTime { term: 7, count: 1_000 };

    fn grew(name: &str, seq: u64) -> Effect {
        Effect::QueueGrew { user: user(name), seq }
    }

    #[test]
    fn only_the_users_own_sessions_are_woken() {
        let hub = Hub::new();
        let (alice, _a) = sit(&hub, "alice", "phone");
        let (other, _b) = sit(&hub, "alice", "laptop");
        let (bob, _c) = sit(&hub, "bob", "phone");
        hub.applied(1, &[grew("alice", 7), grew("carol", 1)]);
        assert_eq!(alice.take(), Marks { tail: 7, look: false, end: None });
        assert_eq!(other.take().tail, 7);
        assert_eq!(bob.take().tail, 0);
    }

    #[test]
    fn the_same_device_is_replaced_and_others_stay() {
        let hub = Hub::new();
        let (old, old_seat) = sit(&hub, "alice", "phone");
        let (laptop, _b) = sit(&hub, "alice", "laptop");
        let (new, _c) = sit(&hub, "alice", "phone");
        assert_eq!(old.take().end, Some(CloseCode::Replaced));
        assert_eq!(laptop.take().end, None);
        drop(old_seat);
        assert_eq!(hub.devices(), 2);
        hub.applied(1, &[grew("alice", 1)]);
        assert_eq!(new.take().tail, 1);
    }

    #[test]
    fn a_device_claimed_elsewhere_loses_its_seat_here() {
        let hub = Hub::new();
        let (phone, _a) = sit(&hub, "alice", "phone");
        let (laptop, _b) = sit(&hub, "alice", "laptop");
        let device = DeviceId::new("phone").unwrap();
        hub.device_claimed(&user("alice"), &device, ClaimTime { term: 7, count: 999 });
        hub.device_claimed(&user("alice"), &device, ClaimTime { term: 6, count: 2_000 });
        assert_eq!(phone.take().end, None, "the claim came late: the device is back here since");
        hub.device_claimed(&user("alice"), &device, ClaimTime { term: 8, count: 1 });
        assert_eq!(phone.take().end, Some(CloseCode::Replaced));
        assert_eq!(laptop.take().end, None);
    }

    #[test]
    fn a_seat_taken_without_a_leader_yields_to_a_later_claim_only() {
        let hub = Hub::new();
        let device = DeviceId::new("phone").unwrap();
        for (claimed, dated, replaced) in [(5, 6, false), (6, 5, true)] {
            let signal = Arc::new(Signal::default());
            let seat = hub.register(&user("alice"), &device, None, Arc::clone(&signal));
            let undated = seat.undated();
            hub.device_claimed(&user("alice"), &device, ClaimTime { term: 1, count: claimed });
            assert_eq!(signal.take().end, None, "nobody knows yet who came later");
            assert!(undated.date(ClaimTime { term: 1, count: dated }));
            assert_eq!(signal.take().end.is_some(), replaced);
            drop(seat);
            assert!(!undated.is_taken() && !undated.date(SINCE));
        }
    }

    #[test]
    fn a_replaced_state_and_a_stop_reach_everybody() {
        let hub = Hub::new();
        let (alice, _a) = sit(&hub, "alice", "phone");
        let (bob, _b) = sit(&hub, "bob", "phone");
        hub.state_replaced();
        assert!(alice.take().look && bob.take().look);
        Observer::stopped(&*hub, "disk");
        assert_eq!(alice.take().end, Some(CloseCode::ShuttingDown));
        assert_eq!(hub.stopped().borrow().as_deref(), Some("disk"));
    }

    #[tokio::test]
    async fn a_mark_set_before_the_wait_is_not_lost() {
        let hub = Hub::new();
        let (alice, _a) = sit(&hub, "alice", "phone");
        hub.applied(1, &[grew("alice", 1)]);
        hub.applied(2, &[grew("alice", 2)]);
        assert_eq!(poll_fn(|cx| alice.poll_marks(cx)).await.tail, 2);
    }

    #[test]
    fn an_empty_user_leaves_nothing_behind() {
        let hub = Hub::new();
        drop(sit(&hub, "alice", "phone"));
        assert!(hub.users.lock().is_empty());
    }
}
