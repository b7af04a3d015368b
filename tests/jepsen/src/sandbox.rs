//! Namespaces of this run's own, so that nothing of it outlives it.
//!
//! The run executes itself again under `unshare`, as the first process of a process namespace, with
//! a network and a mount namespace of its own. When that process ends, however it ends, the kernel
//! kills every node with it, and networks, mounts and bridges go with their last process. The
//! keeper outside is `unshare` itself, whose death kills the first process inside.
//!
//! What is left of a killed run is a scratch folder, named by the number of its keeper. Whoever
//! starts next removes those whose keeper is gone.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// Set inside; holds the scratch folder.
const INSIDE: &str = "ROOST_JEPSEN_SCRATCH";
/// The scratch folders' names begin so.
const PREFIX: &str = "roost-jepsen-";

/// Whether this process is in its sandbox.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// The run's scratch folder.
///
/// # Panics
/// Outside the sandbox.
pub(crate) fn scratch() -> PathBuf {
    PathBuf::from(std::env::var_os(INSIDE).expect("the sandbox names its scratch folder"))
}

/// Becomes the sandbox's keeper; returns only if that fails.
pub(crate) fn enter(binary: PathBuf) -> anyhow::Error {
    match prepare() {
        Ok((scratch, own)) => {
            let failed = Command::new("unshare")
                .args(["--net", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"])
                .args(["--propagation", "private", "--"])
                .arg(own)
                .args(std::env::args_os().skip(1))
                .env(INSIDE, scratch)
                .env("ROOST_JEPSEN_BINARY", binary)
                .exec();
            anyhow::Error::new(failed).context("cannot run unshare (util-linux)")
        }
        Err(error) => error,
    }
}

fn prepare() -> anyhow::Result<(PathBuf, PathBuf)> {
    if !rustix::process::geteuid().is_root() {
        anyhow::bail!("namespaces, mounts and nftables need root");
    }
    clean()?;
    let scratch = std::env::temp_dir().join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir_all(&scratch).with_context(|| format!("cannot make {}", scratch.display()))?;
    Ok((scratch, std::env::current_exe()?))
}

/// Removes the scratch folders whose keeper is gone.
pub(crate) fn clean() -> io::Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(keeper) = name.strip_prefix(PREFIX) else { continue };
        if keeper.parse::<u32>().is_ok_and(|keeper| !is_keeper(keeper)) {
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Whether a process of this number is there and keeps a sandbox.
fn is_keeper(number: u32) -> bool {
    let command = fs::read(Path::new("/proc").join(number.to_string()).join("cmdline"));
    command.is_ok_and(|command| command.starts_with(b"unshare\0"))
}
