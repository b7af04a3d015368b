//! What a Roost store *is*: its words, its commands, what they do, and where the bytes go.
//!
//! This crate is synchronous and knows no network, no clock, no randomness and no async runtime.
//! Time reaches it inside the commands, stamped by the leader; everything else is a pure function
//! of the log. Equal logs give equal states on every node.
//!
//! Read the modules in this order:
//!
//! 1. [`limits`]: every bound, by name;
//! 2. [`model`]: ids, records and the items of a queue;
//! 3. [`command`]: what can be asked of the store, what it answers, which effects it reports;
//! 4. [`codec`]: how all of it becomes versioned, checked bytes;
//! 5. [`fs`]: the file trait below the log, the journal and the snapshots, real and simulated;
//! 6. [`log`]: the durable, ordered Raft log;
//! 7. [`engine`]: the cold tier's engine trait and its implementations;
//! 8. `cold`: the cold tier: atomic checkpoints and snapshots over such an engine;
//! 9. [`store`]: the hot tier, `apply`, queries, checkpoints, snapshots.

pub mod limits;
pub mod model;
pub mod command;
pub mod codec;
pub mod background;
pub mod fs;
pub mod log;
pub mod engine;
pub(crate) mod cold;
pub mod store;

pub mod planted;

mod fault;

pub use fault::Fault;
