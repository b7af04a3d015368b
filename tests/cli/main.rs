//! The command line as a user types it, with real processes: what it prints, and how it ends.
//!
//! One binary, so that it is linked once. Clusters under faults are in `tests/processes`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking, and speak to who runs them"
)]

mod node;
mod process;

mod bench;
mod commands;
mod dev;
#[cfg(target_os = "linux")]
mod verify;
