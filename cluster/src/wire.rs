//! What nodes say to each other, as bytes: versioned by the store's codec, and capped.

use std::time::Duration;

use bytes::Bytes;
use roost_raft::NodeId;
use roost_storage::command::{Command, Outcome};
use roost_storage::model::{DeviceId, ShardId, UserId};
use roost_storage::{Fault, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{ClaimTime, ReadPoint};

/// Largest call or answer, in bytes: a Raft message with its envelope.
pub(crate) const MAX_FRAME_BYTES: usize = roost_raft::wire::MAX_MESSAGE_BYTES + 64 * 1024;

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Its number, which its certificate must name too.
    pub(crate) node_id: NodeId,
    /// The random id of its data folder.
    pub(crate) store_id: u64,
    /// Drawn at each start.
    pub(crate) incarnation: u64,
    /// Where clients reach it, `host:port`.
    pub(crate) client_addr: String,
    /// Whether it has any Raft state.
    pub(crate) initialized: bool,
}

/// Names a forwarded batch, so that a late copy of it is told from the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The sender's incarnation.
    pub(crate) incarnation: u64,
    /// Counts the sender's batches; a repeated batch keeps its number.
    pub(crate) batch: u64,
    /// Counts the attempts of one batch.
    pub(crate) attempt: u32,
}

/// What a node asks of a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Call {
    /// Who are you? The first call on a connection.
    Hello(Hello),
    /// A message between replicas.
    Raft { shard: ShardId, message: Bytes },
    /// Commands for the leader.
    Forward { shard: ShardId, origin: Origin, ttl_ms: u64, commands: Vec<Command> },
    /// Up to where must I have applied to show everything acknowledged so far?
    ReadIndex { shard: ShardId, ttl_ms: u64 },
    /// A device is connected at the calling node now.
    Claim { user: UserId, device: DeviceId, time: ClaimTime },
}

/// Why a leader's work was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Declined {
    /// The called node does not lead; it knows this one, or none. Nothing was done.
    NotLeader(Option<NodeId>),
    /// It may or may not take effect.
    Unknown,
    /// A newer batch of the same sender came first. Nothing was done by this call.
    Stale,
    /// The batch is over the bounds of an entry. Nothing was done.
    TooLarge,
}

/// What a peer answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// To [`Call::Hello`].
    Hello(Hello),
    /// To [`Call::Raft`].
    Raft(Bytes),
    /// To [`Call::Forward`]: the entry's index and each command's outcome.
    Forward(Result<(u64, Vec<Outcome>), Declined>),
    /// To [`Call::ReadIndex`].
    ReadIndex(Result<ReadPoint, Declined>),
    /// To [`Call::Claim`].
    Claimed,
    /// The call is not taken at all.
    Refused(String),
}

/// Which kind of call [`Call::Raft`] is, as `serde` counts them.
const RAFT: u32 = 1;

/// A [`Call::Raft`] in pieces: those of its message, and what goes before.
pub(crate) fn raft_call(shard: ShardId, message: &[Bytes]) -> Vec<Bytes> {
    let mut to = codec::Writer::default();
    to.put(&(RAFT, shard));
    to.put_bytes(message);
    to.finish()
}

/// Decodes a call; a message between replicas is a part of its bytes.
pub(crate) fn decode_call(bytes: &Bytes) -> Result<Call, Fault> {
    const WHAT: &str = "peer call";
    let mut from = codec::Reader::new(WHAT, bytes, MAX_FRAME_BYTES)?;
    if from.take::<u32>()? != RAFT {
        return decode(WHAT, bytes);
    }
    let call = Call::Raft { shard: from.take()?, message: from.take_bytes()? };
    from.finish()?;
    Ok(call)
}

/// A time as it travels: whole milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Decodes what [`codec::encode`] made of a message; `what` names it in errors.
pub(crate) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Fault> {
    codec::decode(what, bytes, MAX_FRAME_BYTES)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use roost_storage::command::{Rejection, Reply};

    use super::*;

    fn hex<T: Serialize>(value: &T) -> String {
        codec::encode(value).iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a string takes all writes");
            text
        })
    }

    /// Shows all that differ at once.
    fn pinned<const N: usize>(pairs: [(String, &str); N]) {
        let (found, golden): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        assert_eq!(found, golden);
    }

    fn hello() -> Hello {
        Hello {
            node_id: 1,
            store_id: 2,
            incarnation: 3,
            client_addr: "a:1".to_owned(),
            initialized: true,
        }
    }

    #[test]
    fn calls_keep_their_bytes() {
        let shard = ShardId(0);
        let (user, device) = (UserId::new("bob").unwrap(), DeviceId::new("web").unwrap());
        let command = Command::Acknowledge { user: user.clone(), device: device.clone(), seq: 7 };
        let origin = Origin { incarnation: 3, batch: 300, attempt: 1 };
        let calls = [
            (Call::Hello(hello()), "010001020303613a3101"),
            (Call::Raft { shard, message: Bytes::from_static(b"raft") }, "0101000472616674"),
            (
                Call::Forward { shard, origin, ttl_ms: 3_000, commands: vec![command] },
                "01020003fb2c0101fbb80b010703626f620377656207",
            ),
            (Call::ReadIndex { shard, ttl_ms: 1_500 }, "010300fbdc05"),
            (
                Call::Claim { user, device, time: ClaimTime { term: 9, count: 10 } },
                "010403626f6203776562090a",
            ),
        ];
        for (call, _) in &calls {
            let bytes = codec::encode(call);
            assert_eq!(codec::encode(&decode_call(&bytes.clone().into()).unwrap()), bytes);
        }
        pinned(calls.map(|(call, golden)| (hex(&call), golden)));
    }

    #[test]
    fn a_message_between_replicas_is_sent_and_taken_in_without_a_copy() {
        let shard = ShardId(300);
        for len in [0, 5, 100_000] {
            let message = [Bytes::from_static(b"head"), Bytes::from(vec![7; len])];
            let pieces = raft_call(shard, &message);
            let copied = pieces.iter().all(|piece| piece.as_ptr() != message[1].as_ptr());
            assert_eq!(copied, len < 1_000);
            let bytes = Bytes::from(pieces.concat());
            let whole = Call::Raft { shard, message: message.concat().into() };
            assert_eq!(bytes, codec::encode(&whole));
            let Call::Raft { message: taken, .. } = decode_call(&bytes).unwrap() else {
                panic!("a message between replicas")
            };
            assert_eq!(taken, message.concat());
            assert!(bytes.as_ptr_range().contains(&taken.as_ptr()));
        }
    }

    #[test]
    fn answers_keep_their_bytes() {
        let point = ReadPoint { index: 300, time: ClaimTime { term: 9, count: 10 } };
        let outcomes = vec![Ok(Reply::Cursor { cursor: 7 }), Err(Rejection::NotAMember)];
        let answers = [
            (Answer::Hello(hello()), "010001020303613a3101"),
            (Answer::Raft(Bytes::from_static(b"raft")), "01010472616674"),
            (Answer::Forward(Ok((300, outcomes))), "010200fb2c01020004070102"),
            (Answer::Forward(Err(Declined::NotLeader(Some(2)))), "010201000102"),
            (Answer::Forward(Err(Declined::Unknown)), "01020101"),
            (Answer::Forward(Err(Declined::Stale)), "01020102"),
            (Answer::Forward(Err(Declined::TooLarge)), "01020103"),
            (Answer::ReadIndex(Ok(point)), "010300fb2c01090a"),
            (Answer::Claimed, "0104"),
            (Answer::Refused("no".to_owned()), "0105026e6f"),
        ];
        pinned(answers.map(|(answer, golden)| (hex(&answer), golden)));
    }
}
