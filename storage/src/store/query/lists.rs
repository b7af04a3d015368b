//! Lists: a user's devices and conversations. The cold tier's part is scanned in the order of the
//! ids, and what the hot tier knows lies over it.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::View;
use super::queue::page;
use crate::Fault;
use crate::limits::{LAST_MESSAGE_LOOKBACK, MAX_DEVICES_PER_USER, MAX_PAGE};
use crate::model::{ConversationId, DeviceId, DeviceRecord, MembershipRecord, UserId};
use crate::store::lookup::Lookup;
use crate::store::{ConversationSummary, keys, records};

type Overlay = BTreeMap<ConversationId, Option<MembershipRecord>>;

impl View<'_> {
    /// All devices of a user, in the order of their ids.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn devices(&self, user: &UserId) -> Result<Vec<(DeviceId, DeviceRecord)>, Fault> {
        let mut devices: BTreeMap<DeviceId, DeviceRecord> = self.in_hot(|hot| {
            let oldest_first = hot.generations().rev();
            let entries = oldest_first.filter_map(|tier| tier.users.get(user));
            let devices = entries.flat_map(|entry| &entry.devices);
            devices.map(|(id, record)| (id.clone(), *record)).collect()
        });
        let start = keys::devices_of(user);
        let end = keys::after_prefix(start.clone());
        for (key, bytes) in self.cold.scan(&start, &end, MAX_DEVICES_PER_USER)? {
            let mut parts = keys::Parts::of(&key)?;
            parts.id::<UserId>()?;
            let record = records::record("a device", &bytes)?;
            devices.entry(parts.last_id()?).or_insert(record);
        }
        Ok(devices.into_iter().collect())
    }

    /// A device.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn device(&self, user: &UserId, device: &DeviceId) -> Result<Option<DeviceRecord>, Fault> {
        Lookup::device(self, user, device)
    }

    /// A user's conversations above `after` in the order of their ids, and whether there are more.
    ///
    /// # Errors
    /// A [`Fault`] of the cold tier.
    pub fn conversations(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        limit: usize,
        now_ms: u64,
    ) -> Result<(Vec<ConversationSummary>, bool), Fault> {
        let limit = usize::try_from(page(limit)).unwrap_or(MAX_PAGE);
        let mut memberships = self.memberships(user, after, limit + 1)?;
        let more = memberships.len() > limit;
        memberships.truncate(limit);
        let mut summaries = Vec::with_capacity(memberships.len());
        for (id, membership) in memberships {
            // A membership ends before its conversation is deleted, so one may vanish under us.
            let Some(record) = self.conversation(&id)? else { continue };
            let last = self.last_shown(&id, record.tail, LAST_MESSAGE_LOOKBACK, now_ms)?;
            let MembershipRecord { role, read, .. } = membership;
            summaries.push(ConversationSummary { id, record, role, read, last });
        }
        Ok((summaries, more))
    }

    /// The first `wanted` memberships above `after`.
    fn memberships(
        &self,
        user: &UserId,
        after: Option<&ConversationId>,
        wanted: usize,
    ) -> Result<Vec<(ConversationId, MembershipRecord)>, Fault> {
        let mut merged = self.in_hot(|hot| {
            let bounds = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            let oldest_first = hot.generations().rev();
            let entries = oldest_first.filter_map(|tier| Some((tier, tier.users.get(user)?)));
            let memberships = entries.flat_map(|(tier, entry)| {
                let slots = entry.memberships.range::<ConversationId, _>(bounds);
                slots.map(|(id, slot)| (id.clone(), tier.membership(*slot).cloned()))
            });
            memberships.collect::<Overlay>()
        });
        let prefix = keys::memberships_of(user);
        let end = keys::after_prefix(prefix.clone());
        let mut start = after.map_or(prefix, |after| keys::after(keys::membership(user, after)));
        loop {
            let pairs = self.cold.scan(&start, &end, wanted)?;
            let full = pairs.len() == wanted;
            let mut reached = None;
            for (key, bytes) in pairs {
                let mut parts = keys::Parts::of(&key)?;
                parts.id::<UserId>()?;
                let id: ConversationId = parts.last_id()?;
                reached = Some(id.clone());
                merged.entry(id).or_insert(Some(records::record("a membership", &bytes)?));
                start = keys::after(key);
            }
            // Beyond what was scanned, the overlay alone does not tell what comes first.
            let reached = reached.filter(|_| full);
            let known =
                merged.iter().filter(|(id, _)| reached.as_ref().is_none_or(|last| *id <= last));
            let live = known.filter_map(|(id, record)| Some((id.clone(), record.clone()?)));
            let live: Vec<_> = live.take(wanted).collect();
            if reached.is_none() || live.len() == wanted {
                return Ok(live);
            }
        }
    }
}
