//! Administrators' tokens whose signature was found right before.
//!
//! An application's back end shows the same token with each of thousands of requests a second, and
//! checking an Ed25519 signature takes longer than storing a message. Users' tokens are shown once a
//! connection, so they are not kept: nothing that a user does can push an administrator's token out.

use std::sync::Arc;

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::Claims;

/// Tokens kept, about; those that are seldom shown make room.
const MAX_KEPT: usize = 1_024;

/// A token's SHA-256: who reads the memory of a node finds no token there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(token: &str) -> Self {
        Self(Sha256::digest(token).into())
    }
}

/// The claims of checked tokens. What depends on the time is checked anew each time.
#[derive(Debug)]
pub(super) struct Checked(Cache<Fingerprint, Arc<Claims>>);

impl Default for Checked {
    fn default() -> Self {
        Self(Cache::new(MAX_KEPT))
    }
}

impl Checked {
    pub(super) fn get(&self, token: &Fingerprint) -> Option<Arc<Claims>> {
        self.0.get(token)
    }

    pub(super) fn keep(&self, token: Fingerprint, claims: Claims) {
        self.0.insert(token, Arc::new(claims));
    }
}
