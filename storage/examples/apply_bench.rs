//! How fast the apply path is, by size of the conversations and engine.
//!
//! ```sh
//! cargo run --release -p roost-storage --example apply_bench -- [SECONDS] [BODY_BYTES]
//! ```
//!
//! `ENGINES=fjall,sled` in the environment picks among `memory`, `sled` and `fjall`, `SIZES=2,10`
//! among the sizes of the conversations, `DIRTY_MIB` sets the bound on dirty memory, and `USERS` the
//! number of users.
//!
//! One thread applies batches of sends as fast as it can, another one checkpoints under pressure,
//! as in a node. Printed are messages and references for each second of the applying thread's CPU
//! time (so that a busy machine shows less than it otherwise would in the figures), messages for
//! each second of the clock, processor time for each message (of applying, of checkpoints, of the
//! engine's own threads), the longest wait of one batch, the peak of resident memory over all that
//! ran so far, and how fast queues are read afterwards. The log and Raft are not part of it. Linux
//! only.
#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use roost_storage::codec;
use roost_storage::command::{Attempt, Batch, Command, Target};
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::engine::{self, Engine, EngineKind};
use roost_storage::fs::real::RealDisk;
use roost_storage::limits::MAX_PAGE;
use roost_storage::model::{ConversationId, ConversationKind, LogPosition, Retention, UserId};
use roost_storage::store::{Payload, Store, StoreOptions};

static USERS: LazyLock<usize> = LazyLock::new(|| {
    let users = std::env::var("USERS").map(|users| users.parse().expect("a number"));
    users.unwrap_or(20_000)
});
const BATCH: usize = 64;

struct Feed {
    store: Arc<Store>,
    index: u64,
    started: Instant,
    waiting: Vec<Command>,
    names: u64,
    /// How long the slowest batch took.
    slowest: Duration,
}

impl Feed {
    fn push(&mut self, command: Command) {
        self.waiting.push(command);
        if self.waiting.len() == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let at_ms = u64::try_from(self.started.elapsed().as_millis()).expect("a short run");
        let commands = std::mem::take(&mut self.waiting);
        let bytes = codec::encode_batch(&Batch { at_ms, commands }).expect("a small batch");
        let position = LogPosition { term: 1, index: self.index };
        self.index += 1;
        let started = Instant::now();
        let applied = self.store.apply(position, Payload::Batch(&bytes)).expect("no fault");
        self.slowest = self.slowest.max(started.elapsed());
        assert!(applied.outcomes.iter().all(Result::is_ok), "all are accepted");
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("c{:012}", self.names)
    }
}

fn user(n: usize) -> UserId {
    format!("u{:06}", n % *USERS).parse().expect("a short id")
}

/// Groups of `size`, so many that each user is in about four.
fn make_groups(feed: &mut Feed, size: usize) -> Vec<(ConversationId, usize)> {
    let count = (*USERS * 4 / size).max(1);
    let mut groups = Vec::new();
    for n in 0..count {
        let first = n * 7_919;
        let name = feed.name();
        feed.push(Command::CreateConversation {
            owner: user(first),
            kind: ConversationKind::Group,
            members: (1..size).map(|i| user(first + i * 13)).collect(),
            name: None,
            retention: Retention::Forever,
            client_id: name.parse().expect("a short id"),
            attempt: Attempt(1),
        });
        let id = format!("g-0-{:x}", n + 1).parse().expect("a short id");
        groups.push((id, first));
    }
    feed.flush();
    groups
}

/// Bytes that no compression makes smaller, enough for many bodies of this size.
fn noise(body: usize) -> Noise {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..(1 << 17)).flat_map(|_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()
    });
    Noise { bytes: words.collect::<Vec<_>>().into(), body }
}

struct Noise {
    bytes: bytes::Bytes,
    body: usize,
}

impl Noise {
    fn body(&self, n: usize) -> bytes::Bytes {
        let start = n.wrapping_mul(61) % (self.bytes.len() - self.body);
        self.bytes.slice(start..start + self.body)
    }
}

fn send(feed: &mut Feed, groups: &[(ConversationId, usize)], n: usize, body: &Noise) {
    // Conversations are picked with a skew: an eighth of them gets half of the messages.
    let spread = if n.is_multiple_of(2) { groups.len() } else { (groups.len() / 8).max(1) };
    let (id, owner) = &groups[(n.wrapping_mul(2_654_435_761) >> 7) % spread];
    let name = feed.name();
    feed.push(Command::Send {
        sender: user(*owner),
        target: Target::Conversation(id.clone()),
        client_id: name.parse().expect("a short id"),
        attempt: Attempt(1),
        body: body.body(n),
        content_type: None,
        ttl_ms: None,
    });
}

fn run(
    name: &str,
    folder: &Path,
    engine: Arc<dyn Engine>,
    size: usize,
    time: Duration,
    body: usize,
) {
    let disk = Arc::new(RealDisk::open(folder.to_owned()).expect("a folder to write to"));
    let mut options = StoreOptions::default();
    if let Ok(mib) = std::env::var("DIRTY_MIB") {
        options.dirty_bytes = mib.parse::<usize>().expect("a number") << 20;
    }
    let store = Store::open(disk, Path::new("store"), engine, options);
    let store = Arc::new(store.expect("a new store"));
    let checkpoints = {
        let store = Arc::clone(&store);
        let named = thread::Builder::new().name("checkpoints".to_owned());
        let work = move || {
            while store.wait_for_pressure() {
                store.checkpoint().expect("no fault");
            }
            cpu_seconds()
        };
        named.spawn(work).expect("a thread more")
    };
    let started = Instant::now();
    let mut feed = Feed {
        store: Arc::clone(&store),
        index: 0,
        started,
        waiting: Vec::new(),
        names: 0,
        slowest: Duration::ZERO,
    };
    let groups = make_groups(&mut feed, size);
    let body = noise(body);
    let before = store.counts();
    let (started, cpu, all_cpu) = (Instant::now(), cpu_seconds(), process_cpu_seconds());
    let mut n = 0;
    while started.elapsed() < time {
        for _ in 0..1_000 {
            send(&mut feed, &groups, n, &body);
            n += 1;
        }
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let after = store.counts();
    let clock = (after.messages - before.messages) as f64 / seconds;
    let messages = (after.messages - before.messages) as f64 / cpu;
    let references = (after.references - before.references) as f64 / cpu;
    store.stop();
    let checkpoints = checkpoints.join().expect("the checkpoint thread ends");
    let (started, own_cpu) = (Instant::now(), cpu_seconds());
    store.checkpoint().expect("no fault");
    let last_checkpoint = started.elapsed().as_secs_f64();
    let checkpoints = checkpoints + cpu_seconds() - own_cpu;
    let all_cpu = process_cpu_seconds() - all_cpu;
    let each = |seconds: f64| seconds * 1e6 / (after.messages - before.messages) as f64;
    let (all, apply, checkpoints) = (each(all_cpu), each(cpu), each(checkpoints));
    let (rest, slowest, peak) = (all - apply - checkpoints, feed.slowest, peak_memory_mib());
    let read = read_all(&store);
    let bytes = store.tier_stats().cold_bytes as f64 / after.messages as f64;
    println!(
        "{name:8} G={size:<4} {messages:>9.0} messages/cpu-s {references:>11.0} references/cpu-s \
         {clock:>9.0} messages/s  {all:.1} µs a message: {apply:.1} apply, {checkpoints:.1} \
         checkpoints, {rest:.1} engine  slowest batch {slowest:.0?}  last checkpoint \
         {last_checkpoint:.2} s  peak {peak} MiB  read {read:>9.0} items/cpu-s  {bytes:.0} \
         bytes/message"
    );
}

/// Items a second, over the queues of every 20th user.
fn read_all(store: &Store) -> f64 {
    let started = cpu_seconds();
    let mut items = 0_u64;
    for n in (0..*USERS).step_by(20) {
        let mut after = 0;
        loop {
            let page = store.queue_page(&user(n), after, MAX_PAGE, 0).expect("no fault");
            items += page.items.len() as u64;
            after += page.items.len() as u64;
            if !page.more {
                break;
            }
        }
    }
    items as f64 / (cpu_seconds() - started)
}

/// The CPU time of this thread, in seconds.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanos = stat.split(' ').next().and_then(|text| text.parse::<u64>().ok());
    nanos.expect("schedstat starts with nanoseconds") as f64 / 1e9
}

/// The CPU time of the whole process, checkpoints and engine included, in seconds.
fn process_cpu_seconds() -> f64 {
    const TICKS_A_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let after_name = stat.rsplit(')').next().expect("a name in parentheses");
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.filter_map(|text| text.parse::<f64>().ok()).sum::<f64>() / TICKS_A_SECOND
}

/// The most memory that the process had resident so far, in MiB.
fn peak_memory_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.expect("a peak in kB") / 1024
}

fn main() {
    let mut arguments =
        std::env::args().skip(1).map(|text| text.parse::<usize>().expect("a number"));
    let time = Duration::from_secs(arguments.next().unwrap_or(10) as u64);
    let body = arguments.next().unwrap_or(200);
    let sizes = std::env::var("SIZES").unwrap_or_else(|_| "2,10,100".to_owned());
    for size in sizes.split(',').map(|size| size.parse().expect("a number")) {
        let engines = std::env::var("ENGINES").unwrap_or_else(|_| "memory,sled,fjall".to_owned());
        for name in engines.split(',') {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let path = folder.path().join("engine");
            let engine: Arc<dyn Engine> = match name {
                "sled" => engine::open(EngineKind::Sled, &path).expect("sled opens"),
                "fjall" => engine::open(EngineKind::Fjall, &path).expect("fjall opens"),
                _ => Arc::new(MemoryEngine::new()),
            };
            run(name, folder.path(), engine, size, time, body);
        }
    }
}
