//! Looking up one record: the newest generation that knows it says what it is, else what
//! left them lately ([`Recent`]), else the cold tier.
//!
//! The apply path and the queries share these lookups and differ in how they hold the hot tier:
//! see [`Lookup::in_hot`]. Nobody who looks up holds back others while the cold tier is read.
//!
//! A query asks the cold tier after it let go of the hot one. What the hot tier did not know then
//! was in the cold tier already, so the answer is that of the moment of the first look, or newer.

use std::sync::Arc;

use super::hot::Hot;
use super::recent::Recent;
use super::{keys, records};
use crate::Fault;
use crate::cold::Cold;
use crate::model::{
    ConversationId, ConversationRecord, DeviceId, DeviceRecord, Members, MembershipRecord, UserId,
    UserRecord,
};

/// Reads single records from all tiers.
pub(super) trait Lookup {
    /// Looks at the hot tier, for as short as possible.
    fn in_hot<T>(&self, look: impl FnOnce(&Hot) -> T) -> T;

    /// What left the hot tier lately.
    fn recent(&self) -> &Recent;

    /// The cold tier.
    fn cold(&self) -> &Cold;

    /// A conversation, also a deleted one.
    fn conversation(&self, id: &ConversationId) -> Result<Option<ConversationRecord>, Fault> {
        let known =
            self.in_hot(|hot| hot.find(|tier| Some(tier.conversations.get(id)?.record.clone())));
        match known.or_else(|| self.recent().conversation(id)) {
            Some(record) => Ok(Some(record)),
            None => stored(self.cold(), "a conversation", &keys::conversation(id)),
        }
    }

    /// A conversation's members; empty if it has none.
    fn members(&self, id: &ConversationId) -> Result<Arc<Members>, Fault> {
        let known = self.in_hot(|hot| hot.find(|tier| tier.conversations.get(id)?.members.clone()));
        match known.or_else(|| self.recent().members(id)) {
            Some(members) => Ok(members),
            None => {
                let members = stored(self.cold(), "a conversation's members", &keys::members(id))?;
                Ok(Arc::new(members.unwrap_or_default()))
            }
        }
    }

    /// A user's record; `None` for one that was never named.
    fn user(&self, id: &UserId) -> Result<Option<UserRecord>, Fault> {
        let known = self.in_hot(|hot| hot.find(|tier| Some(tier.users.get(id)?.record)));
        match known.or_else(|| self.recent().user(id)) {
            Some(record) => Ok(Some(record)),
            None => stored(self.cold(), "a user", &keys::user(id)),
        }
    }

    /// A user's membership.
    fn membership(
        &self,
        user: &UserId,
        conversation: &ConversationId,
    ) -> Result<Option<MembershipRecord>, Fault> {
        let known = self.in_hot(|hot| {
            hot.find(|tier| {
                let slot = tier.users.get(user)?.memberships.get(conversation)?;
                Some(tier.membership(*slot).cloned())
            })
        });
        match known.or_else(|| self.recent().membership(user, conversation).map(Some)) {
            Some(record) => Ok(record),
            None => stored(self.cold(), "a membership", &keys::membership(user, conversation)),
        }
    }

    /// A user's device.
    fn device(&self, user: &UserId, device: &DeviceId) -> Result<Option<DeviceRecord>, Fault> {
        let known =
            self.in_hot(|hot| hot.find(|tier| tier.users.get(user)?.devices.get(device).copied()));
        match known {
            Some(record) => Ok(Some(record)),
            None => stored(self.cold(), "a device", &keys::device(user, device)),
        }
    }
}

/// A record of the cold tier.
pub(super) fn stored<T: serde::de::DeserializeOwned>(
    cold: &Cold,
    what: &str,
    key: &[u8],
) -> Result<Option<T>, Fault> {
    cold.get(key)?.map(|bytes| records::record(what, &bytes)).transpose()
}
