//! Lives of a disk: a writer works on it until it is killed, the disk may have been full for a moment,
//! the power goes, and a reader opens what is left.
//!
//! Both are processes of their own, of this program. What they say on their standard output is judged
//! by the subject of the test: an engine alone (`engines`), or a whole store (`stores`).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use roost_storage::engine::EngineKind;

use crate::disk::LossyDisk;
use crate::sandbox;

/// How often each disk's power goes, or its writer dies.
const LIVES: u64 = 12;
/// How long a reader may take; sled's may wait for ever for a thread that has panicked.
const PATIENCE: Duration = Duration::from_secs(60);

/// Disks and what befalls them.
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
    pub(crate) engine: EngineKind,
    pub(crate) folder: PathBuf,
    pub(crate) seed: u64,
    /// Where the writer begins.
    pub(crate) from: u64,
}

/// What is on the disk, as far as its writers have said.
pub(crate) trait Subject: Default {
    /// The writer's subcommand: writes until it is killed, or fails.
    const WRITER: &'static str;
    /// The reader's subcommand: opens what is left and says what it found.
    const READER: &'static str;

    /// Where the next writer begins.
    fn next(&self) -> u64;

    /// Takes in what a writer said.
    fn hear(&mut self, seed: u64, said: &str) -> anyhow::Result<()>;

    /// What is wrong with what a reader found, if anything is.
    fn judge(&mut self, seed: u64, read: &str) -> anyhow::Result<Option<String>>;
}

/// Takes the power away, disk by disk.
pub(crate) fn run<S: Subject>(options: &Options) -> anyhow::Result<ExitCode> {
    let mut stdout = std::io::stdout();
    let mut lost = 0;
    for round in 0..options.disks {
        let seed = options.seed + round;
        let folder = sandbox::scratch().join(format!("disk-{seed}"));
        fs::create_dir_all(&folder)?;
        let disk = LossyDisk::mount(&folder).context("cannot mount a disk (FUSE)")?;
        let found = lives::<S>(options, seed, &folder, &disk)?;
        lost += u64::from(found.is_some());
        let verdict = found.unwrap_or_else(|| "kept everything".to_owned());
        writeln!(stdout, "{} seed {seed}: {verdict}", options.engine)?;
    }
    writeln!(stdout, "{}: {lost} of {} disks lost something", options.engine, options.disks)?;
    Ok(if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Several lives of one disk; what it lost, if it did.
fn lives<S: Subject>(
    options: &Options,
    seed: u64,
    folder: &Path,
    disk: &LossyDisk,
) -> anyhow::Result<Option<String>> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut subject = S::default();
    let said = folder.with_extension("said");
    for life in 1..=LIVES {
        let mut faults = Vec::new();
        let from = subject.next();
        let spawn = |verb, said: &Path| part(verb, options.engine, folder, seed, from, said);
        let mut writer = spawn(S::WRITER, &said)?;
        sleep(Duration::from_millis(rng.random_range(100..1_500)));
        if !options.roomy && rng.random_bool(0.4) {
            disk.fill(rng.random_range(0..400_000));
            faults.push("full");
            sleep(Duration::from_millis(rng.random_range(0..600)));
        }
        // A full disk may have ended it already.
        let _ = writer.kill();
        writer.wait()?;
        disk.mend();
        if rng.random_bool(0.8) {
            disk.lose_power(&mut rng);
            faults.push("power lost");
        }
        subject.hear(seed, &fs::read_to_string(&said)?)?;
        let mut reader = spawn(S::READER, &said)?;
        let hangs = !has_ended(&mut reader)?;
        let output = reader.wait_with_output()?;
        let before = subject.next();
        let when = format!("life {life} ({}), before {before}", faults.join(", then "));
        if hangs {
            return Ok(Some(format!("{when}: opening it never ends")));
        }
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Ok(Some(format!("{when}: does not open ({}): {}", output.status, why.trim())));
        }
        if let Some(wrong) = subject.judge(seed, &fs::read_to_string(&said)?)? {
            return Ok(Some(format!("{when}: {wrong}")));
        }
    }
    Ok(None)
}

/// Waits until a process ends, and kills one that does not.
fn has_ended(process: &mut Child) -> anyhow::Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if process.try_wait()?.is_some() {
            return Ok(true);
        }
        sleep(Duration::from_millis(5));
    }
    process.kill()?;
    Ok(false)
}

/// Starts this program in another part; what it says goes into a file, which never fills up.
fn part(
    verb: &str,
    engine: EngineKind,
    folder: &Path,
    seed: u64,
    from: u64,
    said: &Path,
) -> anyhow::Result<Child> {
    Process::new(std::env::current_exe()?)
        .args([verb, engine.as_str()])
        .arg(folder)
        .args([seed.to_string(), from.to_string()])
        .env("RUST_BACKTRACE", "0")
        .stdout(File::create(said)?)
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start this program again")
}
