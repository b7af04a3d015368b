//! Bits that flip on a disk.

use std::path::Path;

use roost_storage::fs::sim::SimDisk;
use roost_storage::fs::{Disk, OpenMode};

use crate::node::{LOG_FOLDER, STATE_FOLDER};
use crate::plan::Flip;
use crate::random::Random;

/// How a frame of the log begins.
const FRAME_MAGIC: &[u8] = b"\xf7RFM";
/// Where a segment's first one does.
const FIRST_FRAME: usize = 4096;
/// Bytes before what it holds.
const FRAME_HEADER_BYTES: usize = 20;

/// Flips a bit of one of the node's files; says what it did. Damage to a log's newest frame cannot
/// be told from a write that was torn (`docs/reliability.md`, known limits), so it is spared.
pub(crate) fn flip(disk: &SimDisk, place: Flip, random: &mut Random) -> Option<String> {
    let folder = Path::new(match place {
        Flip::Log => LOG_FOLDER,
        Flip::State => STATE_FOLDER,
    });
    let names = disk.list(folder).ok()?;
    if names.is_empty() {
        return None;
    }
    let newest = names.last().cloned();
    let name = random.pick(&names).clone();
    let path = folder.join(&name);
    let bytes = read(disk, &path)?;
    let end = match place {
        Flip::Log if Some(&name) == newest.as_ref() => last_frame(&bytes)?,
        Flip::Log | Flip::State => bytes.len(),
    };
    if end == 0 {
        return None;
    }
    let offset = random.within(0, end as u64 - 1);
    let bit = u8::try_from(random.within(0, 7)).expect("a bit's number");
    disk.flip_bit(&path, offset, bit).ok()?;
    Some(format!("bit {bit} of byte {offset} of {} flips", path.display()))
}

fn read(disk: &SimDisk, path: &Path) -> Option<Vec<u8>> {
    let file = disk.open(path, OpenMode::Existing).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    file.read_at(0, &mut bytes).ok()?;
    Some(bytes)
}

/// Where the newest frame of a segment begins. Behind it may be frames of an older one, whose file it
/// was; between them are zeros.
fn last_frame(segment: &[u8]) -> Option<usize> {
    let mut newest = None;
    let mut at = FIRST_FRAME;
    while segment.get(at..)?.starts_with(FRAME_MAGIC) {
        let len = segment.get(at + 4..at + 8)?.try_into().ok()?;
        newest = Some(at);
        at += FRAME_HEADER_BYTES + u32::from_be_bytes(len) as usize;
    }
    newest
}
