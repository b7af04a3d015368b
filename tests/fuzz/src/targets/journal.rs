//! A checkpoint's journal that a crash left: recovery takes any bytes for it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use roost_storage::engine::memory::MemoryEngine;
use roost_storage::fs::sim::{CrashPolicy, SimDisk};

use super::{disk, outcome};
use crate::{Target, seal};

pub(super) struct Journal;

fn path() -> PathBuf {
    Path::new(disk::STORE).join("checkpoint.journal")
}

impl Target for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        // The process dies at each operation of the checkpoint in turn, until the journal is there.
        let journal = (1..200).find_map(|operation| {
            let disk = SimDisk::new();
            let store = disk::filled(&disk).ok()?;
            disk.stop_at(disk.operations() + operation);
            store.checkpoint().err()?;
            disk::read(&disk.crash(CrashPolicy::KeepAll), &path())
        });
        vec![journal.expect("a checkpoint has a journal")]
    }

    fn run(&self, input: &[u8]) -> String {
        let disk = disk::with_file(&path(), input);
        let engine = Arc::new(MemoryEngine::new());
        match disk::open(&disk, engine.clone()) {
            Err(fault) => outcome::<(), _>(Err(fault)),
            Ok(store) => {
                let state = store.applied_state();
                drop(store);
                let again = disk::open(&disk, engine).expect("what was put can be opened again");
                assert_eq!(again.applied_state(), state, "a second recovery differs");
                outcome(again.recount())
            }
        }
    }

    fn seal(&self, input: &mut Vec<u8>) {
        seal::framed_file(input);
    }
}
