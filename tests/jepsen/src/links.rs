//! Slow, lossy, reordering links: packets of chosen nodes take the way through the runner, which
//! holds each back for a time of its own, loses some and doubles some.
//!
//! The kernel here has no netem. So the nodes' routes to each other lead to the bridge's own address,
//! and from there into a TUN device, whose other end is this module; what it writes back is routed on
//! as usual. It works for every protocol, begins and ends without any connection noticing, and costs
//! nothing while no node takes that way.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use parking_lot::{Condvar, Mutex};
use rand::Rng as _;
use tun_rs::{DeviceBuilder, SyncDevice};

use crate::network;
use crate::shell::sh;

const DEVICE: &str = "slow0";
const LONGEST_PACKET: usize = 65_536;
/// Packets that are held back at most; more are lost, as in any router.
const MOST_HELD: usize = 20_000;

/// What happens to packets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weather {
    /// Every packet's delay.
    pub(crate) delay: Duration,
    /// And up to so much more, by chance, so that packets overtake each other.
    pub(crate) jitter: Duration,
    /// The share that is lost.
    pub(crate) loss: f64,
    /// The share that comes twice.
    pub(crate) doubled: f64,
}

/// The detour's far end.
pub(crate) struct Links {
    weather: Arc<Mutex<Weather>>,
}

/// Packets by the time when they are due; the number keeps equal ones in order.
type Held = BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>;

#[derive(Default)]
struct Queue {
    held: Mutex<Held>,
    more: Condvar,
}

impl Links {
    /// No detour, for runs without slow links.
    pub(crate) fn none() -> Self {
        Self { weather: Arc::default() }
    }

    /// Makes the detour; no node takes it yet.
    pub(crate) async fn make() -> anyhow::Result<Self> {
        let device = DeviceBuilder::new().name(DEVICE).mtu(1_500).build_sync();
        let device = Arc::new(device.context("cannot make a TUN device")?);
        sh(&format!("ip link set {DEVICE} up")).await?;
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        for place in ["all", "br0", DEVICE] {
            for setting in ["rp_filter", "send_redirects"] {
                fs::write(format!("/proc/sys/net/ipv4/conf/{place}/{setting}"), "0")?;
            }
        }
        sh("ip rule add iif br0 lookup 100").await?;
        sh(&format!("ip route add {} dev {DEVICE} table 100", network::SUBNET)).await?;

        let weather = Arc::new(Mutex::new(Weather::default()));
        let queue = Arc::new(Queue::default());
        // They end with the process: both wait in the kernel or for each other.
        let (taker, sender) = (device.clone(), queue.clone());
        let today = weather.clone();
        std::thread::Builder::new()
            .name("links-in".into())
            .spawn(move || take(&taker, &today, &sender))?;
        std::thread::Builder::new()
            .name("links-out".into())
            .spawn(move || give(&device, &queue))?;
        Ok(Self { weather })
    }

    /// What happens to packets from now on.
    pub(crate) fn set(&self, weather: Weather) {
        *self.weather.lock() = weather;
    }
}

/// From now on a node's packets to the other nodes take the detour, or no longer.
pub(crate) async fn detour(node: u64, nodes: &[u64], on: bool) -> anyhow::Result<()> {
    for &other in nodes.iter().filter(|&&other| other != node) {
        let to = network::address(other);
        let line = match on {
            true => format!("ip -n n{node} route replace {to}/32 via {}", network::CLIENTS),
            false => format!("ip -n n{node} route flush {to}/32"),
        };
        sh(&line).await?;
    }
    Ok(())
}

/// Takes packets, and says when each is due.
fn take(device: &SyncDevice, weather: &Mutex<Weather>, queue: &Queue) {
    let mut rng = rand::rng();
    let mut buffer = vec![0; LONGEST_PACKET];
    let mut number = 0;
    while let Ok(size) = device.recv(&mut buffer) {
        let weather = *weather.lock();
        let copies = match rng.random::<f64>() {
            chance if chance < weather.loss => 0,
            chance if chance < weather.loss + weather.doubled => 2,
            _ => 1,
        };
        let mut held = queue.held.lock();
        for _ in 0..copies {
            if held.len() >= MOST_HELD {
                break;
            }
            number += 1;
            let due = Instant::now() + weather.delay + weather.jitter.mul_f64(rng.random());
            held.push(Reverse((due, number, buffer[..size].to_vec())));
        }
        queue.more.notify_one();
    }
}

/// Gives packets back when they are due.
fn give(device: &SyncDevice, queue: &Queue) {
    let mut held = queue.held.lock();
    loop {
        let due = held.peek().map(|Reverse((due, ..))| *due);
        match due {
            None => queue.more.wait(&mut held),
            Some(due) if due > Instant::now() => {
                // Woken early by a packet that is due before, or at the time.
                let _ = queue.more.wait_until(&mut held, due);
            }
            Some(_) => {
                let Some(Reverse((.., packet))) = held.pop() else { continue };
                parking_lot::MutexGuard::unlocked(&mut held, || {
                    // A packet that cannot be sent is a lost packet.
                    let _ = device.send(&packet);
                });
            }
        }
    }
}
