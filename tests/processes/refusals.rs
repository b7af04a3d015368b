//! What a node refuses, with which code; the connection or the node goes on.
//!
//! Over every transport for requests. What is below a request, bytes that are no envelope, comes
//! over sockets of the test's own: our client would not send it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use roost_client::protocol::request::{
    Ack, ChangeMembers, CreateConversation, History, Leave, Ping, SendMessage,
};
use roost_client::protocol::{CloseCode, ConversationKind, ErrorCode, Operation, Target, limits};
use roost_client::{Calls as _, ClientError, Connection, Transport};

use crate::harness::{Cluster, connected};

const TRANSPORTS: [Transport; 3] =
    [Transport::Quic, Transport::WebSocketJson, Transport::WebSocketMessagePack];

fn message(target: Target, client_id: &str, body: Vec<u8>) -> Operation {
    Operation::Send(SendMessage {
        target,
        client_id: client_id.into(),
        body: body.into(),
        content_type: None,
        ttl_ms: None,
    })
}

#[test]
fn refused_requests_get_their_code_and_the_connection_goes_on() {
    let cluster = Cluster::start(1, &[]);
    for (n, transport) in TRANSPORTS.into_iter().enumerate() {
        let options = |user: &str| {
            let mut options = cluster.options(0, &format!("{user}{n}"), "d");
            options.window = Some(0);
            options.transport = transport;
            options
        };
        let (of_alice, of_mallory) = (options("alice"), options("mallory"));
        cluster.run(async {
            let (alice, _pushes) = connected(&of_alice).await;
            let (mallory, _pushes) = connected(&of_mallory).await;
            let group = alice
                .create_conversation(CreateConversation {
                    kind: ConversationKind::Group,
                    members: vec!["carol".into()],
                    name: None,
                    retention: None,
                    client_id: "group".into(),
                })
                .await
                .unwrap()
                .conversation;
            let first = message(Target::User("bob".into()), "once", b"body".to_vec());
            alice.call(first).await.unwrap();

            let to = |id: &str| Target::Conversation(id.into());
            let bob = || Target::User("bob".into());
            let history = |id: &str| {
                let conversation = id.into();
                Operation::History(History {
                    conversation,
                    before: None,
                    after: None,
                    limit: None,
                    applied: None,
                })
            };
            let members =
                || ChangeMembers { conversation: group.clone(), members: vec!["x".into()] };
            let too_large = vec![b'x'; limits::MAX_BODY_BYTES + 1];
            let refusals = [
                (&mallory, message(to(&group), "a", b"x".to_vec()), ErrorCode::NotAMember),
                (&mallory, history(&group), ErrorCode::NotAMember),
                (&mallory, Operation::AddMembers(members()), ErrorCode::NotAMember),
                (
                    &mallory,
                    Operation::Leave(Leave { conversation: group.clone() }),
                    ErrorCode::NotAMember,
                ),
                (&alice, message(to("g-0-ffff"), "b", b"x".to_vec()), ErrorCode::NotFound),
                (&alice, history("g-0-ffff"), ErrorCode::NotFound),
                (&alice, message(bob(), "c", too_large), ErrorCode::TooLarge),
                (&alice, message(bob(), "once", b"other".to_vec()), ErrorCode::ClientIdReused),
                (&alice, message(bob(), "", b"x".to_vec()), ErrorCode::BadRequest),
                (
                    &alice,
                    message(Target::User("".into()), "d", b"x".to_vec()),
                    ErrorCode::BadRequest,
                ),
                (&alice, Operation::Ack(Ack { seq: 1_000 }), ErrorCode::BadRequest),
            ];
            for (who, request, code) in refusals {
                let shown = format!("{request:?} over {transport:?}");
                let error = who.call(request).await.expect_err(&shown);
                assert_eq!(error.code(), Some(code), "{shown}: {error}");
                assert!(!error.retry(), "{shown}");
                who.ping().await.expect(&shown);
            }
        });
    }
}

#[test]
fn a_bad_token_and_a_device_that_is_replaced_end_the_connection_for_good() {
    let cluster = Cluster::start(1, &[]);
    for transport in TRANSPORTS {
        let mut options = cluster.options(0, "alice", "phone");
        options.transport = transport;
        cluster.run(async {
            let mut forged = options.clone();
            forged.token = "not.a.token".into();
            let error = Connection::open(&forged).await.expect_err("a bad token connects");
            let closed = match &error {
                ClientError::Closed(reason) | ClientError::Lost(reason) => reason.code,
                _ => None,
            };
            let told = error.code() == Some(ErrorCode::Unauthorized)
                || closed == Some(CloseCode::Unauthorized);
            assert!(told && !error.retry(), "{error}");

            let (first, _pushes) = connected(&options).await;
            let (second, _pushes) = connected(&options).await;
            let reason = first.closed().await;
            assert_eq!(reason.code, Some(CloseCode::Replaced), "{reason}");
            assert!(!reason.reconnect);
            second.ask(Ping {}).await.unwrap();
        });
    }
}

#[test]
fn frames_that_are_no_envelopes_close_the_connection_and_the_node_goes_on() {
    let cluster = Cluster::start(1, &[]);
    let address = cluster.address(0);
    let nonsense: [(&str, u8, Vec<u8>); 4] = [
        ("roost.v1.json", TEXT, b"{\"id\": 1, \"ping".to_vec()),
        ("roost.v1.json", TEXT, b"[]".to_vec()),
        ("roost.v1.msgpack", BINARY, vec![0xC1, 0x00, 0xFF, 0x93]),
        ("roost.v1.msgpack", BINARY, Vec::new()),
    ];
    for (subprotocol, kind, payload) in nonsense {
        let said = raw_websocket(address, subprotocol, kind, payload.len(), &payload);
        assert!(contains(&said, b"bad_frame"), "{subprotocol}: {}", shown(&said));
        assert!(contains(&said, &4003_u16.to_be_bytes()), "{subprotocol}: {}", shown(&said));
    }
    // The length alone must do: what it promises never comes.
    let said = raw_websocket(address, "roost.v1.json", TEXT, limits::MAX_FRAME_BYTES + 1, b"{");
    assert!(contains(&said, b"frame_too_large"), "{}", shown(&said));
    assert!(contains(&said, &4003_u16.to_be_bytes()), "{}", shown(&said));

    let not_connected =
        raw_websocket(address, "roost.v1.json", TEXT, 19, br#"{"id":1,"ping":{}} "#);
    assert!(contains(&not_connected, b"not_connected"), "{}", shown(&not_connected));

    for garbage in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/9.9\r\n\r\n", &[0xFF; 5_000]] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Whatever it says to that, it closes.
        let _ = stream.read_to_end(&mut Vec::new());
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        datagrams.send_to(&garbage[..garbage.len().min(1_200)], address).unwrap();
    }
    let options = cluster.options(0, "alice", "d");
    cluster.run(async {
        let (alice, _pushes) = connected(&options).await;
        alice.ping().await.unwrap();
    });
}

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;

/// Opens a WebSocket by hand, writes one frame that says it is `len` bytes long, and gives all that
/// the node says until it closes, or until its answer to a request is there.
fn raw_websocket(
    address: SocketAddr,
    subprotocol: &str,
    kind: u8,
    len: usize,
    payload: &[u8],
) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let upgrade = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).unwrap();
    let mut frame = vec![0x80 | kind, 0x80 | 127];
    frame.extend((len as u64).to_be_bytes());
    // A mask of zeros changes nothing.
    frame.extend([0; 4]);
    frame.extend(payload);
    stream.write_all(&frame).unwrap();
    let mut said = Vec::new();
    let mut piece = [0; 4_096];
    while !contains(&said, b"not_connected") {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => break,
            Ok(read) => said.extend(&piece[..read]),
        }
    }
    said
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
