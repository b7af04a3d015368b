//! The store alone, on disks that lose their power: after each life it must stand where a store that
//! never failed stands.
//!
//! Entries follow from the seed and their index, as a log would give them again. The writer applies
//! them from where the store stands, checkpoints under pressure on a thread of its own, as a node does,
//! and now and then puts a snapshot of itself in the place of its state. The reader counts everything
//! anew (`StoreOptions::verify`) and says digest and index, which are compared with those of a store in
//! memory. What the engine was told and what it holds (`witness`) says whose fault it is.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, bail};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roost_storage::command::{Actor, Attempt, Batch, Command, Target};
use roost_storage::engine;
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::Disk;
use roost_storage::fs::real::RealDisk;
use roost_storage::fs::sim::SimDisk;
use roost_storage::model::{
    ConversationId, ConversationKind, DeviceId, DeviceKind, LogPosition, Retention, UserId,
};
use roost_storage::store::{AppliedState, Payload, Store, StoreOptions};
use roost_storage::{Fault, codec};

use crate::lives::{Part, Subject};
use crate::witness::{Held, Witnessed};

/// Little, so that checkpoints are many.
const DIRTY_BYTES: usize = 256 * 1024;
/// Entries, on average, between two snapshots.
const SNAPSHOT_EVERY: u32 = 3_000;
/// Lost keys that are shown for each disk.
const SHOWN: usize = 3;
/// The reader has told what is in the engine, and opens the store.
const LOOKED_AT: &str = "looked at\n";
/// The store's folder on the disk.
const DIR: &str = "state";
/// The store's time between two entries, so that the dedup window moves on in a life.
const ENTRY_MS: u64 = 60_000;

/// What the store said to be durable, and a store beside it that never fails.
pub(crate) struct Said {
    engine: Held,
    /// Entries that are durable: their indexes are below this.
    durable: u64,
    /// Where the store stood when it was read, and its digest; or why it was not.
    stands: Result<(u64, String), String>,
    reference: Store,
    /// The reference's digest after each entry.
    digests: Vec<String>,
}

impl Default for Said {
    fn default() -> Self {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let options = StoreOptions { inline_checkpoints: true, ..StoreOptions::default() };
        let reference = Store::open(disk, Path::new(DIR), Arc::new(MemoryEngine::new()), options);
        let reference = reference.expect("an empty store in memory opens");
        let stands = Err("it was never read".to_owned());
        Self { engine: Held::default(), durable: 0, stands, reference, digests: Vec::new() }
    }
}

impl Said {
    /// The digest that a store has after so many entries.
    fn due(&mut self, seed: u64, entries: u64) -> anyhow::Result<Option<&str>> {
        while (self.digests.len() as u64) < entries {
            apply(&self.reference, seed, self.digests.len() as u64)?;
            self.digests.push(self.reference.digest().1.to_string());
        }
        Ok(entries.checked_sub(1).map(|last| self.digests[last as usize].as_str()))
    }
}

impl Subject for Said {
    const WRITER: &'static str = "store-writer";
    const READER: &'static str = "store-reader";

    fn next(&self) -> u64 {
        self.durable
    }

    fn hear(&mut self, _seed: u64, said: &str) -> anyhow::Result<()> {
        for line in said.lines() {
            match line.split_once(' ') {
                Some(("durable", entries)) => self.durable = entries.parse()?,
                Some(("refused", why)) => self.stands = Err(why.to_owned()),
                Some(("stands", place)) => {
                    let (entries, digest) =
                        place.split_once(' ').context("a place is two words")?;
                    self.stands = Ok((entries.parse()?, digest.to_owned()));
                }
                _ if self.engine.hear(line)? => {}
                _ => bail!("a store's process said {line:?}"),
            }
        }
        Ok(())
    }

    fn judge(&mut self, seed: u64, read: &str) -> anyhow::Result<Option<String>> {
        let (before, after) = read.split_at(read.find(LOOKED_AT).context("it is looked at")?);
        self.hear(seed, before)?;
        let mut lost = self.engine.lost();
        // The store's recovery writes to the engine, which then must hold that as well.
        self.hear(seed, &after[LOOKED_AT.len()..])?;
        lost.extend(self.engine.lost());
        let shown = lost[..lost.len().min(SHOWN)].join(", ");
        let whose = match lost.len() {
            0 => "the engine holds all that it said to be durable".to_owned(),
            lost => format!("the engine lost {lost} keys ({shown})"),
        };
        let wrong = match self.stands.clone() {
            Err(why) => format!("refused: {why}"),
            Ok((entries, _)) if entries < self.durable => {
                format!("{entries} entries are left of {}", self.durable)
            }
            Ok((entries, digest)) => match self.due(seed, entries)? {
                Some(due) if due != digest => {
                    format!("after {entries} entries the state is {digest}, not {due}")
                }
                _ if lost.is_empty() => return Ok(None),
                _ => "the store stands where it should, by its journal or by luck".to_owned(),
            },
        };
        Ok(Some(format!("{whose}; {wrong}")))
    }
}

/// Applies and checkpoints until it is killed or fails; says how many entries are durable.
pub(crate) fn write(part: &Part) -> anyhow::Result<()> {
    let store = Arc::new(open(part, engine(part)?)?);
    // A snapshot must not take back a checkpoint that was made after it.
    let alone = Arc::new(Mutex::new(()));
    let (checkpointed, alone_too) = (store.clone(), alone.clone());
    let checkpoints = thread::spawn(move || -> anyhow::Result<()> {
        while checkpointed.wait_for_pressure() {
            let _alone = alone_too.lock();
            let durable = entries(&checkpointed.checkpoint()?);
            writeln!(std::io::stdout().lock(), "durable {durable}")?;
        }
        Ok(())
    });
    let failed = applies(part, &store, &alone).err();
    store.stop();
    if let Ok(Err(fault)) = checkpoints.join() {
        return Err(fault);
    }
    failed.map_or(Ok(()), Err)
}

fn applies(part: &Part, store: &Store, alone: &Mutex<()>) -> anyhow::Result<()> {
    loop {
        let next = entries(&store.applied_state());
        apply(store, part.seed, next)?;
        if chance(part.seed, next).random_ratio(1, SNAPSHOT_EVERY) {
            let _alone = alone.lock();
            let exported = part.folder.join(store.export_snapshot()?.path);
            let incoming = store.incoming_snapshot_path();
            fs::copy(exported, part.folder.join(&incoming))?;
            store.import_snapshot(&incoming)?;
        }
    }
}

/// Says what the engine holds, then counts everything anew and says where the store stands, and what the
/// engine holds since.
pub(crate) fn read(part: &Part) -> anyhow::Result<()> {
    let engine = engine(part)?;
    engine.tell()?;
    write!(std::io::stdout().lock(), "{LOOKED_AT}")?;
    let said = match open(part, engine.clone()) {
        Ok(store) => format!("stands {} {}", entries(&store.applied_state()), store.digest().1),
        Err(why) => format!("refused {why}"),
    };
    writeln!(std::io::stdout().lock(), "{said}")?;
    engine.tell()?;
    Ok(())
}

fn engine(part: &Part) -> Result<Witnessed, Fault> {
    engine::open(part.engine, &part.folder.join("engine")).map(Witnessed)
}

fn open(part: &Part, engine: Witnessed) -> Result<Store, Fault> {
    let disk =
        RealDisk::open(part.folder.clone()).map_err(|error| Fault::io("open the folder", error))?;
    let options =
        StoreOptions { dirty_bytes: DIRTY_BYTES, verify: true, ..StoreOptions::default() };
    Store::open(Arc::new(disk), Path::new(DIR), Arc::new(engine), options)
}

/// How many entries a state has taken in: the index of the one that comes next.
fn entries(state: &AppliedState) -> u64 {
    state.applied.map_or(0, |position| position.index + 1)
}

fn apply(store: &Store, seed: u64, index: u64) -> anyhow::Result<()> {
    let entry = codec::encode_batch(&entry(seed, index))?;
    store.apply(LogPosition { term: 1, index }, Payload::Batch(&entry))?;
    Ok(())
}

/// The chance that an entry's making depends on.
fn chance(seed: u64, index: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(index))
}

fn entry(seed: u64, index: u64) -> Batch {
    let mut rng = chance(seed, index);
    let commands = (0..rng.random_range(1..8)).map(|place| match rng.random_range(0..20) {
        // Asked for again by a client that had no answer.
        0 => command(seed, index.saturating_sub(rng.random_range(1..2_000)), place, 2),
        _ => command(seed, index, place, 1),
    });
    Batch { commands: commands.collect(), at_ms: (index + 1) * ENTRY_MS }
}

/// A command that an entry holds in its place, or one that could be there.
fn command(seed: u64, index: u64, place: u64, attempt: u64) -> Command {
    let mut rng = chance(seed ^ (place + 1).rotate_left(40), index);
    let attempt = Attempt(attempt);
    let client_id = id(&format!("{index}-{place}"));
    match rng.random_range(0..100) {
        0..60 => Command::Send {
            sender: user(&mut rng),
            target: match rng.random_bool(0.8) {
                true => Target::Conversation(conversation(&mut rng)),
                false => Target::User(user(&mut rng)),
            },
            client_id,
            attempt,
            body: vec![place as u8; body_bytes(&mut rng)].into(),
            content_type: None,
            ttl_ms: rng.random_bool(0.1).then_some(3 * ENTRY_MS),
        },
        60..65 => Command::CreateConversation {
            owner: user(&mut rng),
            kind: ConversationKind::Group,
            members: users(&mut rng, 50),
            name: None,
            retention: Retention::Forever,
            client_id,
            attempt,
        },
        65..68 => Command::AddMembers {
            actor: Actor::Admin,
            conversation: conversation(&mut rng),
            members: users(&mut rng, 10),
        },
        68..70 => Command::RemoveMembers {
            actor: Actor::Admin,
            conversation: conversation(&mut rng),
            members: users(&mut rng, 5),
        },
        70..72 => Command::Leave { user: user(&mut rng), conversation: conversation(&mut rng) },
        72 => Command::DeleteConversation { conversation: conversation(&mut rng) },
        73..78 => Command::RegisterDevice {
            user: user(&mut rng),
            device: device(&mut rng),
            kind: DeviceKind::Web,
        },
        _ => Command::Acknowledge {
            user: user(&mut rng),
            device: device(&mut rng),
            // Nothing is refused because it is below the cursor; above the tail it is.
            seq: rng.random_range(0..=index),
        },
    }
}

/// Mostly what people write, now and then more than an engine keeps beside its keys.
fn body_bytes(rng: &mut StdRng) -> usize {
    match rng.random_range(0..50) {
        0 => rng.random_range(4_000..40_000),
        _ => rng.random_range(5..300),
    }
}

fn user(rng: &mut StdRng) -> UserId {
    id(&format!("u{}", rng.random_range(0..80)))
}

fn users(rng: &mut StdRng, most: usize) -> Vec<UserId> {
    (0..rng.random_range(1..most)).map(|_| user(rng)).collect()
}

fn device(rng: &mut StdRng) -> DeviceId {
    id(&format!("d{}", rng.random_range(0..3)))
}

/// One of the first groups that were made, or of those that may be.
fn conversation(rng: &mut StdRng) -> ConversationId {
    id(&format!("g-0-{:x}", rng.random_range(1..60)))
}

fn id<T: std::str::FromStr>(text: &str) -> T {
    text.parse().ok().expect("a short id of plain letters")
}
