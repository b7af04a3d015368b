//! A data folder on the operating system's file system.
//!
//! Promises what [`crate::fs`] says about durability, as far as the operating system keeps it:
//! contents by `fdatasync`, names by `fsync` of their folder. Folders are made for their owner only
//! (mode 0700), files likewise (0600), and no path leads out of the data folder. It leaves to its
//! callers what a failure means, and who else may use the same folder.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Disk, DiskFile, OpenMode};

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// One folder of the operating system, with everything below it.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
}

impl RealDisk {
    /// Opens a data folder, and makes it, with its parents, if there is none.
    ///
    /// A folder that others may enter is closed to them, unless it belongs to somebody else (a
    /// mounted volume): then it stays as its owner set it.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        make_folders(&root)?;
        let mode = fs::metadata(&root)?.permissions().mode();
        if mode & 0o077 != 0 {
            match fs::set_permissions(&root, Permissions::from_mode(FOLDER_MODE)) {
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
                other => other?,
            }
        }
        Ok(Self { root })
    }

    /// The folder's path, for messages.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        check_relative(path)?;
        Ok(self.root.join(path))
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.resolve(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(FILE_MODE);
        match mode {
            OpenMode::Existing => {}
            OpenMode::CreateNew => {
                options.create_new(true);
            }
            OpenMode::Truncate => {
                options.create(true).truncate(true);
            }
        }
        Ok(Arc::new(RealFile { file: options.open(path)? }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match fs::metadata(self.resolve(path)?) {
            Ok(metadata) => Ok(metadata.is_file()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.resolve(dir)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry?;
            // A name that is not UTF-8 can't be one of ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        make_folders(&self.resolve(dir)?)?;
        // Also what was there: whoever made it may have died before it was durable.
        dir.ancestors().skip(1).try_for_each(|above| sync_folder(&self.root.join(above)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.resolve(from)?, self.resolve(to)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(self.resolve(path)?)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        sync_folder(&self.resolve(dir)?)
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len <= self.len()? {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            // Some file systems can't reserve space; the length alone must do there.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.set_len(len),
            other => Ok(other?),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Refuses what could lead out of the data folder; the empty path is the data folder itself.
pub(super) fn check_relative(path: &Path) -> io::Result<()> {
    if path.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(());
    }
    let what = format!("{} is not a plain path inside the data folder", path.display());
    Err(io::Error::new(ErrorKind::InvalidInput, what))
}

/// Makes a folder and its missing parents, each durable in the one above it.
pub(crate) fn make_folders(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() || path.is_dir() {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_folders(parent)?;
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => {}
        other => other?,
    }
    sync_folder(parent)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let folder = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(folder.path().join("a/data")).unwrap();
        (folder, disk)
    }

    #[test]
    fn folders_and_files_are_their_owners_alone() {
        let (_folder, disk) = disk();
        disk.create_dir_all(Path::new("log/0")).unwrap();
        disk.open(Path::new("log/0/x"), OpenMode::CreateNew).unwrap();
        for (path, mode) in [("", 0o700), ("log", 0o700), ("log/0", 0o700), ("log/0/x", 0o600)] {
            let found = fs::metadata(disk.root().join(path)).unwrap().permissions().mode();
            assert_eq!(found & 0o777, mode, "{path}");
        }
    }

    #[test]
    fn an_open_folder_is_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        RealDisk::open(folder.path().to_owned()).unwrap();
        let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, FOLDER_MODE);
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        let (_folder, disk) = disk();
        for path in ["/etc/passwd", "../x", "log/../../x", "./x"] {
            let error = disk.open(Path::new(path), OpenMode::Truncate).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn a_file_keeps_what_is_written_and_allocation_reads_as_zeros() {
        let (_folder, disk) = disk();
        let file = disk.open(Path::new("x"), OpenMode::CreateNew).unwrap();
        file.allocate(100).unwrap();
        file.write_at(10, b"abc").unwrap();
        file.allocate(50).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 100);
        let mut bytes = [1; 100];
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes[8..15], b"\0\0abc\0\0");
        let past_the_end = file.read_at(98, &mut [0; 3]).unwrap_err();
        assert_eq!(past_the_end.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn only_files_are_listed_in_order() {
        let (_folder, disk) = disk();
        disk.create_dir_all(Path::new("log/sub")).unwrap();
        for name in ["log/b", "log/a", "log/c"] {
            disk.open(Path::new(name), OpenMode::Truncate).unwrap();
        }
        disk.rename(Path::new("log/c"), Path::new("log/b")).unwrap();
        disk.sync_dir(Path::new("log")).unwrap();
        assert_eq!(disk.list(Path::new("log")).unwrap(), ["a", "b"]);
        assert!(disk.list(Path::new("none")).unwrap().is_empty());
        disk.remove(Path::new("log/a")).unwrap();
        assert!(!disk.exists(Path::new("log/a")).unwrap());
        assert!(disk.open(Path::new("log/b"), OpenMode::CreateNew).is_err());
    }
}
