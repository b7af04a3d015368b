//! One envelope of each kind, by name.

use roost_protocol::limits::Limits;
use roost_protocol::reply::{
    Acked, Changed, Closing, Connected, ConversationsPage, Created, HistoryPage, ItemsPush,
    MembersCount, Nothing, OnlineDevice, Page, Pong, PresencePush, ReadDone, Sent, TypingPush,
};
use roost_protocol::request::{
    Ack, ChangeMembers, Connect, Conversations, CreateConversation, Edit, History, Leave, MarkRead,
    Ping, Pull, QueryPresence, Recall, SendMessage, Typing,
};
use roost_protocol::{
    Body, CloseCode, ConversationKind, ConversationSummary, Device, DeviceKind, ErrorBody,
    ErrorCode, Item, ItemContent, MemberChange, Message, OkBody, Operation, OperationKind, Push,
    ReadMarker, Recalled, Request, Retention, Role, ServerFrame, Target, Token,
};

fn phone() -> Device {
    Device { id: "phone".into(), kind: DeviceKind::App }
}

pub(crate) fn message(body: Body) -> Message {
    Message {
        seq: 7,
        sender: "alice".into(),
        at_ms: 1_760_000_000_000,
        body,
        content_type: None,
        client_id: "c-1".into(),
        expires_at_ms: None,
    }
}

fn full_message() -> Message {
    Message {
        content_type: Some("text/plain".into()),
        expires_at_ms: Some(1_760_000_060_000),
        ..message("hi \u{1f44b}".into())
    }
}

/// Operations by file name.
pub(crate) fn operations() -> Vec<(&'static str, Operation)> {
    let conversation = || "g-0-1".into();
    let members = || vec!["bob".into(), "carol".into()];
    let send = SendMessage {
        target: Target::User("bob".into()),
        client_id: "c-1".into(),
        body: "hi".into(),
        content_type: None,
        ttl_ms: None,
    };
    let connect = Connect {
        token: Token::from("header.claims.signature"),
        device: phone(),
        after: None,
        window: None,
        applied: None,
    };
    let history = History {
        conversation: conversation(),
        before: None,
        after: None,
        limit: None,
        applied: None,
    };
    let create = CreateConversation {
        kind: ConversationKind::Group,
        members: members(),
        name: None,
        retention: None,
        client_id: "c-2".into(),
    };
    vec![
        ("connect", Operation::Connect(connect.clone())),
        (
            "connect_resume",
            Operation::Connect(Connect {
                after: Some(41),
                window: Some(64),
                applied: Some(900),
                ..connect
            }),
        ),
        ("send_to_user", Operation::Send(send.clone())),
        (
            "send_to_conversation",
            Operation::Send(SendMessage {
                target: Target::Conversation(conversation()),
                content_type: Some("text/plain".into()),
                ttl_ms: Some(60_000),
                ..send.clone()
            }),
        ),
        ("send_binary", Operation::Send(SendMessage { body: vec![0xff, 0, 1].into(), ..send })),
        ("pull", Operation::Pull(Pull { after: 40, ..Pull::default() })),
        (
            "pull_linearizable",
            Operation::Pull(Pull {
                after: 40,
                limit: Some(500),
                linearizable: true,
                applied: Some(9),
            }),
        ),
        ("ack", Operation::Ack(Ack { seq: 41 })),
        ("history", Operation::History(history.clone())),
        (
            "history_before",
            Operation::History(History {
                before: Some(7),
                limit: Some(20),
                applied: Some(9),
                ..history.clone()
            }),
        ),
        ("history_after", Operation::History(History { after: Some(7), ..history })),
        ("read", Operation::Read(MarkRead { conversation: conversation(), seq: 7 })),
        (
            "edit",
            Operation::Edit(Edit {
                conversation: conversation(),
                seq: 7,
                client_id: "c-3".into(),
                body: "hello".into(),
            }),
        ),
        (
            "recall",
            Operation::Recall(Recall {
                conversation: conversation(),
                seq: 7,
                client_id: "c-4".into(),
            }),
        ),
        ("typing", Operation::Typing(Typing { conversation: conversation() })),
        ("conversations", Operation::Conversations(Conversations::default())),
        (
            "conversations_next",
            Operation::Conversations(Conversations {
                after: Some("g-0-1".into()),
                limit: Some(50),
                applied: Some(9),
            }),
        ),
        ("create_conversation", Operation::CreateConversation(create.clone())),
        (
            "create_conversation_ttl",
            Operation::CreateConversation(CreateConversation {
                name: Some("Lunch".into()),
                retention: Some(Retention::Ttl { ttl_ms: 86_400_000 }),
                ..create.clone()
            }),
        ),
        (
            "create_channel_forever",
            Operation::CreateConversation(CreateConversation {
                kind: ConversationKind::Channel,
                retention: Some(Retention::Forever),
                ..create
            }),
        ),
        (
            "add_members",
            Operation::AddMembers(ChangeMembers {
                conversation: conversation(),
                members: members(),
            }),
        ),
        (
            "remove_members",
            Operation::RemoveMembers(ChangeMembers {
                conversation: conversation(),
                members: members(),
            }),
        ),
        ("leave", Operation::Leave(Leave { conversation: conversation() })),
        ("presence", Operation::Presence(QueryPresence { users: members() })),
        ("ping", Operation::Ping(Ping {})),
    ]
}

/// Requests by file name.
pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    operations().into_iter().map(|(name, operation)| (name, Request { id: 7, operation })).collect()
}

/// One item of each kind.
pub(crate) fn items() -> Vec<Item> {
    let conversation = || "g-0-1".into();
    let contents = [
        ItemContent::Message { conversation: conversation(), message: full_message() },
        ItemContent::Message {
            conversation: conversation(),
            message: message(vec![0xff, 0].into()),
        },
        ItemContent::Edit { conversation: conversation(), message: message("hello".into()) },
        ItemContent::Recall {
            conversation: conversation(),
            message: Recalled { seq: 7, sender: "alice".into(), at_ms: 1_760_000_000_000 },
        },
        ItemContent::Read {
            conversation: conversation(),
            read: ReadMarker { user: "bob".into(), seq: 7 },
        },
        ItemContent::Member {
            conversation: conversation(),
            user: "carol".into(),
            change: MemberChange::Joined,
        },
        ItemContent::Expired,
    ];
    (41..).zip(contents).map(|(seq, content)| Item { seq, content }).collect()
}

/// A conversation in a list.
pub(crate) fn summary() -> ConversationSummary {
    ConversationSummary {
        id: "g-0-1".into(),
        kind: ConversationKind::Group,
        name: Some("Lunch".into()),
        role: Role::Owner,
        tail: 9,
        read: 7,
        unread: 2,
        last: Some(full_message()),
    }
}

/// Replies by file name, with the operation that they answer.
pub(crate) fn replies() -> Vec<(&'static str, OperationKind, OkBody)> {
    let connected = Connected {
        user: "alice".into(),
        device: phone(),
        node: 2,
        head: 1,
        tail: 47,
        cursor: 40,
        resumed: true,
        applied: 900,
        server_time_ms: 1_760_000_000_000,
        limits: Limits::default(),
    };
    let sent = Sent {
        conversation: "g-0-1".into(),
        seq: 7,
        at_ms: 1_760_000_000_000,
        duplicate: false,
        applied: 901,
    };
    let page = Page { items: items(), head: 1, tail: 47, more: false, applied: 901 };
    let plain = ConversationSummary { name: None, last: None, ..summary() };
    let online = OnlineDevice { device: "phone".into(), kind: DeviceKind::App, since_ms: 1 };
    let presence = [("bob".into(), vec![online]), ("carol".into(), vec![])].into();
    let kind = OperationKind::from_text;
    let reply = |name, operation, ok| (name, kind(operation).unwrap(), ok);
    vec![
        reply("connect", "connect", OkBody::Connected(Box::new(connected))),
        reply("send", "send", OkBody::Sent(sent)),
        reply("pull", "pull", OkBody::Page(page)),
        reply("ack", "ack", OkBody::Acked(Acked { cursor: 41, applied: 902 })),
        reply(
            "history",
            "history",
            OkBody::History(HistoryPage {
                messages: vec![full_message(), message(vec![0xff].into())],
                more: true,
                applied: 901,
            }),
        ),
        reply("read", "read", OkBody::Read(ReadDone { seq: 7, applied: 903 })),
        reply("edit", "edit", OkBody::Changed(Changed { seq: 8, at_ms: 1, applied: 904 })),
        reply("recall", "recall", OkBody::Changed(Changed { seq: 9, at_ms: 2, applied: 905 })),
        reply("typing", "typing", OkBody::Typing(Nothing {})),
        reply(
            "conversations",
            "conversations",
            OkBody::Conversations(ConversationsPage {
                conversations: vec![summary(), plain],
                more: true,
                next: Some("g-0-1".into()),
                applied: 901,
            }),
        ),
        reply(
            "create_conversation",
            "create_conversation",
            OkBody::Created(Created {
                conversation: "g-0-1".into(),
                duplicate: false,
                applied: 906,
            }),
        ),
        reply(
            "add_members",
            "add_members",
            OkBody::Members(MembersCount { members: 3, applied: 907 }),
        ),
        reply("leave", "leave", OkBody::Members(MembersCount { members: 2, applied: 908 })),
        reply("presence", "presence", OkBody::Presence(presence)),
        reply("ping", "ping", OkBody::Pong(Pong { server_time_ms: 1_760_000_000_000 })),
    ]
}

/// Envelopes from a node by file name, with the operation that a reply answers.
pub(crate) fn frames() -> Vec<(String, OperationKind, ServerFrame)> {
    let mut frames: Vec<_> = replies()
        .into_iter()
        .map(|(name, kind, ok)| (format!("reply_{name}"), kind, ServerFrame::Reply { id: 7, ok }))
        .collect();
    let ping = OperationKind::Ping;
    let error = |error| ServerFrame::Error { id: 7, error };
    let refused = ErrorBody::new(ErrorCode::NotAMember, "not a member of this conversation");
    frames.push(("error".into(), ping, error(refused)));
    let limited = ErrorBody::new(ErrorCode::RateLimited, "too many sends").after_ms(1_500);
    frames.push(("error_rate_limited".into(), ping, error(limited)));
    let mut push = |name: &str, push| {
        frames.push((format!("push_{name}"), ping, ServerFrame::Push(push)));
    };
    push("items", Push::Items(ItemsPush { items: items(), tail: 47, applied: 901 }));
    let typing = TypingPush { conversation: "g-0-1".into(), user: "bob".into() };
    push("typing", Push::Typing(typing));
    let presence = PresencePush {
        user: "bob".into(),
        device: "phone".into(),
        kind: DeviceKind::App,
        online: true,
    };
    push("presence", Push::Presence(presence));
    push("closing", Push::Closing(Closing::new(CloseCode::ShuttingDown, "this node stops")));
    let mut overloaded = Closing::new(CloseCode::Overloaded, "too many connections");
    overloaded.retry_after_ms = Some(2_000);
    push("closing_overloaded", Push::Closing(overloaded));
    frames
}
