//! What peers say, for those who test the decoders with any bytes: the types stay this crate's own.

use bytes::Bytes;
use roost_storage::command::{Command, Rejection, Reply};
use roost_storage::model::{DeviceId, ShardId, UserId};
use roost_storage::{Fault, codec};

use crate::wire::{self, Answer, Call, Declined, Hello, Origin};
use crate::{ClaimTime, ReadPoint};

/// Decodes a call as a node does; gives its encoding.
///
/// # Errors
/// The decoder's.
pub fn call(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    Ok(codec::encode(&wire::decode_call(&Bytes::copy_from_slice(bytes))?))
}

/// Decodes an answer as a node does; gives its encoding.
///
/// # Errors
/// The decoder's.
pub fn answer(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    Ok(codec::encode(&wire::decode::<Answer>("peer answer", bytes)?))
}

/// Some of every call and answer, encoded.
pub fn samples() -> Vec<Vec<u8>> {
    let shard = ShardId(0);
    let client_addr = "10.0.0.1:7070".to_owned();
    let hello = Hello { node_id: 1, store_id: 2, incarnation: 3, client_addr, initialized: true };
    let time = ClaimTime { term: 9, count: 10 };
    let mut calls = vec![
        Call::Hello(hello.clone()),
        Call::Raft { shard, message: Bytes::from_static(b"raft") },
        Call::ReadIndex { shard, ttl_ms: 1_500 },
    ];
    if let (Ok(user), Ok(device)) = (UserId::new("bob"), DeviceId::new("web")) {
        let command = Command::Acknowledge { user: user.clone(), device: device.clone(), seq: 7 };
        let origin = Origin { incarnation: 3, batch: 300, attempt: 1 };
        let commands = vec![command; 3];
        calls.push(Call::Forward { shard, origin, ttl_ms: 3_000, commands });
        calls.push(Call::Claim { user, device, time });
    }
    let outcomes = vec![Ok(Reply::Cursor { cursor: 7 }), Err(Rejection::NotAMember)];
    let answers = [
        Answer::Hello(hello),
        Answer::Raft(Bytes::from_static(b"raft")),
        Answer::Forward(Ok((300, outcomes))),
        Answer::Forward(Err(Declined::NotLeader(Some(2)))),
        Answer::ReadIndex(Ok(ReadPoint { index: 300, time })),
        Answer::Claimed,
        Answer::Refused("no".to_owned()),
    ];
    calls.iter().map(codec::encode).chain(answers.iter().map(codec::encode)).collect()
}
