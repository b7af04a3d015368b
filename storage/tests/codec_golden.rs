//! Golden vectors: the bytes of everything that is stored or sent, pinned.
//!
//! Logs and data folders outlive builds, so these bytes may only change together with the codec's
//! version. Each list below is checked by the compiler to name every variant of its enum: a new one
//! does not build without a vector.

#![cfg(test)]

use std::fmt::Debug;

use bytes::Bytes;
use roost_storage::codec::{decode, encode};
use roost_storage::command::{Actor, Attempt, Batch, Command, Outcome, Rejection, Reply, Target};
use roost_storage::engine::Change;
use roost_storage::model::{
    ClientId, ConversationId, ConversationKind, ConversationRecord, DeviceId, DeviceKind,
    DeviceRecord, LogPosition, Member, MemberChange, Members, MembershipRecord, Message, Reference,
    Retention, Role, ShardId, UserId, UserRecord,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

const GOLDEN: &str = include_str!("golden/codec.hex");

/// The vectors found, a line each: name, space, bytes in hexadecimal digits.
#[derive(Default)]
struct Vectors(String);

impl Vectors {
    fn add<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, value: &T) {
        let bytes = encode(value);
        assert_eq!(decode::<T>(name, &bytes, 10_000).unwrap(), *value, "{name}");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0 += &format!("{name} {hex}\n");
    }
}

/// Adds a vector for each variant of an enum; leaving one out does not compile.
macro_rules! variants {
    ($vectors:ident, $enum:ident { $($variant:ident: $value:expr),* $(,)? }) => {{
        fn name(value: &$enum) -> &'static str {
            match value { $($enum::$variant { .. } => stringify!($variant)),* }
        }
        for (variant, value) in [$((stringify!($variant), $value)),*] {
            assert_eq!(name(&value), variant);
            $vectors.add(&format!("{}::{variant}", stringify!($enum)), &value);
        }
    }};
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn group() -> ConversationId {
    ConversationId::assigned(ConversationKind::Group, ShardId(1), 255)
}

fn device() -> DeviceId {
    DeviceId::new("phone").unwrap()
}

fn client_id() -> ClientId {
    ClientId::new("c-1").unwrap()
}

fn members() -> Vec<UserId> {
    vec![user("bob"), user("zoë")]
}

fn send() -> Command {
    Command::Send {
        sender: user("alice"),
        target: Target::Conversation(group()),
        client_id: client_id(),
        attempt: Attempt(0x0102_0304_0506_0708),
        body: Bytes::from_static(b"hi \xff"),
        content_type: Some("text/plain".into()),
        ttl_ms: Some(60_000),
    }
}

fn commands(vectors: &mut Vectors) {
    variants!(
        vectors,
        Command {
            Send: send(),
            CreateConversation: Command::CreateConversation {
                owner: user("alice"),
                kind: ConversationKind::Channel,
                members: members(),
                name: Some("News".into()),
                retention: Retention::Ttl { ttl_ms: 1_000 },
                client_id: client_id(),
                attempt: Attempt(1),
            },
            AddMembers: Command::AddMembers {
                actor: Actor::User(user("alice")),
                conversation: group(),
                members: members(),
            },
            RemoveMembers: Command::RemoveMembers {
                actor: Actor::Admin,
                conversation: group(),
                members: members(),
            },
            Leave: Command::Leave { user: user("bob"), conversation: group() },
            DeleteConversation: Command::DeleteConversation { conversation: group() },
            RegisterDevice: Command::RegisterDevice {
                user: user("bob"),
                device: device(),
                kind: DeviceKind::MiniProgram,
            },
            Acknowledge: Command::Acknowledge { user: user("bob"), device: device(), seq: 41 },
        }
    );
    variants!(vectors, Actor { User: Actor::User(user("alice")), Admin: Actor::Admin });
    variants!(
        vectors,
        Target { Conversation: Target::Conversation(group()), User: Target::User(user("bob")) }
    );
    let batch = Batch { at_ms: 1_760_000_000_000, commands: vec![send(), send()] };
    vectors.add("Batch", &batch);
}

fn outcomes(vectors: &mut Vectors) {
    variants!(
        vectors,
        Reply {
            Sent: Reply::Sent {
                conversation: group(),
                seq: 7,
                at_ms: 1_760_000_000_000,
                duplicate: true
            },
            Created: Reply::Created { conversation: group(), duplicate: false },
            Members: Reply::Members { count: 300 },
            Deleted: Reply::Deleted,
            Cursor: Reply::Cursor { cursor: 70_000 },
        }
    );
    variants!(
        vectors,
        Rejection {
            BadRequest: Rejection::BadRequest("why".into()),
            Forbidden: Rejection::Forbidden("why".into()),
            NotAMember: Rejection::NotAMember,
            NotFound: Rejection::NotFound("conversation".into()),
            ClientIdReused: Rejection::ClientIdReused,
            TooLarge: Rejection::TooLarge("why".into()),
        }
    );
    vectors.add::<Outcome>("Outcome::Ok", &Ok(Reply::Deleted));
    vectors.add::<Outcome>("Outcome::Err", &Err(Rejection::NotAMember));
}

fn small_enums(vectors: &mut Vectors) {
    variants!(
        vectors,
        DeviceKind {
            App: DeviceKind::App,
            Web: DeviceKind::Web,
            OfficialAccount: DeviceKind::OfficialAccount,
            MiniProgram: DeviceKind::MiniProgram,
        }
    );
    variants!(
        vectors,
        ConversationKind {
            Direct: ConversationKind::Direct,
            Group: ConversationKind::Group,
            Channel: ConversationKind::Channel,
        }
    );
    variants!(vectors, Role { Owner: Role::Owner, Admin: Role::Admin, Member: Role::Member });
    variants!(
        vectors,
        Retention { Forever: Retention::Forever, Ttl: Retention::Ttl { ttl_ms: 86_400_000 } }
    );
    variants!(
        vectors,
        MemberChange {
            Joined: MemberChange::Joined,
            Left: MemberChange::Left,
            Removed: MemberChange::Removed,
        }
    );
    variants!(
        vectors,
        Reference {
            Message: Reference::Message { conversation: group(), seq: 1 << 40 },
            Member: Reference::Member {
                conversation: group(),
                user: user("bob"),
                change: MemberChange::Removed,
            },
        }
    );
    variants!(
        vectors,
        Change {
            Put: Change::Put(b"key".to_vec(), b"value".to_vec()),
            Delete: Change::Delete(b"key".to_vec()),
        }
    );
}

fn records(vectors: &mut Vectors) {
    vectors.add("ShardId", &ShardId(258));
    vectors.add("LogPosition", &LogPosition { term: 3, index: 1_000_000 });
    vectors.add("ConversationId::direct", &ConversationId::direct(&user("bob"), &user("alice")));
    vectors.add("ConversationId::assigned", &group());
    let conversation = ConversationRecord {
        kind: ConversationKind::Group,
        name: None,
        retention: Retention::Forever,
        created_at_ms: 1_760_000_000_000,
        tail: 9,
        deleted: false,
    };
    vectors.add("ConversationRecord", &conversation);
    let member = Member { role: Role::Admin, joined_at_ms: 1_760_000_000_000 };
    vectors.add("Member", &member);
    let members: Members = members().into_iter().map(|user| (user, member.clone())).collect();
    vectors.add("Members", &members);
    let membership =
        MembershipRecord { role: Role::Member, joined_at_ms: 1_760_000_000_000, read: 251 };
    vectors.add("MembershipRecord", &membership);
    let message = Message {
        seq: 7,
        sender: user("alice"),
        at_ms: 1_760_000_000_000,
        body: Bytes::from_static(b"hi"),
        content_type: None,
        client_id: client_id(),
        expires_at_ms: Some(1_760_000_060_000),
    };
    vectors.add("Message", &message);
    vectors.add("UserRecord", &UserRecord { head: 1, tail: 250, devices: 2 });
    let device =
        DeviceRecord { kind: DeviceKind::Web, cursor: 65_536, registered_at_ms: 1_760_000_000_000 };
    vectors.add("DeviceRecord", &device);
}

#[test]
fn every_stored_or_sent_type_keeps_its_bytes() {
    let mut vectors = Vectors::default();
    commands(&mut vectors);
    outcomes(&mut vectors);
    small_enums(&mut vectors);
    records(&mut vectors);
    let found = concat!(env!("CARGO_TARGET_TMPDIR"), "/codec.hex");
    std::fs::write(found, &vectors.0).unwrap();
    for (found, golden) in vectors.0.lines().zip(GOLDEN.lines()) {
        assert_eq!(found, golden, "bytes changed: old data would not be read");
    }
    assert_eq!(
        vectors.0.lines().count(),
        GOLDEN.lines().count(),
        "vectors were added or removed; {found} has the new list"
    );
}
