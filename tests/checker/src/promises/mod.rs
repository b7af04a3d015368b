//! The promises, one file each.

mod atomic_fan_out;
mod bounds;
mod cursors;
mod density;
mod durable_ack;
mod equal_states;
mod idempotency;
mod identity;
mod lifetimes;
mod log_time;
mod membership;
mod no_phantom;
mod no_skip;
mod reads;
mod real_time_order;
mod references;

use crate::index::Index;
use crate::report::Report;

/// Checks them all.
pub(crate) fn check(index: &Index<'_>, report: &mut Report) {
    durable_ack::check(index, report);
    no_phantom::check(index, report);
    identity::check(index, report);
    density::check(index, report);
    idempotency::check(index, report);
    no_skip::check(index, report);
    reads::check(index, report);
    real_time_order::check(index, report);
    atomic_fan_out::check(index, report);
    references::check(index, report);
    log_time::check(index, report);
    lifetimes::check(index, report);
    cursors::check(index, report);
    equal_states::check(index, report);
    membership::check(index, report);
    bounds::check(index, report);
}
