//! The folder of an engine, marked with the engine's name.
//!
//! ```text
//! ENGINE        the engine's name and a line feed
//! sled/, fjall/ the engine's own files
//! ```
//!
//! The marker is durable before the engine makes its first file, so an engine never meets a folder
//! with another's content and takes it for empty.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::Path;
use std::sync::Arc;

use super::fjall::FjallEngine;
use super::sled::SledEngine;
use super::{Engine, EngineKind};
use crate::Fault;
use crate::fs::real::{make_folders, sync_folder};

const MARKER: &str = "ENGINE";
const MARKER_DRAFT: &str = "ENGINE.tmp";

/// Opens the engine in a folder, which is made and marked if there is none.
///
/// # Errors
/// [`Fault::Engine`] if the folder belongs to another engine, has files without a marker, or if the
/// engine can't open its files; [`Fault::Io`] if the folder can't be made or read.
pub fn open(kind: EngineKind, path: &Path) -> Result<Arc<dyn Engine>, Fault> {
    claim(kind, path)
        .map_err(|error| {
            Fault::io(format!("prepare the engine's folder {}", path.display()), error)
        })
        .and_then(|owner| check_owner(kind, path, &owner))?;
    let files = path.join(kind.as_str());
    // The engines make their folder without syncing the one above: a power cut would take it all.
    make_folders(&files).and_then(|()| sync_folder(path)).map_err(|error| {
        Fault::io(format!("make the engine's folder {}", files.display()), error)
    })?;
    Ok(match kind {
        EngineKind::Sled => Arc::new(SledEngine::open(&files)?),
        EngineKind::Fjall => Arc::new(FjallEngine::open(&files)?),
    })
}

/// Whose folder it is, if it is an engine's already.
///
/// # Errors
/// [`Fault::Engine`] for a marker that names no engine; [`Fault::Io`] if it can't be read.
pub fn owner(path: &Path) -> Result<Option<EngineKind>, Fault> {
    match fs::read_to_string(path.join(MARKER)) {
        Ok(name) => name.trim_end().parse().map(Some).map_err(|_| {
            Fault::Engine(format!("{}: the {MARKER} marker names no engine", path.display()))
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fault::io(format!("read the marker in {}", path.display()), error)),
    }
}

/// Whose folder it is, after marking it if it is new. Empty if nobody can tell.
fn claim(kind: EngineKind, path: &Path) -> io::Result<String> {
    // The data folder above exists, but the folders between may be new: each must be durable.
    make_folders(path)?;
    match fs::read_to_string(path.join(MARKER)) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        found => return found,
    }
    for entry in fs::read_dir(path)? {
        if entry?.file_name() != MARKER_DRAFT {
            return Ok(String::new());
        }
    }
    let name = format!("{kind}\n");
    let draft = path.join(MARKER_DRAFT);
    let mut file = File::create(&draft)?;
    file.write_all(name.as_bytes())?;
    file.sync_all()?;
    fs::rename(draft, path.join(MARKER))?;
    sync_folder(path)?;
    Ok(name)
}

fn check_owner(kind: EngineKind, path: &Path, owner: &str) -> Result<(), Fault> {
    let path = path.display();
    match owner.trim_end() {
        name if name == kind.as_str() => Ok(()),
        "" => Err(Fault::Engine(format!(
            "{path} has files but no {MARKER} marker: it is not, or not wholly, a folder of Roost"
        ))),
        other => Err(Fault::Engine(format!(
            "{path} was made with the engine {other:?}, but {kind} is configured: configure {other} \
             again, or start with another data folder"
        ))),
    }
}
