//! Files for the corpora, made by the store and the log themselves on a simulated disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use roost_storage::codec;
use roost_storage::command::{Attempt, Batch, Command, Target};
use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::sim::SimDisk;
use roost_storage::fs::{Disk as _, OpenMode};
use roost_storage::model::{ConversationKind, DeviceKind, LogPosition, Retention};
use roost_storage::store::{Payload, Store, StoreOptions};

/// The store's folder.
pub(super) const STORE: &str = "store";

/// Some of every command.
pub(super) fn batches() -> Vec<Vec<u8>> {
    let user = |name: &str| name.parse().expect("a short name is a user");
    let device = || "phone".parse().expect("a short name is a device");
    let client = |n: u64| format!("c{n}").parse().expect("a short name is a client id");
    let create = Command::CreateConversation {
        owner: user("alice"),
        kind: ConversationKind::Group,
        members: vec![user("bob"), user("carol")],
        name: Some("a name".to_owned()),
        retention: Retention::Ttl { ttl_ms: 60_000 },
        client_id: client(0),
        attempt: Attempt(1),
    };
    let send = |n: u64| Command::Send {
        sender: user("alice"),
        target: Target::User(user(if n.is_multiple_of(2) { "bob" } else { "carol" })),
        client_id: client(n),
        attempt: Attempt(n),
        body: vec![b'x'; 20 * n as usize].into(),
        content_type: None,
        ttl_ms: n.is_multiple_of(3).then_some(1_000),
    };
    let register =
        Command::RegisterDevice { user: user("bob"), device: device(), kind: DeviceKind::App };
    let acknowledge = Command::Acknowledge { user: user("bob"), device: device(), seq: 1 };
    let batch = |at_ms: u64, commands: Vec<Command>| {
        codec::encode_batch(&Batch { at_ms, commands }).expect("a small batch")
    };
    vec![
        batch(10, vec![create, register]),
        batch(20, (1..20).map(send).collect()),
        batch(30, vec![acknowledge, send(20), send(21)]),
    ]
}

/// A store with those batches applied.
pub(super) fn filled(disk: &SimDisk) -> Result<Store, roost_storage::Fault> {
    let store = open(disk, Arc::new(MemoryEngine::new()))?;
    for (index, batch) in (0..).zip(batches()) {
        store.apply(LogPosition { term: 1, index }, Payload::Batch(&batch))?;
    }
    Ok(store)
}

/// Opens the store.
pub(super) fn open(
    disk: &SimDisk,
    engine: Arc<MemoryEngine>,
) -> Result<Store, roost_storage::Fault> {
    let options = StoreOptions { inline_checkpoints: true, ..StoreOptions::default() };
    Store::open(Arc::new(disk.clone()), Path::new(STORE), engine, options)
}

/// A file's bytes, if it is there.
pub(super) fn read(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, OpenMode::Existing).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    file.read_at(0, &mut bytes).ok()?;
    Some(bytes)
}

/// A disk with one file.
pub(super) fn with_file(path: &Path, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    write(&disk, path, bytes);
    disk
}

/// Writes a new file.
pub(super) fn write(disk: &SimDisk, path: &Path, bytes: &[u8]) {
    if let Some(folder) = path.parent() {
        disk.create_dir_all(folder).expect("a simulated disk without faults");
    }
    let file = disk.open(path, OpenMode::Truncate).expect("a simulated disk without faults");
    file.write_at(0, bytes).expect("a simulated disk without faults");
}

/// The only file of a folder.
pub(super) fn only_file(disk: &SimDisk, folder: &str) -> PathBuf {
    let names = disk.list(Path::new(folder)).expect("a simulated disk without faults");
    Path::new(folder).join(names.first().expect("the folder has a file"))
}
