//! Bits that flip on a disk.

use std::path::Path;

use roost_storage::fs::sim::SimDisk;
use roost_storage::fs::{Disk, OpenMode};

use crate::node::{LOG_FOLDER, STATE_FOLDER};
use crate::plan::Flip;
use crate::random::Random;

/// How a frame of the log begins.
const FRAME_MAGIC: &[u8] = b"\xf7RFM";

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

/// Where the newest frame of a segment begins.
fn last_frame(segment: &[u8]) -> Option<usize> {
    segment.windows(FRAME_MAGIC.len()).rposition(|window| window == FRAME_MAGIC)
}
