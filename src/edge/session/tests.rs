//! The state machine, as scripts: what happens, and what is done about it.
//!
//! A step's actions are compared as text: `< …` is a frame to the client, the rest says what the
//! task is asked to do.

use bytes::Bytes;
use roost_cluster::{Committed, SubmitError};
use roost_protocol::limits::{Limits, MAX_IN_FLIGHT};
use roost_protocol::reply::Connected;
use roost_protocol::{
    CloseCode, Device, DeviceKind, Encoding, ErrorBody, ErrorCode, Framing, Item, ItemContent,
    OkBody, OperationKind,
};
use roost_storage::command::{Command, Rejection, Reply, Target};
use roost_storage::model::{ConversationId, DeviceId, UserId};

use super::event::{Action, Admission, Event, Job, PushPage};
use super::machine::{MAX_QUEUED_BYTES, Session};

const NOW_MS: u64 = 1_760_000_000_000;

struct Script(Session);

impl Script {
    fn new() -> Self {
        Self(Session::new(Framing::Bare(Encoding::Json), 100))
    }

    /// A script after a `connect` with this window, at a queue of `tail` items of which the device
    /// acknowledged `cursor`.
    fn connected(window: u64, cursor: u64, tail: u64) -> Self {
        let mut script = Self::new();
        script.client(
            r#"{"id": 1, "connect": {"token": "t", "device": {"id": "phone", "kind": "app"}}}"#,
        );
        script.step(admitted(window, cursor, tail));
        script.written();
        script
    }

    fn step(&mut self, event: Event) -> Vec<String> {
        let mut actions = Vec::new();
        self.0.step(NOW_MS, event, &mut actions);
        actions.iter().filter_map(shown).collect()
    }

    fn client(&mut self, json: &str) -> Vec<String> {
        assert!(self.0.wants_input(), "the session reads nothing now");
        self.step(Event::Frame(Bytes::copy_from_slice(json.as_bytes())))
    }

    /// The command of request `id` is done.
    fn committed(&mut self, id: u64, operation: OperationKind, reply: Reply) -> Vec<String> {
        let result = Ok(Committed { reply, index: 40 + id });
        self.step(Event::Committed { job: Job::Request { id, operation }, result })
    }

    fn acked(&mut self, ids: &[u64], cursor: u64) -> Vec<String> {
        let result = Ok(Committed { reply: Reply::Cursor { cursor }, index: 50 });
        self.step(Event::Committed { job: Job::Acks { ids: ids.to_vec() }, result })
    }

    /// The page that was asked for has these items.
    fn page(&mut self, seqs: impl IntoIterator<Item = u64>, tail: u64) -> Vec<String> {
        let items =
            seqs.into_iter().map(|seq| Item { seq, content: ItemContent::Expired }).collect();
        self.step(Event::Page(Ok(PushPage { items, tail, applied: 9 })))
    }

    /// The transport takes over everything.
    fn written(&mut self) -> Vec<String> {
        let (frames, bytes) = self.0.queued();
        self.step(Event::Written { frames, bytes })
    }
}

fn admitted(window: u64, cursor: u64, tail: u64) -> Event {
    Event::Admitted(Box::new(Admission {
        id: 1,
        user: UserId::new("alice").unwrap(),
        device: DeviceId::new("phone").unwrap(),
        connected: Connected {
            user: "alice".into(),
            device: Device { id: "phone".into(), kind: DeviceKind::App },
            node: 1,
            head: 1,
            tail,
            cursor,
            resumed: true,
            applied: 7,
            server_time_ms: NOW_MS,
            limits: Limits::default(),
        },
        start: cursor,
        acknowledged: cursor,
        window,
    }))
}

/// An action as text; counting is not shown.
fn shown(action: &Action) -> Option<String> {
    Some(match action {
        Action::Count { .. } | Action::CountPushed(_) => return None,
        Action::Send(frame) => shown_frame(frame),
        Action::Admit { id, .. } => format!("admit {id}"),
        Action::Submit { job: Job::Request { id, .. }, command } => {
            format!("submit {id}: {}", shown_command(command))
        }
        Action::Submit { job: Job::Acks { ids }, command } => {
            format!("submit {ids:?}: {}", shown_command(command))
        }
        Action::Read { id, query, seen } => {
            format!("read {id}: {} seen {seen}", query.operation().as_str())
        }
        Action::ReadQueue { after, limit } => format!("read queue after {after}, {limit}"),
        Action::Close { code, .. } => format!("close {} {code}", code.number()),
    })
}

fn shown_frame(frame: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(frame).unwrap();
    if let Some(error) = value.get("error") {
        return format!("< {} error {}", value["id"], error["code"].as_str().unwrap());
    }
    if let Some(push) = value.get("items") {
        let seqs: Vec<_> =
            push["items"].as_array().unwrap().iter().map(|item| &item["seq"]).collect();
        return format!("< items {seqs:?} tail {}", push["tail"])
            .replace("Number(", "")
            .replace(')', "");
    }
    if let Some(closing) = value.get("closing") {
        return format!("< closing {}", closing["code"].as_str().unwrap());
    }
    if value["ok"].get("limits").is_some() {
        return format!("< {} connected", value["id"]);
    }
    format!("< {} ok {}", value["id"], value["ok"])
}

fn shown_command(command: &Command) -> String {
    match command {
        Command::Send { target: Target::User(user), attempt, body, .. } => {
            format!("send {:?} to {user} as attempt {}", String::from_utf8_lossy(body), attempt.0)
        }
        Command::Acknowledge { seq, .. } => format!("acknowledge {seq}"),
        Command::Leave { conversation, .. } => format!("leave {conversation}"),
        other => format!("{other:?}"),
    }
}

fn send(id: u64, body: &str) -> String {
    format!(r#"{{"id": {id}, "send": {{"to": "bob", "client_id": "c{id}", "body": "{body}"}}}}"#)
}

fn ack(id: u64, seq: u64) -> String {
    format!(r#"{{"id": {id}, "ack": {{"seq": {seq}}}}}"#)
}

fn sent(seq: u64) -> Reply {
    let conversation = ConversationId::new("d-1").unwrap();
    Reply::Sent { conversation, seq, at_ms: 5, duplicate: false }
}

const CONNECT: &str =
    r#"{"id": 1, "connect": {"token": "t", "device": {"id": "phone", "kind": "app"}}}"#;

#[test]
fn a_client_connects_and_is_pushed_what_it_missed() {
    let mut s = Script::new();
    assert_eq!(s.client(CONNECT), ["admit 1"]);
    assert!(!s.0.wants_input(), "what follows `connect` waits for its answer");
    assert_eq!(s.step(admitted(3, 2, 6)), ["< 1 connected", "read queue after 2, 3"]);
    assert_eq!(s.page(3..=5, 6), ["< items [3, 4, 5] tail 6"]);
    assert_eq!(s.client(&ack(2, 4)), ["submit [2]: acknowledge 4"]);
    assert_eq!(s.acked(&[2], 4), [r#"< 2 ok {"applied":50,"cursor":4}"#, "read queue after 5, 2"]);
    assert_eq!(s.page([6], 6), ["< items [6] tail 6"]);
}

#[test]
fn anything_before_connect_is_refused_and_the_connection_goes_on() {
    let mut s = Script::new();
    for operation in [
        r#""ping": {}"#,
        r#""send": {"to": "b", "client_id": "1", "body": ""}"#,
        r#""send": {"to": 7}"#,
        r#""dance": {}"#,
    ] {
        let request = format!(r#"{{"id": 9, {operation}}}"#);
        assert_eq!(s.client(&request), ["< 9 error not_connected"]);
    }
    assert_eq!(s.client(CONNECT), ["admit 1"]);
}

#[test]
fn without_connect_in_time_the_connection_ends() {
    let mut s = Script::new();
    assert_eq!(s.client(r#"{"id": 9, "ping": {}}"#), ["< 9 error not_connected"]);
    assert_eq!(s.step(Event::ConnectTimeout), ["< closing idle", "close 4004 idle"]);
    let mut s = Script::connected(0, 0, 0);
    assert!(s.step(Event::ConnectTimeout).is_empty());
}

#[test]
fn a_bad_token_ends_the_connection_and_no_leader_does_not() {
    let refused = |code| Event::Refused { id: 1, error: ErrorBody::new(code, "") };
    let mut s = Script::new();
    s.client(CONNECT);
    assert_eq!(
        s.step(refused(ErrorCode::Unauthorized)),
        ["< 1 error unauthorized", "< closing unauthorized", "close 4001 unauthorized"]
    );
    let mut s = Script::new();
    s.client(CONNECT);
    assert_eq!(s.step(refused(ErrorCode::NotAvailable)), ["< 1 error not_available"]);
    assert_eq!(s.client(CONNECT), ["admit 1"]);
}

#[test]
fn a_second_connect_is_refused() {
    let mut s = Script::connected(0, 0, 0);
    assert_eq!(s.client(CONNECT), ["< 1 error bad_request"]);
    assert!(s.0.wants_input());
}

#[test]
fn sends_leave_in_order_and_are_answered_as_they_finish() {
    let mut s = Script::connected(0, 0, 0);
    assert_eq!(s.client(&send(2, "a")), [r#"submit 2: send "a" to bob as attempt 101"#]);
    assert_eq!(s.client(&send(3, "b")), [r#"submit 3: send "b" to bob as attempt 102"#]);
    let answer = |id, seq, applied| {
        format!(
            r#"< {id} ok {{"applied":{applied},"at_ms":5,"conversation":"d-1","duplicate":false,"seq":{seq}}}"#
        )
    };
    assert_eq!(s.committed(3, OperationKind::Send, sent(2)), [answer(3, 2, 43)]);
    assert_eq!(s.committed(2, OperationKind::Send, sent(1)), [answer(2, 1, 42)]);
}

#[test]
fn a_failed_command_says_why_and_the_connection_goes_on() {
    let mut s = Script::connected(0, 0, 0);
    for (why, code) in [
        (SubmitError::Rejected(Rejection::NotAMember), "not_a_member"),
        (SubmitError::NotAvailable, "not_available"),
        (SubmitError::DeadlineExceeded, "deadline_exceeded"),
        (SubmitError::Overloaded, "overloaded"),
    ] {
        s.client(&send(2, "a"));
        let job = Job::Request { id: 2, operation: OperationKind::Send };
        let answer = s.step(Event::Committed { job, result: Err(why) });
        assert_eq!(answer, [format!("< 2 error {code}")]);
    }
}

#[test]
fn reads_reflect_what_this_connection_did() {
    let mut s = Script::connected(0, 0, 0);
    s.client(&send(2, "a"));
    assert_eq!(s.client(r#"{"id": 3, "pull": {"after": 0}}"#), ["read 3: pull seen 7"]);
    s.committed(2, OperationKind::Send, sent(1));
    assert_eq!(
        s.client(r#"{"id": 4, "history": {"conversation": "d-1"}}"#),
        ["read 4: history seen 42"]
    );
}

#[test]
fn few_reads_run_at_once() {
    let mut s = Script::connected(0, 0, 0);
    let pull = |id: u64| format!(r#"{{"id": {id}, "pull": {{"after": 0}}}}"#);
    assert_eq!(s.client(&pull(2)), ["read 2: pull seen 7"]);
    assert_eq!(s.client(&pull(3)), ["read 3: pull seen 7"]);
    assert!(s.client(&pull(4)).is_empty());
    let result = Err(ErrorBody::new(ErrorCode::DeadlineExceeded, ""));
    let answered = Event::Answered { id: 2, operation: OperationKind::Pull, result };
    assert_eq!(s.step(answered), ["< 2 error deadline_exceeded", "read 4: pull seen 7"]);
}

#[test]
fn acknowledgements_travel_together() {
    let mut s = Script::connected(0, 0, 9);
    assert_eq!(s.client(&ack(2, 1)), ["submit [2]: acknowledge 1"]);
    assert!(s.client(&ack(3, 2)).is_empty());
    assert!(s.client(&ack(4, 3)).is_empty());
    assert_eq!(
        s.acked(&[2], 1),
        [r#"< 2 ok {"applied":50,"cursor":1}"#, "submit [3, 4]: acknowledge 3"]
    );
    assert_eq!(
        s.acked(&[3, 4], 3),
        [r#"< 3 ok {"applied":50,"cursor":3}"#, r#"< 4 ok {"applied":50,"cursor":3}"#]
    );
}

#[test]
fn an_acknowledgement_of_the_future_is_the_stores_to_refuse() {
    let mut s = Script::connected(0, 0, 2);
    assert_eq!(s.client(&ack(2, 1)), ["submit [2]: acknowledge 1"]);
    s.client(&ack(3, 999));
    s.client(&ack(4, 2));
    assert_eq!(s.acked(&[2], 1)[1], "submit [3]: acknowledge 999");
    let result = Err(SubmitError::Rejected(Rejection::BadRequest("beyond the tail".into())));
    assert_eq!(
        s.step(Event::Committed { job: Job::Acks { ids: vec![3] }, result }),
        ["< 3 error bad_request", "submit [4]: acknowledge 2"]
    );
}

#[test]
fn a_hint_wakes_the_push_and_a_late_one_does_nothing() {
    let mut s = Script::connected(10, 0, 0);
    assert!(s.page([], 0).is_empty());
    assert_eq!(s.step(Event::Grew(2)), ["read queue after 0, 10"]);
    assert!(s.step(Event::Grew(3)).is_empty(), "one page at a time");
    assert_eq!(s.page(1..=3, 3), ["< items [1, 2, 3] tail 3"]);
    assert!(s.step(Event::Grew(3)).is_empty());
    assert_eq!(s.step(Event::Look), ["read queue after 3, 7"]);
}

#[test]
fn with_window_zero_nothing_is_pushed() {
    let mut s = Script::connected(0, 0, 5);
    assert!(s.step(Event::Grew(6)).is_empty());
    assert!(s.step(Event::Look).is_empty());
}

#[test]
fn a_trimmed_queue_ends_the_connection_instead_of_leaving_a_hole() {
    let mut s = Script::connected(10, 0, 9);
    assert_eq!(s.page(5..=9, 9), ["< closing too_slow", "close 4004 too_slow"]);
}

#[test]
fn a_client_that_does_not_read_is_neither_pushed_to_nor_read_for() {
    let mut s = Script::connected(1_000, 0, 900);
    let page = |seqs: std::ops::RangeInclusive<u64>| {
        let message = |seq| roost_protocol::Message {
            seq,
            sender: "bob".into(),
            at_ms: 1,
            body: "x".repeat(4_096).into(),
            content_type: None,
            client_id: "1".into(),
            expires_at_ms: None,
        };
        let items = seqs.map(|seq| Item {
            seq,
            content: ItemContent::Message { conversation: "d-1".into(), message: message(seq) },
        });
        Event::Page(Ok(PushPage { items: items.collect(), tail: 900, applied: 9 }))
    };
    let first = s.step(page(1..=100));
    assert_eq!(first.len(), 1, "the page is sent, and none is read after it: {first:?}");
    assert!(s.0.queued().1 > MAX_QUEUED_BYTES);
    assert!(!s.0.wants_input());
    assert!(s.step(Event::Grew(901)).is_empty());
    assert_eq!(s.written(), ["read queue after 100, 500"]);
    assert!(s.0.wants_input());
}

#[test]
fn too_many_open_requests_stop_the_reading() {
    let mut s = Script::connected(0, 0, 0);
    for id in 2..2 + MAX_IN_FLIGHT as u64 {
        s.client(&send(id, "a"));
    }
    assert!(!s.0.wants_input());
    s.committed(2, OperationKind::Send, sent(1));
    assert!(!s.0.wants_input(), "an answer that is not written yet still counts");
    s.written();
    assert!(s.0.wants_input());
}

#[test]
fn operations_of_later_versions_and_unknown_ones_are_refused_by_name() {
    let mut s = Script::connected(0, 0, 0);
    for operation in [
        r#""typing": {"conversation": "c"}"#,
        r#""presence": {"users": []}"#,
        r#""read": {"conversation": "c", "seq": 1}"#,
        r#""dance": {}"#,
    ] {
        let request = format!(r#"{{"id": 9, {operation}}}"#);
        assert_eq!(s.client(&request), ["< 9 error unknown_operation"]);
    }
    assert_eq!(s.client(r#"{"id": 9, "pull": {}}"#), ["< 9 error bad_request"]);
}

#[test]
fn nonsense_ends_the_connection() {
    for nonsense in ["", "hello", "[]", r#"{"ping": {}}"#, r#"{"id": -1, "ping": {}}"#, "{"] {
        let mut s = Script::connected(0, 0, 0);
        let done = s.client(nonsense);
        assert_eq!(done, ["< closing bad_frame", "close 4003 bad_frame"], "{nonsense}");
        assert!(s.step(Event::Grew(5)).is_empty(), "nothing happens after the end");
    }
    let mut s = Script::new();
    assert_eq!(
        s.step(Event::Unreadable(CloseCode::FrameTooLarge)),
        ["< closing frame_too_large", "close 4003 frame_too_large"]
    );
}

#[test]
fn ping_tells_the_time() {
    let mut s = Script::connected(0, 0, 0);
    let pong = format!(r#"< 2 ok {{"server_time_ms":{NOW_MS}}}"#);
    assert_eq!(s.client(r#"{"id": 2, "ping": {}}"#), [pong]);
}

#[test]
fn a_stopping_node_answers_what_it_took_and_takes_nothing_more() {
    let mut s = Script::connected(10, 0, 0);
    s.client(&send(2, "a"));
    assert!(s.step(Event::ShuttingDown).is_empty());
    assert!(!s.0.wants_input());
    let last = s.committed(2, OperationKind::Send, sent(1));
    assert_eq!(last[1..], ["< closing shutting_down", "close 4000 shutting_down"]);
    let mut s = Script::new();
    assert_eq!(
        s.step(Event::ShuttingDown),
        ["< closing shutting_down", "close 4000 shutting_down"]
    );
}

#[test]
fn each_end_has_its_code() {
    for (code, number) in [
        (CloseCode::Replaced, 4002),
        (CloseCode::Unauthorized, 4001),
        (CloseCode::Idle, 4004),
        (CloseCode::Overloaded, 4005),
    ] {
        let mut s = Script::connected(0, 0, 0);
        let done = s.step(Event::End(code));
        assert_eq!(done, [format!("< closing {code}"), format!("close {number} {code}")]);
    }
}

#[test]
fn answers_that_come_after_the_end_are_dropped() {
    let mut s = Script::connected(0, 0, 0);
    s.client(&send(2, "a"));
    s.step(Event::End(CloseCode::Replaced));
    assert!(s.committed(2, OperationKind::Send, sent(1)).is_empty());
    let result = Ok(OkBody::Pong(roost_protocol::reply::Pong { server_time_ms: 1 }));
    assert!(s.step(Event::Answered { id: 3, operation: OperationKind::Pull, result }).is_empty());
}
