//! Envelopes of both sides in both encodings: what decodes must read back as itself.

use bytes::BytesMut;
use roost_protocol::{Encoding, OperationKind, RequestRef};

use super::{golden, outcome};
use crate::Target;

pub(super) struct Envelopes;

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

impl Target for Envelopes {
    fn name(&self) -> &'static str {
        "envelopes"
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        golden().into_iter().flat_map(|(json, msgpack)| [json, msgpack]).collect()
    }

    fn run(&self, input: &[u8]) -> String {
        let mut said = String::new();
        for encoding in ENCODINGS {
            let request = encoding.decode_request(input);
            if let Ok(request) = &request {
                said += request.operation.kind().as_str();
                for again in ENCODINGS {
                    let mut bytes = BytesMut::new();
                    again.encode_request(RequestRef::from(request), &mut bytes);
                    let read = again.decode_request(&bytes);
                    assert_eq!(read.as_ref(), Ok(request), "a request reads back as another");
                }
            }
            said += &outcome(request.map_err(|error| format!("{error:?}")));
            said += &server(encoding, input);
        }
        said
    }
}

/// Reads the input as a node's answer to each operation.
fn server(encoding: Encoding, input: &[u8]) -> String {
    let mut said = String::new();
    for kind in OperationKind::ALL {
        match encoding.decode_server(input, &|_| Some(*kind)) {
            Ok(Some(frame)) => {
                for again in ENCODINGS {
                    let bytes = again.server_bytes(&frame);
                    let read = again.decode_server(&bytes, &|_| Some(*kind));
                    assert_eq!(read, Ok(Some(frame.clone())), "an answer reads back as another");
                }
                said += kind.as_str();
            }
            Ok(None) => said.push('-'),
            Err(_) => said.push('.'),
        }
    }
    said
}
