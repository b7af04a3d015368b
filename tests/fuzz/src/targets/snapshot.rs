//! A snapshot that a peer sent: it is taken whole or changes nothing.

use roost_storage::fs::sim::SimDisk;

use super::{disk, outcome};
use crate::{Target, seal};

pub(super) struct Snapshot;

impl Target for Snapshot {
    fn name(&self) -> &'static str {
        "snapshot"
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let disk = SimDisk::new();
        let store = disk::filled(&disk).expect("a disk without faults");
        let snapshot = store.export_snapshot().expect("a disk without faults");
        vec![disk::read(&disk, &snapshot.path).expect("an exported file")]
    }

    fn run(&self, input: &[u8]) -> String {
        let disk = SimDisk::new();
        let store = disk::open(&disk, Default::default()).expect("an empty disk");
        let before = (store.digest(), store.counts(), store.applied_state());
        let path = store.incoming_snapshot_path();
        disk::write(&disk, &path, input);
        match store.import_snapshot(&path) {
            Err(fault) => {
                let after = (store.digest(), store.counts(), store.applied_state());
                assert_eq!(before, after, "a refused snapshot changed something");
                outcome::<(), _>(Err(fault))
            }
            Ok(_) => outcome(store.recount()),
        }
    }

    fn seal(&self, input: &mut Vec<u8>) {
        seal::framed_file(input);
    }
}
