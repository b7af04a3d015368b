//! What a client written from the protocol's page sends and reads, as literals.

use roost_protocol::request::{Connect, Pull, SendMessage};
use roost_protocol::{
    Body, Device, DeviceKind, Encoding, ErrorCode, Item, ItemContent, Operation, OperationKind,
    Push, Request, RequestError, ServerFrame, Target, Token,
};

fn decode(json: &str) -> Result<Request, RequestError> {
    Encoding::Json.decode_request(json.as_bytes())
}

fn refused(json: &str) -> (u64, ErrorCode, String) {
    match decode(json) {
        Err(RequestError::Refused { id, code, message, .. }) => (id, code, message),
        other => panic!("{json}: {other:?}"),
    }
}

#[test]
fn connect_is_read_with_and_without_its_optional_fields() {
    let request =
        decode(r#"{"id": 1, "connect": {"token": "t", "device": {"id": "phone", "kind": "app"}}}"#);
    let connect = Connect {
        token: Token::from("t"),
        device: Device { id: "phone".into(), kind: DeviceKind::App },
        after: None,
        window: None,
        applied: None,
    };
    assert_eq!(request, Ok(Request { id: 1, operation: Operation::Connect(connect.clone()) }));
    let request = decode(
        r#"{"connect": {"window": 0, "after": 41, "applied": 7, "token": "t",
            "device": {"kind": "app", "id": "phone", "model": [1, {"a": 2}]}}, "id": 1}"#,
    );
    let connect = Connect { after: Some(41), window: Some(0), applied: Some(7), ..connect };
    assert_eq!(request, Ok(Request { id: 1, operation: Operation::Connect(connect) }));
}

#[test]
fn send_names_a_conversation_or_a_user() {
    let message = SendMessage {
        target: Target::User("bob".into()),
        client_id: "c-1".into(),
        body: "hi \u{1f44b}".into(),
        content_type: None,
        ttl_ms: None,
    };
    let request =
        decode(r#"{"id":7,"send":{"to":"bob","client_id":"c-1","body":"hi \ud83d\udc4b"}}"#);
    assert_eq!(request, Ok(Request { id: 7, operation: Operation::Send(message.clone()) }));
    let request = decode(
        r#"{"id":7,"send":{"conversation":"g-0-1","client_id":"c-1","body_base64":"/wA",
            "content_type":"image/png","ttl_ms":60000}}"#,
    );
    let message = SendMessage {
        target: Target::Conversation("g-0-1".into()),
        body: Body::from(vec![0xff, 0]),
        content_type: Some("image/png".into()),
        ttl_ms: Some(60_000),
        ..message
    };
    assert_eq!(request, Ok(Request { id: 7, operation: Operation::Send(message) }));
}

#[test]
fn operations_without_fields_take_an_empty_object_or_null() {
    for json in [r#"{"id":1,"ping":{}}"#, r#"{"id":1,"ping":null}"#, r#"{"ping":{"x":1},"id":1}"#] {
        assert_eq!(decode(json).map(|r| r.operation.kind()), Ok(OperationKind::Ping), "{json}");
    }
    assert!(decode(r#"{"id":1,"conversations":null}"#).is_ok());
}

#[test]
fn unknown_fields_are_ignored_at_every_level() {
    let request =
        decode(r#"{"v":2,"id":1,"pull":{"after":3,"colour":{"deep":[[[1]]]}},"trace":[]}"#);
    let pull = Pull { after: 3, ..Pull::default() };
    assert_eq!(request, Ok(Request { id: 1, operation: Operation::Pull(pull) }));
}

#[test]
fn an_unknown_operation_keeps_its_id() {
    let (id, code, message) = refused(r#"{"id": 9, "dance": {"after": 1}}"#);
    assert_eq!((id, code), (9, ErrorCode::UnknownOperation));
    assert!(message.contains("`dance`"), "{message}");
}

#[test]
fn a_wrong_field_is_named_and_not_repeated() {
    let cases = [
        (r#"{"id":1,"pull":{"after":"secret"}}"#, "`after`"),
        (r#"{"id":1,"pull":{"after":-1}}"#, "`after`"),
        (r#"{"id":1,"pull":{"after":1.5}}"#, "`after`"),
        (r#"{"id":1,"pull":{}}"#, "`after`"),
        (r#"{"id":1,"pull":[1]}"#, "`pull`"),
        (r#"{"id":1,"pull":{"after":1,"linearizable":"secret"}}"#, "`linearizable`"),
        (r#"{"id":1,"ack":{"seq":null}}"#, "`seq`"),
        (r#"{"id":1,"connect":{"token":5,"device":{"id":"d","kind":"app"}}}"#, "`token`"),
        (r#"{"id":1,"connect":{"token":"secret"}}"#, "`device`"),
        (r#"{"id":1,"connect":{"token":"secret","device":{"id":"d"}}}"#, "`device.kind`"),
        (
            r#"{"id":1,"connect":{"token":"secret","device":{"id":"d","kind":"fax"}}}"#,
            "`device.kind`",
        ),
        (r#"{"id":1,"connect":{"token":"secret","device":"d"}}"#, "`device`"),
        (r#"{"id":1,"send":{"to":"b","client_id":"c"}}"#, "`body`"),
        (r#"{"id":1,"send":{"to":"b","client_id":"c","body":["secret"]}}"#, "`body`"),
        (
            r#"{"id":1,"send":{"to":"b","client_id":"c","body":"secret","body_base64":"AA=="}}"#,
            "`body`",
        ),
        (r#"{"id":1,"send":{"to":"b","client_id":"c","body_base64":"!"}}"#, "`body_base64`"),
        (r#"{"id":1,"send":{"to":"b","client_id":"","body":"secret"}}"#, "`client_id`"),
        (r#"{"id":1,"send":{"client_id":"c","body":"secret"}}"#, "`conversation`"),
        (
            r#"{"id":1,"send":{"to":"b","conversation":"c","client_id":"c","body":"secret"}}"#,
            "`to`",
        ),
        (r#"{"id":1,"history":{"conversation":"c","before":1,"after":2}}"#, "`before`"),
        (r#"{"id":1,"create_conversation":{"kind":"zoo","members":[],"client_id":"c"}}"#, "`kind`"),
        (
            r#"{"id":1,"create_conversation":{"kind":"group","members":"b","client_id":"c"}}"#,
            "`members`",
        ),
        (
            r#"{"id":1,"create_conversation":{"kind":"group","members":[1],"client_id":"c"}}"#,
            "`members`",
        ),
        (
            r#"{"id":1,"create_conversation":{"kind":"group","members":[],"client_id":"c","retention":{"days":1}}}"#,
            "`ttl_ms`",
        ),
        (
            r#"{"id":1,"create_conversation":{"kind":"group","members":[],"client_id":"c","retention":"soon"}}"#,
            "`retention`",
        ),
        (r#"{"id":1}"#, "no operation"),
        (r#"{"id":1,"ping":{},"pull":{"after":0}}"#, "more than one"),
    ];
    for (json, expected) in cases {
        let (id, code, message) = refused(json);
        assert_eq!((id, code), (1, ErrorCode::BadRequest), "{json}");
        assert!(message.contains(expected), "{json}: {message}");
        assert!(!message.contains("secret"), "{json}: {message}");
    }
}

#[test]
fn ids_and_lists_over_their_limits_are_refused_with_their_id() {
    let long = "x".repeat(65);
    let (id, code, _) = refused(&format!(r#"{{"id":1,"leave":{{"conversation":"{long}"}}}}"#));
    assert_eq!((id, code), (1, ErrorCode::BadRequest));
    let members = vec![r#""u""#; 1_001].join(",");
    let json = format!(r#"{{"id":1,"add_members":{{"conversation":"c","members":[{members}]}}}}"#);
    assert_eq!(refused(&json).1, ErrorCode::TooLarge);
    let members = vec![r#""u""#; 100_000].join(",");
    let json = format!(r#"{{"id":1,"add_members":{{"conversation":"c","members":[{members}]}}}}"#);
    assert_eq!(refused(&json).1, ErrorCode::BadRequest);
}

#[test]
fn what_is_no_envelope_is_a_bad_frame() {
    let frames = [
        "",
        "null",
        "7",
        "[]",
        r#""id""#,
        "{",
        "{}",
        r#"{"send":{}}"#,
        r#"{"id":"1","ping":{}}"#,
        r#"{"id":-1,"ping":{}}"#,
        r#"{"id":1.5,"ping":{}}"#,
        r#"{"id":1,"ping":{}} x"#,
        r#"{"id":18446744073709551616,"ping":{}}"#,
        "nonsense",
    ];
    for frame in frames {
        assert!(matches!(decode(frame), Err(RequestError::BadFrame(_))), "{frame}");
    }
}

#[test]
fn the_pages_item_and_push_are_read() {
    let json = r#"{"items": {"items": [
        {"seq": 41, "kind": "message", "conversation": "d-1",
         "message": {"seq": 7, "sender": "alice", "at_ms": 1760000000000, "body": "hi",
                     "content_type": "text/plain", "client_id": "c-1"}},
        {"seq": 42, "kind": "expired"},
        {"seq": 43, "kind": "hologram", "conversation": "d-1", "beam": {"x": 1}}], "tail": 43}}"#;
    let frame = Encoding::Json.decode_server(json.as_bytes(), &|_| None).unwrap();
    let Some(ServerFrame::Push(Push::Items(push))) = frame else { panic!("{frame:?}") };
    assert_eq!(push.tail, 43);
    let [message, expired, later] = push.items.as_slice() else { panic!("{push:?}") };
    let ItemContent::Message { conversation, message } = &message.content else { panic!() };
    assert_eq!((conversation.as_str(), message.body.text()), ("d-1", Some("hi")));
    assert_eq!(expired, &Item { seq: 42, content: ItemContent::Expired });
    assert_eq!((later.seq, later.kind()), (43, "hologram"));
}

#[test]
fn a_reply_is_read_with_its_id_first_or_last() {
    for json in [
        r#"{"id":7,"ok":{"conversation":"c","seq":1,"at_ms":2,"duplicate":false}}"#,
        r#"{"ok":{"conversation":"c","seq":1,"at_ms":2,"duplicate":false},"id":7}"#,
    ] {
        let asked = |id| (id == 7).then_some(OperationKind::Send);
        let frame = Encoding::Json.decode_server(json.as_bytes(), &asked).unwrap();
        assert!(matches!(frame, Some(ServerFrame::Reply { id: 7, .. })), "{frame:?}");
        let frame = Encoding::Json.decode_server(json.as_bytes(), &|_| None).unwrap();
        assert_eq!(frame, None);
    }
}
