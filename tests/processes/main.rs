//! What only real processes show: clusters of `roost serve` on this machine, killed and started
//! again, as a user's would be.
//!
//! One binary, so that the harness is compiled and linked once. Each test has its own cluster, and
//! only one cluster runs at a time.

mod harness;
mod trace;

mod refusals;
mod reconnect;
mod catch_up;
mod replay_chaos;
