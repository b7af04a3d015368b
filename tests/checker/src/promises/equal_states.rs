//! Promise 13, as far as it shows from outside: equal applied index, equal state digest.
//!
//! *Diverged*: two nodes, or one at two times, show different digests at one index.

use std::collections::HashMap;

use crate::history::Answer;
use crate::index::Index;
use crate::report::Report;

const PROMISE: u8 = 13;

pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    let mut digests: HashMap<u64, (&str, u64, usize)> = HashMap::new();
    for call in &index.calls {
        let (Some(Answer::Status { applied, digest, .. }), Some(end)) = (call.answer, call.end)
        else {
            continue;
        };
        let (first, node, event) = *digests.entry(*applied).or_insert((digest, call.node, end));
        if first != digest {
            let what = || format!("nodes {node} and {} differ at index {applied}", call.node);
            report.add(PROMISE, "diverged", what, &[event, end]);
        }
    }
}
