//! What must hold at every step, seen from inside the nodes.
//!
//! - Promise 13: equal applied index, equal digest; and the same after a node was away.
//! - Promise 14: at most one leader a term; logs agree on what is committed, and a leader has all of
//!   it; purged ≤ checkpoint ≤ applied ≤ committed.
//! - Promise 16: a node that met a fault neither leads nor changes its vote.
//! - Promise 18: memory stays under its bounds.

use std::collections::BTreeMap;

use roost_storage::limits::MAX_ENTRY_BYTES;
use xxhash_rust::xxh3::xxh3_64;

use crate::net::Place;
use crate::node::{Node, Running};
use crate::plan::Plan;
use crate::trace::Trace;

/// Payload bytes that one look at a log reads.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Invariants {
    /// Applied index → digest.
    digests: BTreeMap<u64, u128>,
    /// Term → leader.
    leaders: BTreeMap<u64, Place>,
    /// Committed index → term and content.
    committed: BTreeMap<u64, (u64, u64)>,
    /// How far each node's log was compared, and its leadership checked, in this life.
    nodes: BTreeMap<Place, Looked>,
}

#[derive(Default)]
struct Looked {
    compared: u64,
    led: u64,
    applied: Option<u64>,
    vote_at_fault: Option<Option<Vec<u8>>>,
}

impl Invariants {
    /// A node begins a new life.
    pub(crate) fn started(&mut self, node: Place) {
        self.nodes.remove(&node);
    }

    /// Looks at a node after its turn.
    pub(crate) fn look(&mut self, node: &Node, plan: &Plan, trace: &Trace) {
        let Some(running) = &node.running else { return };
        if self.fail_stop(node.id, running, trace) {
            return;
        }
        if self.digest(node.id, running, trace) {
            bounds(node.id, running, plan, trace);
        }
        self.election(node.id, running, trace);
        self.log_matching(node.id, running, trace);
    }

    /// Whether the node has met a fault.
    fn fail_stop(&mut self, id: Place, running: &Running, trace: &Trace) -> bool {
        if running.cluster.fault().is_none() {
            return false;
        }
        let status = running.cluster.status();
        if status.role == "leader" {
            trace.violate("fail-stop", format!("node {id} leads after a fault"));
        }
        let vote = running.log.state().vote.map(|vote| vote.to_vec());
        let looked = self.nodes.entry(id).or_default();
        match &looked.vote_at_fault {
            None => looked.vote_at_fault = Some(vote),
            Some(before) if *before != vote => {
                trace.violate("fail-stop", format!("node {id} votes after a fault"));
            }
            Some(_) => {}
        }
        true
    }

    /// Whether the node has applied anything since the last look.
    fn digest(&mut self, id: Place, running: &Running, trace: &Trace) -> bool {
        let (Some(position), digest) = running.store.digest() else { return false };
        let looked = self.nodes.entry(id).or_default();
        if looked.applied == Some(position.index) {
            return false;
        }
        if looked.applied.is_some_and(|applied| applied > position.index) {
            trace.violate("equal states", format!("node {id} went back to {}", position.index));
        }
        looked.applied = Some(position.index);
        let known = *self.digests.entry(position.index).or_insert(digest.0);
        if known != digest.0 {
            let what =
                format!("node {id} at index {} has another state than others", position.index);
            trace.violate("equal states", what);
        }
        true
    }

    fn election(&mut self, id: Place, running: &Running, trace: &Trace) {
        let status = running.cluster.status();
        if status.role == "leader" {
            let leader = *self.leaders.entry(status.term).or_insert_with(|| {
                trace.line(&format!("node {id} leads term {}", status.term));
                id
            });
            if leader != id {
                let what = format!("nodes {leader} and {id} lead term {}", status.term);
                trace.violate("election safety", what);
            }
            self.leader_completeness(id, status.term, running, trace);
        }
        self.log_order(id, running, trace);
    }

    /// Purged ≤ checkpoint ≤ applied ≤ last in the log, where there is one.
    fn log_order(&self, id: Place, running: &Running, trace: &Trace) {
        let state = running.log.state();
        let checkpoint = running.store.checkpoint_state().applied;
        let applied = running.store.applied_state().applied;
        if state.purged <= checkpoint && checkpoint <= applied && applied <= state.last {
            return;
        }
        let what = format!(
            "node {id}: purged {:?}, checkpoint {checkpoint:?}, applied {applied:?}, last {:?}",
            state.purged, state.last
        );
        trace.violate("log order", what);
    }

    /// A new leader's log has all that was committed before its term.
    fn leader_completeness(&mut self, id: Place, term: u64, running: &Running, trace: &Trace) {
        let looked = self.nodes.entry(id).or_default();
        if looked.led == term {
            return;
        }
        looked.led = term;
        let state = running.log.state();
        let newest = self.committed.iter().rev().find(|(_, (of, _))| *of < term);
        let Some((&index, _)) = newest else { return };
        if state.last.is_none_or(|last| last.index < index) {
            let what = format!("node {id} leads term {term} without entry {index}");
            trace.violate("leader completeness", what);
        }
    }

    /// What a node has committed is what everybody has committed.
    fn log_matching(&mut self, id: Place, running: &Running, trace: &Trace) {
        let Some(applied) = running.store.applied_state().applied else { return };
        let applied = applied.index;
        let looked = self.nodes.entry(id).or_default();
        if looked.compared > applied {
            return;
        }
        let Ok(entries) = running.log.read(looked.compared, applied + 1, READ_BYTES) else {
            return;
        };
        for entry in entries {
            let index = entry.position.index;
            let this = (entry.position.term, xxh3_64(&entry.payload));
            let known = *self.committed.entry(index).or_insert(this);
            if known != this {
                let what = format!("node {id} applied another entry {index} than others");
                trace.violate("log matching", what);
            }
            looked.compared = index + 1;
        }
        if running.log.state().purged.is_some_and(|purged| purged.index >= looked.compared) {
            looked.compared = applied + 1;
        }
    }
}

fn bounds(id: Place, running: &Running, plan: &Plan, trace: &Trace) {
    let dirty = running.store.tier_stats().dirty_bytes;
    if dirty > plan.dirty_bytes + MAX_ENTRY_BYTES {
        trace.violate("bounds", format!("node {id} has {dirty} dirty bytes"));
    }
}
