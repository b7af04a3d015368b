//! What `connect` takes: a token, a fresh look at the cluster, a registered device, a seat.

use std::sync::Arc;
use std::time::Duration;

use roost_cluster::host::unix_ms;
use roost_cluster::{ClaimTime, Committed, SubmitError};
use roost_protocol::limits::{Limits, window_size};
use roost_protocol::reply::Connected;
use roost_protocol::request::Connect;
use roost_protocol::{ErrorBody, ErrorCode};
use roost_storage::command::{Command, Reply};
use roost_storage::model::{DeviceId, DeviceKind, UserId};
use roost_storage::planted::{self, Bug};
use tokio::time::Instant;

use super::event::Admission;
use crate::auth::Identity;
use crate::edge::Context;
use crate::edge::convert::{device_id, device_kind};
use crate::edge::errors::{bad_request, error, submit_error, unexpected_reply};
use crate::edge::hub::{Registration, Signal, Undated};

/// Pause before a leader is asked again when a device was connected.
const CLAIM_PAUSE: Duration = Duration::from_millis(100);

/// A client that was let in, and its seat.
pub(crate) struct Admitted {
    /// For the state machine.
    pub(crate) admission: Admission,
    /// Held as long as the session lives.
    pub(crate) seat: Registration,
    /// When the token ends, in milliseconds since the Unix epoch.
    pub(crate) expires_at_ms: u64,
}

/// Lets a client in, or says why not.
///
/// # Errors
/// `unauthorized` for a token that is not good for this; `bad_request` for an `after` beyond the
/// queue; otherwise what the cluster says.
pub(crate) async fn admit(
    context: &Context,
    id: u64,
    connect: Connect,
    signal: Arc<Signal>,
) -> Result<Admitted, ErrorBody> {
    let device = device_id(&connect.device.id)?;
    let Identity { user, expires_at_ms, .. } = authorize(context, &connect, &device)?;
    let deadline = Instant::now() + context.options.request_timeout;

    let since = look_freshly(context, &user, &connect, deadline).await?;
    register_device(context, &user, &device, device_kind(connect.device.kind), deadline).await?;

    let bounds = context.reads.queue_bounds(&user)?;
    if connect.after.is_some_and(|after| after > bounds.tail) {
        return Err(bad_request("`after` is beyond the queue's tail"));
    }

    let seat = context.hub.register(&user, &device, since, signal);
    match since {
        Some(since) => context.cluster.claim_device(&user, &device, since),
        None => claim_later(context, seat.undated(), &user, &device),
    }
    // From here on the hub's hints arrive: what grew before is in these bounds.
    let applied = context.cluster.applied();
    let bounds = context.reads.queue_bounds(&user)?;
    if planted::is(Bug::CursorByPush) {
        let (user, device, seq) = (user.clone(), device.clone(), bounds.tail);
        let push = Command::Acknowledge { user, device, seq };
        drop(context.cluster.submit(push, deadline));
    }
    let record = context.reads.device(&user, &device)?;
    let cursor = record.map_or(0, |record| record.cursor);

    let wanted = connect.after.unwrap_or(cursor);
    let resumed = wanted.saturating_add(1) >= bounds.head;
    let start = if resumed { wanted } else { bounds.head - 1 };
    let window = u64::from(window_size(connect.window));
    let connected = Connected {
        user: user.as_str().into(),
        device: connect.device,
        node: context.cluster.node_id(),
        head: bounds.head,
        tail: bounds.tail,
        cursor,
        resumed,
        applied,
        server_time_ms: unix_ms(),
        limits: Limits { window, ..Limits::default() },
    };
    let admission =
        Admission { id, user, device, connected, start, acknowledged: cursor.max(start), window };
    Ok(Admitted { admission, seat, expires_at_ms })
}

fn authorize(
    context: &Context,
    connect: &Connect,
    device: &DeviceId,
) -> Result<Identity, ErrorBody> {
    let identity = context
        .auth
        .verifier
        .verify(connect.token.as_str())
        .map_err(|why| error(ErrorCode::Unauthorized, why.to_string()))?;
    if identity.device.as_ref().is_some_and(|bound| bound != device) {
        return Err(error(ErrorCode::Unauthorized, "the token is for another device"));
    }
    Ok(identity)
}

/// Waits until this node shows what was acknowledged anywhere before, and says when that was.
/// Without a leader neither can be known: then only a client that says where it is, at a place that
/// this node has, comes in.
async fn look_freshly(
    context: &Context,
    user: &UserId,
    connect: &Connect,
    deadline: Instant,
) -> Result<Option<ClaimTime>, ErrorBody> {
    context.reads.wait(connect.applied.unwrap_or(0), deadline).await?;
    let barrier = Instant::now() + context.options.barrier_timeout;
    let why = match context.cluster.read_barrier(barrier.min(deadline)).await {
        Ok(point) => return Ok(Some(point.time)),
        Err(why) => why,
    };
    let bounds = context.reads.queue_bounds(user)?;
    match (why, connect.after) {
        (SubmitError::NotAvailable | SubmitError::DeadlineExceeded, Some(after))
            if after <= bounds.tail =>
        {
            Ok(None)
        }
        // Nothing was proposed: a read that timed out is no unknown outcome.
        (SubmitError::DeadlineExceeded, _) => Err(submit_error(&SubmitError::NotAvailable)),
        (why, _) => Err(submit_error(&why)),
    }
}

/// Tells the other nodes of a device that came while no leader was known, once one is.
fn claim_later(context: &Context, seat: Undated, user: &UserId, device: &DeviceId) {
    let (cluster, user, device) = (context.cluster.clone(), user.clone(), device.clone());
    let patience = context.options.barrier_timeout;
    tokio::spawn(async move {
        while seat.is_taken() {
            match cluster.read_barrier(Instant::now() + patience).await {
                Ok(point) => {
                    if seat.date(point.time) {
                        cluster.claim_device(&user, &device, point.time);
                    }
                    return;
                }
                Err(SubmitError::Stopped) => return,
                // The barrier took its time; what failed at once must not spin.
                Err(_) => tokio::time::sleep(CLAIM_PAUSE).await,
            }
        }
    });
}

/// Makes the device known with its kind, if it is not.
async fn register_device(
    context: &Context,
    user: &UserId,
    device: &DeviceId,
    kind: DeviceKind,
    deadline: Instant,
) -> Result<(), ErrorBody> {
    let known = context.reads.device(user, device)?;
    if known.is_some_and(|record| record.kind == kind) {
        return Ok(());
    }
    let command = Command::RegisterDevice { user: user.clone(), device: device.clone(), kind };
    let done = context.cluster.submit(command, deadline).await;
    match done.map_err(|why| submit_error(&why))? {
        Committed { reply: Reply::Cursor { .. }, index } => {
            context.reads.wait(index, deadline).await
        }
        _ => Err(unexpected_reply()),
    }
}
