//! Devices: registered, acknowledging, and no more of them than may be.

use crate::commands::refused;
use crate::support::*;
use roost_storage::command::{Command, Effect, Rejection, Reply};
use roost_storage::limits::MAX_DEVICES_PER_USER;
use roost_storage::model::DeviceKind;

#[test]
fn devices_keep_their_cursors() {
    let mut node = Node::new();
    assert_eq!(node.run(register("bob", "phone")), Ok(Reply::Cursor { cursor: 0 }));
    for n in 0..5 {
        node.run(send_to("alice", "bob", &n.to_string(), "hi")).unwrap();
    }
    let applied = node.apply_at(0, vec![acknowledge("bob", "phone", 3)]);
    assert_eq!(applied.outcomes, [Ok(Reply::Cursor { cursor: 3 })]);
    let moved = Effect::CursorMoved { user: user("bob"), device: device("phone"), cursor: 3 };
    assert_eq!(applied.effects, [moved]);
    let again = node.apply_at(0, vec![acknowledge("bob", "phone", 2)]);
    assert_eq!(again.outcomes, [Ok(Reply::Cursor { cursor: 3 })]);
    assert!(again.effects.is_empty());
    let future = acknowledge("bob", "phone", 6);
    assert!(matches!(refused(&mut node, future), Rejection::BadRequest(_)));
    let unknown = acknowledge("bob", "watch", 1);
    assert_eq!(refused(&mut node, unknown), Rejection::NotFound("device".to_owned()));
    let kind = DeviceKind::Web;
    let (bob, phone) = (user("bob"), device("phone"));
    let web = Command::RegisterDevice { user: bob.clone(), device: phone.clone(), kind };
    assert_eq!(node.run(web), Ok(Reply::Cursor { cursor: 3 }));
    let record = node.store.view(|view| view.device(&bob, &phone)).unwrap().unwrap();
    assert_eq!((record.kind, record.cursor), (DeviceKind::Web, 3));
    assert_eq!(node.store.devices(&bob).unwrap(), [(phone, record)]);
}

#[test]
fn a_user_has_a_bounded_number_of_devices() {
    let mut node = Node::new();
    for n in 0..MAX_DEVICES_PER_USER {
        node.run(register("bob", &n.to_string())).unwrap();
    }
    node.store.checkpoint().unwrap();
    assert!(matches!(refused(&mut node, register("bob", "one more")), Rejection::TooLarge(_)));
    node.run(register("bob", "7")).unwrap();
    assert_eq!(node.store.devices(&user("bob")).unwrap().len(), MAX_DEVICES_PER_USER);
}
