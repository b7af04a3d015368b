//! The nodes' clocks, moved while they run: `libfaketime` is loaded before the server and reads an
//! offset from a file. Only the time of day moves; what measures durations does not, as on a machine
//! whose clock was set.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Where Debian's `libfaketime` is, whatever the architecture.
fn library() -> anyhow::Result<PathBuf> {
    let found = fs::read_dir("/usr/lib")?
        .filter_map(Result::ok)
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists());
    found.context("libfaketime is not installed (Debian: apt-get install libfaketime)")
}

/// What the server's environment needs so that its clock follows a file.
pub(crate) fn environment(file: &Path) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    set(file, 0)?;
    Ok(vec![
        ("LD_PRELOAD", library()?),
        ("FAKETIME_TIMESTAMP_FILE", file.to_owned()),
        // How often it looks, in seconds.
        ("FAKETIME_CACHE_DURATION", "1".into()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ("DONT_FAKE_MONOTONIC", "1".into()),
    ])
}

/// Sets a clock that many milliseconds off; it takes a second to be seen.
pub(crate) fn set(file: &Path, offset_ms: i64) -> anyhow::Result<()> {
    // Under another name first: a half-written file must not be read.
    let draft = file.with_extension("draft");
    fs::write(&draft, format!("{:+}.{:03}\n", offset_ms / 1_000, offset_ms.abs() % 1_000))?;
    fs::rename(draft, file)?;
    Ok(())
}
