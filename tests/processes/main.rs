//! What only real processes show: clusters of `roost serve` on this machine, killed and started
//! again, as a user's would be.
//!
//! One binary, so that the harness is compiled and linked once. Each test has its own cluster, and
//! only one cluster runs at a time.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "helpers of tests fail by panicking, and speak to who runs them"
)]

mod harness;
mod trace;

mod refusals;
mod reconnect;
mod catch_up;
mod replay_chaos;
