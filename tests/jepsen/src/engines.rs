//! The engines alone, on disks that lose their power: what they had said to be durable must be there
//! afterwards, in the version that they had said it of, or in one that was written later.
//!
//! A writer, a process of its own, changes keys checkpoint by checkpoint as the cold tier does and
//! says when each is durable. It is killed, its disk may have been full for a moment, the power goes,
//! and a reader opens what is left. What is read is compared with what was said.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitCode, Output, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roost_storage::engine::{ChangeRef, Engine, EngineKind};

use crate::disk::LossyDisk;
use crate::sandbox;

/// Keys that are written again and again, as cursors are; the others are new ones, as messages are.
const OLD_KEYS: u64 = 3_000;
/// Beyond every key.
const END: [u8; 1] = [0xff];
/// How often each disk's power goes, or its writer dies.
const LIVES: u64 = 12;
/// Findings that are shown for each disk.
const SHOWN: usize = 5;

/// The engines' test.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// The engine
    #[arg(long, default_value = "fjall")]
    engine: EngineKind,
    /// How many disks
    #[arg(long, default_value_t = 20)]
    disks: u64,
    /// Where chance begins
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Never fill the disk before the power goes
    #[arg(long)]
    roomy: bool,
}

/// A writer's or reader's part.
#[derive(Debug, Clone, Args)]
pub(crate) struct Part {
    engine: EngineKind,
    folder: PathBuf,
    seed: u64,
    /// The checkpoint to begin with; the last one again, as from a journal.
    from: u64,
}

/// What the engine said, and so must keep.
#[derive(Default)]
struct Said {
    /// Of which checkpoint each key is, where it is.
    durable: BTreeMap<u64, u64>,
    /// The newest durable checkpoint; they begin at 1.
    number: u64,
    /// Whether the next one was begun.
    begun: bool,
}

impl Said {
    /// Takes in what a writer said.
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

/// Takes the power away, round by round.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let mut stdout = std::io::stdout();
    let mut lost = 0;
    for round in 0..options.disks {
        let seed = options.seed + round;
        let folder = sandbox::scratch().join(format!("engine-{seed}"));
        fs::create_dir_all(&folder)?;
        let disk = LossyDisk::mount(&folder).context("cannot mount a disk (FUSE)")?;
        let found = lives(options, seed, &folder, &disk)?;
        lost += u64::from(found.is_some());
        let verdict = found.unwrap_or_else(|| "kept everything".to_owned());
        writeln!(stdout, "{} seed {seed}: {verdict}", options.engine)?;
    }
    writeln!(stdout, "{}: {lost} of {} disks lost something", options.engine, options.disks)?;
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Several lives of one disk; what it lost, if it did.
fn lives(
    options: &Options,
    seed: u64,
    folder: &Path,
    disk: &LossyDisk,
) -> anyhow::Result<Option<String>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut said = Said::default();
    for life in 1..=LIVES {
        let mut faults = Vec::new();
        let from = said.number + 1;
        let spawn = |verb| part(verb, options.engine, folder, seed, from);
        let mut writer = spawn("engine-writer")?;
        sleep(Duration::from_millis(rng.random_range(100..1_500)));
        if !options.roomy && rng.random_bool(0.4) {
            disk.fill(rng.random_range(0..400_000));
            faults.push("full");
            sleep(Duration::from_millis(rng.random_range(0..600)));
        }
        // A full disk may have ended it already.
        let _ = writer.kill();
        let output = writer.wait_with_output()?;
        disk.mend();
        if rng.random_bool(0.8) {
            disk.lose_power(&mut rng);
            faults.push("power lost");
        }
        said.hear(seed, &String::from_utf8(output.stdout)?)?;
        let output = spawn("engine-reader")?.wait_with_output()?;
        let when = format!("life {life} ({}), checkpoint {}", faults.join(", then "), said.number);
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Ok(Some(format!("{when}: does not open ({}): {}", output.status, why.trim())));
        }
        let breaches = said.breaches(seed, &keys(&output)?);
        if !breaches.is_empty() {
            let shown = breaches[..breaches.len().min(SHOWN)].join("; ");
            return Ok(Some(format!("{when}: {} keys, {shown}", breaches.len())));
        }
    }
    Ok(None)
}

/// Starts this program in another part.
fn part(
    verb: &str,
    engine: EngineKind,
    folder: &Path,
    seed: u64,
    from: u64,
) -> anyhow::Result<Child> {
    Process::new(std::env::current_exe()?)
        .args([verb, engine.as_str()])
        .arg(folder)
        .args([seed.to_string(), from.to_string()])
        .env("RUST_BACKTRACE", "0")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start this program again")
}

/// What a reader said.
fn keys(output: &Output) -> anyhow::Result<BTreeMap<u64, u64>> {
    let said = std::str::from_utf8(&output.stdout)?;
    let pair = |line: &str| {
        let (key, number) = line.split_once(' ').context("a reader says two numbers")?;
        Ok((key.parse()?, number.parse()?))
    };
    said.lines().map(pair).collect()
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
    Ok(roost_storage::engine::open(part.engine, &part.folder)?)
}
