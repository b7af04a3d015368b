//! The protocol's hot pieces: envelopes to bytes and back, in both encodings.

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use roost_protocol::reply::{Page, Sent};
use roost_protocol::request::SendMessage;
use roost_protocol::{
    Encoding, Item, ItemContent, Message, OkBody, Operation, OperationKind, Request, ServerFrame,
    Target,
};

const ENCODINGS: [Encoding; 2] = [Encoding::MessagePack, Encoding::Json];
/// Items of a page.
const PAGE: u64 = 50;

fn main() {
    divan::main();
}

fn send() -> Request {
    Request {
        id: 4_711,
        operation: Operation::Send(SendMessage {
            target: Target::Conversation("g-0-1f4".into()),
            client_id: "a1b2c3d4-1f-2e8".into(),
            body: "x".repeat(200).into(),
            content_type: None,
            ttl_ms: None,
        }),
    }
}

fn sent() -> ServerFrame {
    let sent = Sent {
        conversation: "g-0-1f4".into(),
        seq: 815,
        at_ms: 1_760_000_000_000,
        duplicate: false,
        applied: 90_210,
    };
    ServerFrame::Reply { id: 4_711, ok: OkBody::Sent(sent) }
}

fn page() -> ServerFrame {
    let item = |seq| {
        let message = Message {
            seq,
            sender: "bench-1234".into(),
            at_ms: 1_760_000_000_000,
            body: "x".repeat(200).into(),
            content_type: None,
            client_id: "a1b2c3d4-1f-2e8".into(),
            expires_at_ms: None,
        };
        Item { seq, content: ItemContent::Message { conversation: "g-0-1f4".into(), message } }
    };
    let page = Page {
        items: (1..=PAGE).map(item).collect(),
        head: 1,
        tail: PAGE,
        more: false,
        applied: 90_210,
    };
    ServerFrame::Reply { id: 4_711, ok: OkBody::Page(page) }
}

/// A send, as a client writes it.
#[divan::bench(args = ENCODINGS)]
fn encode_send(bencher: Bencher<'_, '_>, encoding: Encoding) {
    let request = send();
    let bytes = encoding.request_bytes(&request).len();
    bencher
        .counter(BytesCount::new(bytes))
        .bench_local(|| encoding.request_bytes(black_box(&request)));
}

/// A send, as a node reads it.
#[divan::bench(args = ENCODINGS)]
fn decode_send(bencher: Bencher<'_, '_>, encoding: Encoding) {
    let bytes = encoding.request_bytes(&send());
    bencher
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| encoding.decode_request(black_box(&bytes)).expect("a sound request"));
}

/// A send's reply, as a node writes it.
#[divan::bench(args = ENCODINGS)]
fn encode_sent(bencher: Bencher<'_, '_>, encoding: Encoding) {
    encode(bencher, encoding, &sent());
}

/// A send's reply, as a client reads it.
#[divan::bench(args = ENCODINGS)]
fn decode_sent(bencher: Bencher<'_, '_>, encoding: Encoding) {
    decode(bencher, encoding, &sent(), OperationKind::Send);
}

/// A page of 50 items, as a node writes it.
#[divan::bench(args = ENCODINGS)]
fn encode_page(bencher: Bencher<'_, '_>, encoding: Encoding) {
    encode(bencher, encoding, &page());
}

/// A page of 50 items, as a client reads it.
#[divan::bench(args = ENCODINGS)]
fn decode_page(bencher: Bencher<'_, '_>, encoding: Encoding) {
    decode(bencher, encoding, &page(), OperationKind::Pull);
}

fn encode(bencher: Bencher<'_, '_>, encoding: Encoding, frame: &ServerFrame) {
    let bytes = encoding.server_bytes(frame).len();
    bencher.counter(BytesCount::new(bytes)).bench_local(|| encoding.server_bytes(black_box(frame)));
}

fn decode(bencher: Bencher<'_, '_>, encoding: Encoding, frame: &ServerFrame, kind: OperationKind) {
    let bytes = encoding.server_bytes(frame);
    bencher.counter(BytesCount::new(bytes.len())).bench_local(|| {
        let frame = encoding.decode_server(black_box(&bytes), &|_| Some(kind));
        frame.expect("a sound envelope").expect("a known request")
    });
}
