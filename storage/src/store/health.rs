//! Whether the store still works, or stopped, and at what.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Fault;

/// The first fault, and whether somebody asked to stop.
#[derive(Debug, Default)]
pub(super) struct Health {
    fault: OnceLock<String>,
    stopped: AtomicBool,
}

impl Health {
    /// The first fault.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Refuses everything after a fault.
    pub(super) fn check(&self) -> Result<(), Fault> {
        match self.fault.get() {
            None => Ok(()),
            Some(first) => Err(Fault::Stopped(first.clone())),
        }
    }

    /// Refuses new entries after a fault or a stop.
    pub(super) fn check_serving(&self) -> Result<(), Fault> {
        self.check()?;
        if self.stopped.load(Ordering::Acquire) {
            return Err(Fault::Stopped("the store was asked to stop".to_owned()));
        }
        Ok(())
    }

    /// Notes a fault; the first one stays.
    pub(super) fn fail(&self, fault: &Fault) {
        if self.fault.set(fault.to_string()).is_ok() {
            tracing::error!(%fault, "the store stops");
        }
    }

    /// Notes that somebody asked to stop.
    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }
}
