//! The replicated log: openraft over Roost's own log and store.
//!
//! This is the only crate that names openraft. Below it are [`roost_storage::log::Log`] (durable,
//! ordered) and [`roost_storage::store::Store`] (what the entries mean); above it, a
//! [`PeerTransport`] carries opaque bytes between nodes, and a [`Replica`] is the handle through
//! which a node proposes, reads and reports.
//!
//! What it promises:
//! - an accepted proposal is on a majority of disks, fsynced, and applied here ([`Replica::propose`]);
//! - a read index covers everything acknowledged before it was asked for ([`Replica::read_index`]);
//! - Pre-Vote is on, a restarted leader stands for election again, a node that met a
//!   [`Fault`](roost_storage::Fault) neither votes nor leads.
//!
//! Modules, in reading order: [`types`] (what openraft is told about us), [`log_store`] and
//! [`state_machine`] (its storage traits), [`host`] (the clock, and where to wait for the disk), [`wire`]
//! (peer messages as bytes), `patience` (when to wait for more), [`network`] (sending them), [`snapshot`] (moving a whole state),
//! [`checkpoints`] (when the store writes itself down and the log is purged), `stopper` (faults that
//! openraft does not meet), [`replica`] (the handle).

pub mod types;

pub mod log_store;
pub mod state_machine;
pub mod host;

pub mod wire;

mod patience;
mod purge;

pub mod network;
pub mod snapshot;

pub mod checkpoints;
mod stopper;

pub mod replica;

pub use network::{PeerTransport, TransportError};
pub use patience::Patience;
pub use replica::{ProposeError, Proposed, Replica, ReplicaOptions, ReplicaStatus, Role};
pub use types::{MemberNode, NodeId};
