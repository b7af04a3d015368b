//! What holds for any envelope and any bytes.

use bytes::BytesMut;
use proptest::prelude::*;
use roost_protocol::frame::{FrameDecoder, FrameTooLarge};
use roost_protocol::limits::MAX_FRAME_BYTES;
use roost_protocol::reply::{ItemsPush, Page};
use roost_protocol::request::SendMessage;
use roost_protocol::size::{MAX_PAGE_BYTES, fit_page};
use roost_protocol::{
    Body, CloseCode, ConversationSummary, Encoding, ErrorCode, Item, ItemContent, Message, OkBody,
    Operation, OperationKind, Push, Request, RequestError, ServerFrame, Target,
};

use crate::samples::{frames, items, requests, summary};

const ENCODINGS: [Encoding; 2] = [Encoding::Json, Encoding::MessagePack];

fn id() -> impl Strategy<Value = String> {
    "\\PC{1,16}".prop_filter("1 to 64 bytes", |id| (1..=64).contains(&id.len()))
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        any::<String>().prop_map(Body::from),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Body::from),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    (any::<[u64; 2]>(), [id(), id()], body(), proptest::option::of(id()), any::<Option<u64>>())
        .prop_map(|([seq, at_ms], [sender, client_id], body, content_type, expires_at_ms)| {
            Message {
                seq,
                sender: sender.into(),
                at_ms,
                body,
                content_type: content_type.map(Into::into),
                client_id: client_id.into(),
                expires_at_ms,
            }
        })
}

fn item() -> impl Strategy<Value = Item> {
    (any::<u64>(), id(), message()).prop_map(|(seq, conversation, message)| Item {
        seq,
        content: ItemContent::Message { conversation: conversation.into(), message },
    })
}

proptest! {
    #[test]
    fn any_send_is_read_back(number: u64, to in id(), client_id in id(), body in body(), ttl_ms: Option<u64>) {
        let operation = Operation::Send(SendMessage {
            target: Target::User(to.into()),
            client_id: client_id.into(),
            body,
            content_type: None,
            ttl_ms,
        });
        let request = Request { id: number, operation };
        for encoding in ENCODINGS {
            let bytes = encoding.request_bytes(&request);
            prop_assert_eq!(encoding.decode_request(&bytes), Ok(request.clone()));
        }
    }

    #[test]
    fn any_page_is_read_back(number: u64, items in proptest::collection::vec(item(), 0..5)) {
        let page = Page { items: items.clone(), head: 1, tail: u64::MAX, more: true, applied: number };
        let reply = ServerFrame::Reply { id: number, ok: OkBody::Page(page) };
        let push = ServerFrame::Push(Push::Items(ItemsPush { items, tail: 0, applied: number }));
        for encoding in ENCODINGS {
            for frame in [&reply, &push] {
                let bytes = encoding.server_bytes(frame);
                let read = encoding.decode_server(&bytes, &|_| Some(OperationKind::Pull));
                prop_assert_eq!(read.as_ref(), Ok(&Some(frame.clone())));
            }
        }
    }

    #[test]
    fn no_item_is_longer_than_its_bound(item in item()) {
        let bound = item.encoded_bound();
        prop_assert!(bound <= item.encoded_most());
        let push = |items| ServerFrame::Push(Push::Items(ItemsPush { items, tail: 1, applied: 1 }));
        for encoding in ENCODINGS {
            let empty = encoding.server_bytes(&push(vec![])).len();
            prop_assert!(encoding.server_bytes(&push(vec![item.clone()])).len() <= empty + bound);
        }
    }

    #[test]
    fn nonsense_is_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for encoding in ENCODINGS {
            let _ = encoding.decode_request(&bytes);
            let _ = encoding.decode_server(&bytes, &|_| Some(OperationKind::Pull));
        }
    }

    #[test]
    fn damaged_envelopes_are_decoded_without_a_panic(
        which: prop::sample::Index, at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
    ) {
        for encoding in ENCODINGS {
            let requests = requests();
            let mut bytes = encoding.request_bytes(&requests[which.index(requests.len())].1).to_vec();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            let _ = encoding.decode_request(&bytes);
            let _ = encoding.decode_request(&bytes[..cut.index(bytes.len())]);
            let frames = frames();
            let (_, kind, frame) = &frames[which.index(frames.len())];
            let mut bytes = encoding.server_bytes(frame).to_vec();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            let _ = encoding.decode_server(&bytes, &|_| Some(*kind));
            let _ = encoding.decode_server(&bytes[..cut.index(bytes.len())], &|_| Some(*kind));
        }
    }

    #[test]
    fn frames_are_cut_wherever_reads_end(sizes in proptest::collection::vec(1usize..50, 1..200)) {
        let mut stream = BytesMut::new();
        for (_, request) in requests() {
            Encoding::encode_request_framed((&request).into(), &mut stream);
        }
        let (mut buffer, mut read) = (BytesMut::new(), Vec::new());
        for size in sizes.into_iter().cycle() {
            let part = stream.split_to(size.min(stream.len()));
            if part.is_empty() {
                break;
            }
            buffer.extend_from_slice(&part);
            while let Some(frame) = FrameDecoder.next(&mut buffer).unwrap() {
                read.push(Encoding::MessagePack.decode_request(&frame).unwrap());
            }
        }
        let expected: Vec<_> = requests().into_iter().map(|(_, request)| request).collect();
        prop_assert_eq!(read, expected);
    }
}

#[test]
fn every_kind_of_item_and_summary_keeps_its_bound() {
    for item in items() {
        let json = serde_json::to_vec(&item).unwrap();
        assert!(json.len() <= item.encoded_bound(), "{}", item.kind());
    }
    let longest = |text: &str| roost_protocol::CompactString::from(text.repeat(64));
    let last = Message {
        seq: u64::MAX,
        sender: longest("\u{1}"),
        at_ms: u64::MAX,
        body: vec![0xff; 1_000].into(),
        content_type: Some(longest("\"")),
        client_id: longest("\\"),
        expires_at_ms: Some(u64::MAX),
    };
    let summary = ConversationSummary {
        id: longest("\n"),
        name: Some(longest("\u{1f}")),
        tail: u64::MAX,
        read: u64::MAX,
        unread: u64::MAX,
        last: Some(last.clone()),
        ..summary()
    };
    assert!(serde_json::to_vec(&summary).unwrap().len() <= summary.encoded_bound());
    let content = ItemContent::Edit { conversation: longest("\u{2}"), message: last };
    let item = Item { seq: u64::MAX, content };
    assert!(serde_json::to_vec(&item).unwrap().len() <= item.encoded_bound());
}

#[test]
fn a_page_cut_by_bounds_fits_into_a_frame() {
    let message =
        Message { body: "\u{1}".repeat(60_000).into(), ..crate::samples::message("".into()) };
    let content = ItemContent::Message { conversation: "c".into(), message };
    let items: Vec<_> = (1..=500).map(|seq| Item { seq, content: content.clone() }).collect();
    let count = fit_page(items.iter().map(Item::encoded_bound));
    assert!((1..500).contains(&count));
    let items = items[..count].to_vec();
    let page = Page { items, head: 1, tail: 500, more: true, applied: u64::MAX };
    let frame = ServerFrame::Reply { id: u64::MAX, ok: OkBody::Page(page) };
    for encoding in ENCODINGS {
        assert!(encoding.server_bytes(&frame).len() <= MAX_FRAME_BYTES);
    }
    assert!(fit_page([MAX_PAGE_BYTES]) == 0 && fit_page([MAX_PAGE_BYTES - 1]) == 1);
}

#[test]
fn a_frame_over_the_limit_is_refused_before_room_is_made() {
    let len = MAX_FRAME_BYTES + 1;
    let mut buffer = BytesMut::from(&u32::try_from(len).unwrap().to_be_bytes()[..]);
    let capacity = buffer.capacity();
    assert_eq!(FrameDecoder.next(&mut buffer), Err(FrameTooLarge { len }));
    assert_eq!(buffer.capacity(), capacity);
    let mut buffer = BytesMut::from(&[0xff; 4][..]);
    assert!(FrameDecoder.next(&mut buffer).is_err());
}

#[test]
fn deep_nesting_is_read_over_or_refused_without_a_panic() {
    for depth in [10, 1_000, 100_000] {
        let json =
            format!(r#"{{"id":1,"x":{}{},"ping":{{}}}}"#, "[".repeat(depth), "]".repeat(depth));
        let _ = Encoding::Json.decode_request(json.as_bytes());
        let json = format!(r#"{{"id":1,"ping":{}{}}}"#, "[".repeat(depth), "]".repeat(depth));
        let _ = Encoding::Json.decode_request(json.as_bytes());
        let mut msgpack = b"\x82\xa2id\x01\xa4ping".to_vec();
        msgpack.extend(std::iter::repeat_n(0x91, depth));
        msgpack.push(0xc0);
        let read = Encoding::MessagePack.decode_request(&msgpack);
        assert!(read.is_err(), "{depth}");
    }
}

#[test]
fn announced_lengths_that_are_not_there_cost_nothing() {
    // A map, an array, a text, binary and an extension of 4 GiB each.
    for marker in [0xdf, 0xdd, 0xdb, 0xc6, 0xc9] {
        let mut frame = b"\x82\xa2id\x01\xa4pull\x81\xa5after".to_vec();
        frame.extend([marker, 0xff, 0xff, 0xff, 0xff, 0x01]);
        let read = Encoding::MessagePack.decode_request(&frame);
        assert!(matches!(read, Err(RequestError::BadFrame(_))), "{marker:x}: {read:?}");
    }
}

#[test]
fn messagepack_of_other_writers_is_read() {
    let refused = |bytes: &[u8]| Encoding::MessagePack.decode_request(bytes).unwrap_err();
    // {"id": int32 7, "ack": {"seq": int64 41}}: signed types, as some writers choose.
    let mut signed = b"\x82\xa2id\xd2\x00\x00\x00\x07\xa3ack\x81\xa3seq\xd3".to_vec();
    signed.extend(41_i64.to_be_bytes());
    let ack = roost_protocol::request::Ack { seq: 41 };
    let expected = Request { id: 7, operation: Operation::Ack(ack) };
    assert_eq!(Encoding::MessagePack.decode_request(&signed), Ok(expected));
    // {"id": 7, 5: 6, nil: [], "ping": nil}: keys that are no text are unknown fields.
    let odd = b"\x84\xa2id\x07\x05\x06\xc0\x90\xa4ping\xc0";
    assert!(Encoding::MessagePack.decode_request(odd).is_ok());
    // {"id": 7, "ack": {"seq": -1}} and an extension in its place.
    for seq in [&b"\xff"[..], b"\xd4\x01\x00"] {
        let bytes = [b"\x82\xa2id\x07\xa3ack\x81\xa3seq", seq].concat();
        let RequestError::Refused { id, code, message, .. } = refused(&bytes) else { panic!() };
        assert_eq!((id, code), (7, ErrorCode::BadRequest));
        assert!(message.contains("`seq`"));
    }
    // Bytes after the envelope.
    assert!(matches!(refused(b"\x82\xa2id\x07\xa4ping\xc0\xc0"), RequestError::BadFrame(_)));
}

#[test]
fn codes_and_texts_name_each_other() {
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_text(code.as_str()), *code);
    }
    assert_eq!(ErrorCode::from_text("teapot"), ErrorCode::Other);
    let retried: Vec<_> =
        ErrorCode::ALL.iter().filter(|code| code.retry()).map(|code| code.as_str()).collect();
    let expected = ["rate_limited", "overloaded", "not_available", "deadline_exceeded", "internal"];
    assert_eq!(retried, expected);
    for code in CloseCode::ALL {
        assert_eq!(CloseCode::from_text(code.as_str()), Some(*code));
        let same_number = CloseCode::from_number(u64::from(code.number())).unwrap();
        assert_eq!(same_number.reconnect(), code.reconnect());
    }
}

#[test]
fn debug_output_shows_neither_bodies_nor_tokens() {
    for (name, request) in requests() {
        let text = format!("{request:?}");
        assert!(!text.contains("signature") && !text.contains("\"hi\""), "{name}: {text}");
    }
}
