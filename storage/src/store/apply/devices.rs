//! Devices and their cursors.

use crate::command::{Effect, Rejection, Reply};
use crate::limits::MAX_DEVICES_PER_USER;
use crate::model::{DeviceId, DeviceKind, DeviceRecord, UserId};
use crate::store::lookup::Lookup;
use crate::store::tx::{Refusal, Tx};

pub(super) fn register(
    tx: &mut Tx<'_>,
    user: &UserId,
    device: &DeviceId,
    kind: DeviceKind,
) -> Result<Reply, Refusal> {
    let old = tx.device(user, device)?;
    let devices = tx.user(user)?.map_or(0, |record| record.devices);
    if old.is_none() && devices as usize >= MAX_DEVICES_PER_USER {
        let reason = format!("a user has at most {MAX_DEVICES_PER_USER} devices");
        return Err(Rejection::TooLarge(reason).into());
    }
    let new = match old {
        Some(old) => DeviceRecord { kind, ..old },
        None => DeviceRecord { kind, cursor: 0, registered_at_ms: tx.now_ms() },
    };
    if old != Some(new) {
        let place = tx.user_slot(user)?;
        tx.write(|to| to.set_device(place, device, old, new));
    }
    Ok(Reply::Cursor { cursor: new.cursor })
}

pub(super) fn acknowledge(
    tx: &mut Tx<'_>,
    user: &UserId,
    device: &DeviceId,
    seq: u64,
) -> Result<Reply, Refusal> {
    let old = tx.device(user, device)?.ok_or(Rejection::NotFound("device".to_owned()))?;
    let tail = tx.user(user)?.map_or(0, |record| record.tail);
    if seq > tail {
        let reason = format!("sequence {seq} is beyond the queue's tail {tail}");
        return Err(Rejection::BadRequest(reason).into());
    }
    if seq <= old.cursor {
        return Ok(Reply::Cursor { cursor: old.cursor });
    }
    let new = DeviceRecord { cursor: seq, ..old };
    let place = tx.user_slot(user)?;
    tx.write(|to| {
        to.set_device(place, device, Some(old), new);
        let (user, device) = (user.clone(), device.clone());
        to.note(Effect::CursorMoved { user, device, cursor: seq });
    });
    Ok(Reply::Cursor { cursor: seq })
}
