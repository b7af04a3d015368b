//! The codec's promises: what goes in comes out, and nothing else is taken.

#![cfg(test)]

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use roost_storage::Fault;
use roost_storage::codec::{self, decode, decode_batch, encode, encode_batch};
use roost_storage::command::{Actor, Attempt, Batch, Command, Target};
use roost_storage::limits::{MAX_BATCH_COMMANDS, MAX_ENTRY_BYTES, MAX_ID_BYTES};
use roost_storage::model::{
    ClientId, ConversationId, ConversationKind, DeviceId, DeviceKind, Message, Retention, UserId,
};

fn id_text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9äß→_:.-]{1,20}"
}

fn user() -> impl Strategy<Value = UserId> {
    id_text().prop_map(|text| UserId::new(text).unwrap())
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    id_text().prop_map(|text| ConversationId::new(text).unwrap())
}

fn device() -> impl Strategy<Value = DeviceId> {
    id_text().prop_map(|text| DeviceId::new(text).unwrap())
}

fn client_id() -> impl Strategy<Value = ClientId> {
    id_text().prop_map(|text| ClientId::new(text).unwrap())
}

fn actor() -> impl Strategy<Value = Actor> {
    prop_oneof![user().prop_map(Actor::User), Just(Actor::Admin)]
}

fn send() -> impl Strategy<Value = Command> {
    let target =
        prop_oneof![conversation().prop_map(Target::Conversation), user().prop_map(Target::User),];
    let body = vec(any::<u8>(), 0..2_000).prop_map(Bytes::from);
    let content_type = option::of("[a-z]{1,9}/[a-z]{1,9}".prop_map(Into::into));
    (user(), target, client_id(), any::<u64>(), body, content_type, any::<Option<u64>>()).prop_map(
        |(sender, target, client_id, attempt, body, content_type, ttl_ms)| Command::Send {
            sender,
            target,
            client_id,
            attempt: Attempt(attempt),
            body,
            content_type,
            ttl_ms,
        },
    )
}

fn create() -> impl Strategy<Value = Command> {
    let kind = prop_oneof![
        Just(ConversationKind::Direct),
        Just(ConversationKind::Group),
        Just(ConversationKind::Channel),
    ];
    let retention = prop_oneof![
        Just(Retention::Forever),
        any::<u64>().prop_map(|ttl_ms| Retention::Ttl { ttl_ms }),
    ];
    let name = option::of(".{0,30}");
    (user(), kind, vec(user(), 0..20), name, retention, client_id(), any::<u64>()).prop_map(
        |(owner, kind, members, name, retention, client_id, attempt)| Command::CreateConversation {
            owner,
            kind,
            members,
            name,
            retention,
            client_id,
            attempt: Attempt(attempt),
        },
    )
}

fn device_kind() -> impl Strategy<Value = DeviceKind> {
    prop_oneof![
        Just(DeviceKind::App),
        Just(DeviceKind::Web),
        Just(DeviceKind::OfficialAccount),
        Just(DeviceKind::MiniProgram),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let members = || (actor(), conversation(), vec(user(), 0..20));
    prop_oneof![
        4 => send(),
        1 => create(),
        1 => members().prop_map(|(actor, conversation, members)| Command::AddMembers {
            actor, conversation, members
        }),
        1 => members().prop_map(|(actor, conversation, members)| Command::RemoveMembers {
            actor, conversation, members
        }),
        1 => (user(), conversation())
            .prop_map(|(user, conversation)| Command::Leave { user, conversation }),
        1 => conversation().prop_map(|conversation| Command::DeleteConversation { conversation }),
        1 => (user(), device(), device_kind())
            .prop_map(|(user, device, kind)| Command::RegisterDevice { user, device, kind }),
        1 => (user(), device(), any::<u64>())
            .prop_map(|(user, device, seq)| Command::Acknowledge { user, device, seq }),
    ]
}

fn batch() -> impl Strategy<Value = Batch> {
    (any::<u64>(), vec(command(), 0..30)).prop_map(|(at_ms, commands)| Batch { at_ms, commands })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_batch_comes_back_as_it_was(batch in batch()) {
        let bytes = encode_batch(&batch).unwrap();
        prop_assert_eq!(decode_batch(&bytes).unwrap(), batch);
    }

    #[test]
    fn a_batch_without_its_end_or_with_more_behind_it_is_refused(batch in batch(), cut: prop::sample::Index) {
        let mut bytes = encode_batch(&batch).unwrap();
        prop_assert!(decode_batch(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(decode_batch(&bytes).is_err());
    }

    #[test]
    fn nonsense_is_a_fault_and_never_a_panic(mut bytes in vec(any::<u8>(), 0..300), versioned: bool) {
        if versioned && !bytes.is_empty() {
            bytes[0] = codec::VERSION;
        }
        let _ = decode_batch(&bytes);
        let _ = decode::<Message>("a message", &bytes, 300);
    }

    #[test]
    fn a_damaged_batch_is_another_batch_or_a_fault(
        batch in batch(), at: prop::sample::Index, bit in 0..8_u8,
    ) {
        let mut bytes = encode_batch(&batch).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(other) = decode_batch(&bytes) {
            // Not every layout is the shortest, but what is read can be written.
            prop_assert_eq!(&decode_batch(&encode_batch(&other).unwrap()).unwrap(), &other);
        }
    }
}

#[test]
fn another_version_is_named_as_such() {
    let mut bytes = encode(&7_u64);
    bytes[0] = 9;
    match decode::<u64>("a number", &bytes, 100) {
        Err(Fault::Version { what, found: 9, supported: codec::VERSION }) => {
            assert_eq!(what, "a number");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn input_past_the_callers_bound_is_refused() {
    let bytes = encode(&"x".repeat(100));
    let len = bytes.len();
    assert_eq!(decode::<String>("a text", &bytes, len).unwrap().len(), 100);
    let fault = decode::<String>("a text", &bytes, len - 1).unwrap_err();
    assert_eq!(fault.to_string(), "corrupt data: a text has 102 bytes, more than 101");
}

#[test]
fn a_length_that_the_input_does_not_have_allocates_nothing() {
    // A text, and a list, of 2^62 elements: bincode's marker for a u64, then the number.
    let mut bytes = vec![codec::VERSION, 253];
    bytes.extend_from_slice(&(1_u64 << 62).to_le_bytes());
    assert!(decode::<String>("a text", &bytes, 100).is_err());
    assert!(decode::<Bytes>("bytes", &bytes, 100).is_err());
    assert!(decode::<Vec<u64>>("a list", &bytes, 100).is_err());
}

#[test]
fn ids_outside_their_bounds_do_not_decode() {
    for len in [0, MAX_ID_BYTES + 1] {
        let bytes = encode(&"x".repeat(len));
        assert!(decode::<UserId>("a user", &bytes, 100).is_err(), "{len} bytes");
    }
    let bytes = encode(&"x".repeat(MAX_ID_BYTES));
    assert_eq!(decode::<UserId>("a user", &bytes, 100).unwrap().as_str().len(), MAX_ID_BYTES);
}

#[test]
fn the_text_of_a_fault_has_no_content() {
    let mut bytes = encode(&"a secret body".to_owned());
    bytes.push(0);
    let text = decode::<String>("a body", &bytes, 100).unwrap_err().to_string();
    assert!(!text.contains("secret"), "{text}");
}

fn acknowledge() -> Command {
    let (user, device) = (UserId::new("u").unwrap(), DeviceId::new("d").unwrap());
    Command::Acknowledge { user, device, seq: 1 }
}

#[test]
fn a_batch_past_the_bounds_of_an_entry_is_refused_on_both_sides() {
    let full = Batch { at_ms: 1, commands: vec![acknowledge(); MAX_BATCH_COMMANDS] };
    assert_eq!(decode_batch(&encode_batch(&full).unwrap()).unwrap(), full);
    let many = Batch { at_ms: 1, commands: vec![acknowledge(); MAX_BATCH_COMMANDS + 1] };
    encode_batch(&many).unwrap_err();
    assert!(matches!(decode_batch(&encode(&many)), Err(Fault::Corrupt(_))));

    let large = Command::Send {
        sender: UserId::new("u").unwrap(),
        target: Target::User(UserId::new("v").unwrap()),
        client_id: ClientId::new("c").unwrap(),
        attempt: Attempt(1),
        body: vec![0; MAX_ENTRY_BYTES].into(),
        content_type: None,
        ttl_ms: None,
    };
    let large = Batch { at_ms: 1, commands: vec![large] };
    assert!(encode_batch(&large).unwrap_err().bytes > MAX_ENTRY_BYTES);
    assert!(matches!(decode_batch(&encode(&large)), Err(Fault::Corrupt(_))));
}
