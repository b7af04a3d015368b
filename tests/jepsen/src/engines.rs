//! The engines alone, on disks that lose their power: what they had said to be durable must be there
//! afterwards, in the version that they had said it of, or in one that was written later.
//!
//! The writer changes keys checkpoint by checkpoint as the cold tier does and says when each is
//! durable. What the reader finds is compared with that.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roost_storage::engine::{self, ChangeRef, Engine};

use crate::lives::{Part, Subject};
use crate::witness::END;

/// Keys that are written again and again, as cursors are; the others are new ones, as messages are.
const OLD_KEYS: u64 = 3_000;
/// Findings that are shown for each disk.
const SHOWN: usize = 5;

/// What the engine said, and so must keep.
#[derive(Default)]
pub(crate) struct Said {
    /// Of which checkpoint each key is, where it is.
    durable: BTreeMap<u64, u64>,
    /// The newest durable checkpoint; they begin at 1.
    number: u64,
    /// Whether the next one was begun.
    begun: bool,
}

impl Said {
    /// What is wrong with the keys that a reader found.
    fn breaches(&self, seed: u64, found: &BTreeMap<u64, u64>) -> Vec<String> {
        let under_way = match self.begun {
            true => checkpoint(seed, self.number + 1),
            false => BTreeMap::new(),
        };
        let newer = |key: u64| under_way.get(&key).map(|length| length.map(|_| self.number + 1));
        let keys =
            self.durable.keys().chain(found.keys().filter(|key| !self.durable.contains_key(key)));
        let mut breaches = Vec::new();
        for &key in keys {
            let (is, must) = (found.get(&key).copied(), self.durable.get(&key).copied());
            if is != must && newer(key) != Some(is) {
                breaches.push(format!("key {key} is of {is:?} and was durable of {must:?}"));
            }
        }
        breaches
    }
}

impl Subject for Said {
    const WRITER: &'static str = "engine-writer";
    const READER: &'static str = "engine-reader";

    fn next(&self) -> u64 {
        self.number + 1
    }

    fn hear(&mut self, seed: u64, said: &str) -> anyhow::Result<()> {
        for line in said.lines() {
            match line.split_once(' ').context("a writer says two words")? {
                ("begins", _) => self.begun = true,
                ("durable", number) => {
                    self.number = number.parse()?;
                    self.begun = false;
                    for (key, length) in checkpoint(seed, self.number) {
                        match length {
                            Some(_) => self.durable.insert(key, self.number),
                            None => self.durable.remove(&key),
                        };
                    }
                }
                _ => bail!("a writer said {line:?}"),
            }
        }
        Ok(())
    }

    fn judge(&mut self, seed: u64, read: &str) -> anyhow::Result<Option<String>> {
        let pair = |line: &str| {
            let (key, number) = line.split_once(' ').context("a reader says two numbers")?;
            anyhow::Ok((key.parse()?, number.parse()?))
        };
        let found = read.lines().map(pair).collect::<anyhow::Result<_>>()?;
        let breaches = self.breaches(seed, &found);
        let shown = breaches[..breaches.len().min(SHOWN)].join("; ");
        Ok((!breaches.is_empty()).then(|| format!("{} keys, {shown}", breaches.len())))
    }
}

/// What a checkpoint changes: a value's length, or `None` where the key goes.
fn checkpoint(seed: u64, number: u64) -> BTreeMap<u64, Option<usize>> {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000_003).wrapping_add(number));
    let mut changes = BTreeMap::new();
    for _ in 0..rng.random_range(50..600) {
        let length = match rng.random_range(0..100) {
            0 => rng.random_range(4_000..40_000),
            1..10 => rng.random_range(400..4_000),
            _ => rng.random_range(8..200),
        };
        changes.insert(rng.random_range(0..OLD_KEYS), rng.random_bool(0.95).then_some(length));
    }
    let new = OLD_KEYS + number * 1_000;
    changes.extend((new..new + rng.random_range(1..300)).map(|key| (key, Some(150))));
    changes
}

/// A value that says of which checkpoint it is.
fn value(number: u64, length: usize) -> Vec<u8> {
    number.to_be_bytes().iter().copied().cycle().take(length.max(8)).collect()
}

/// Writes checkpoints until it is killed or the engine fails, and says which are durable.
pub(crate) fn write(part: &Part) -> anyhow::Result<()> {
    let engine = open(part)?;
    let mut stdout = std::io::stdout().lock();
    for number in part.from.. {
        writeln!(stdout, "begins {number}")?;
        engine.write_sorted(&mut |sink| {
            for (key, length) in checkpoint(part.seed, number) {
                let key = key.to_be_bytes();
                match length {
                    Some(length) => sink(ChangeRef::Put(&key, &value(number, length)))?,
                    None => sink(ChangeRef::Delete(&key))?,
                }
            }
            Ok(())
        })?;
        engine.flush()?;
        writeln!(stdout, "durable {number}")?;
    }
    Ok(())
}

/// Says each key with the checkpoint that its value is of.
pub(crate) fn read(part: &Part) -> anyhow::Result<()> {
    let engine = open(part)?;
    let mut stdout = std::io::stdout().lock();
    for (key, value) in engine.scan(&[], &END, usize::MAX)? {
        let key = u64::from_be_bytes(key.as_slice().try_into().context("a key of another length")?);
        let number = value.get(..8).context("a value that is too short")?;
        let number = u64::from_be_bytes(number.try_into()?);
        if self::value(number, value.len()) != value {
            bail!("the value of key {key} is of several checkpoints");
        }
        writeln!(stdout, "{key} {number}")?;
    }
    Ok(())
}

fn open(part: &Part) -> anyhow::Result<Arc<dyn Engine>> {
    Ok(engine::open(part.engine, &part.folder)?)
}
