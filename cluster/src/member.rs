//! Answering peers, and telling them about devices.

use std::sync::Arc;
use std::time::Duration;

use roost_raft::{NodeId, ProposeError};
use roost_storage::model::{DeviceId, UserId};
use tokio::time::Instant;

use crate::forward::{Route, Senders};
use crate::transport::{Own, check_store};
use crate::wire::{Answer, Call, Declined, Hello};
use crate::{ClaimTime, Observer};

/// Longest deadline that a peer may ask for.
const MAX_TTL: Duration = Duration::from_secs(60);
/// How long a device claim may take to reach a peer.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(2);

/// What this node answers its peers.
pub(crate) struct Member {
    pub(crate) route: Arc<Route>,
    pub(crate) own: Own,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) senders: Senders,
}

impl Member {
    /// Takes a peer's greeting, or refuses it with a reason.
    pub(crate) fn greeted(&self, hello: &Hello) -> Result<Hello, String> {
        check_store(&self.route.replica.members(), hello)?;
        self.route.transport.peer_restarted(hello);
        Ok((self.own.hello)())
    }

    /// Answers one call of a peer that was greeted.
    pub(crate) async fn call(&self, from: NodeId, call: Call) -> Answer {
        match call {
            Call::Hello(_) => Answer::Hello((self.own.hello)()),
            Call::Raft { shard, .. }
            | Call::Forward { shard, .. }
            | Call::ReadIndex { shard, .. }
                if shard != self.route.shard =>
            {
                Answer::Refused(format!("shard {} is not here", shard.0))
            }
            Call::Raft { message, .. } => {
                Answer::Raft(self.route.replica.handle(&message).await.into())
            }
            Call::Forward { origin, ttl_ms, commands, .. } => Answer::Forward(
                self.senders
                    .forwarded(&self.route.proposer, from, origin, commands, deadline(ttl_ms))
                    .await,
            ),
            Call::ReadIndex { ttl_ms, .. } => {
                Answer::ReadIndex(self.route.read_point(deadline(ttl_ms)).await.map_err(|error| {
                    match error {
                        ProposeError::NotLeader(other) => Declined::NotLeader(other),
                        _ => Declined::Unknown,
                    }
                }))
            }
            Call::Claim { user, device, time } => {
                self.observer.device_claimed(&user, &device, time);
                Answer::Claimed
            }
        }
    }
}

fn deadline(ttl_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(ttl_ms).min(MAX_TTL)
}

/// Tells every other member that a device is connected here.
pub(crate) fn claim(route: &Arc<Route>, user: &UserId, device: &DeviceId, time: ClaimTime) {
    for (id, member) in route.replica.members() {
        if id == route.node_id {
            continue;
        }
        let call = Call::Claim { user: user.clone(), device: device.clone(), time };
        let route = route.clone();
        tokio::spawn(async move {
            // Best effort: a peer that can't be reached serves no device anybody could use.
            let _ = route
                .transport
                .call(id, Some(&member), &call, Instant::now() + CLAIM_TIMEOUT)
                .await;
        });
    }
}
