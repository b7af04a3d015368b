//! What nodes say to each other: the calls and answers of `cluster`, and Raft's messages in them.

use bytes::Bytes;
use roost_cluster::fuzzing;
use roost_raft::wire::{self, MAX_MESSAGE_BYTES};
use roost_storage::codec;

use super::outcome;
use crate::Target;

/// An append of one batch, as `raft/tests/golden.rs` pins it.
const APPEND: [u8; 28] =
    *b"\x01\x00\x03\x01\x02\x01\x01\x02\xfb\x2b\x01\x01\x03\xfb\x2c\x01\x01\x05batch\x01\x02\xfb\x2b\x01";

pub(super) struct PeerCalls;

impl Target for PeerCalls {
    fn name(&self) -> &'static str {
        "peer-calls"
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let mut corpus = fuzzing::samples();
        corpus.extend(super::disk::batches());
        corpus.push(APPEND.to_vec());
        corpus
    }

    fn run(&self, input: &[u8]) -> String {
        let call = fuzzing::call(input);
        let answer = fuzzing::answer(input);
        let mut said = format!("{} | {}", outcome(call.as_ref()), outcome(answer.as_ref()));
        // A number may be spelt longer than it is written here; the value is the same.
        if let Ok(encoded) = call {
            assert_eq!(
                fuzzing::call(&encoded).ok(),
                Some(encoded),
                "a call reads back differently"
            );
        }
        if let Ok(encoded) = answer {
            let again = fuzzing::answer(&encoded).ok();
            assert_eq!(again, Some(encoded), "an answer reads back differently");
        }
        let request = wire::decode_request(&Bytes::copy_from_slice(input));
        if let Ok(request) = &request {
            let by_its_type: wire::Request =
                codec::decode("request", input, MAX_MESSAGE_BYTES).expect("a request by its type");
            let encoded = codec::encode(request);
            assert_eq!(codec::encode(&by_its_type), encoded, "a request of two readings");
            assert_eq!(wire::encode_request(request).concat(), encoded);
        }
        let reply: Result<wire::Reply, _> = codec::decode("reply", input, MAX_MESSAGE_BYTES);
        said += &format!("{} | {}", outcome(request), outcome(reply));
        said += &outcome(codec::decode_batch(input));
        said
    }
}
