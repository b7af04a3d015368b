//! What a data folder says of its cluster, so that commands on the same machine find it.
//!
//! `roost serve` leaves `node.toml` in its data folder, `roost dev` leaves `cluster.toml` in the
//! folder above its nodes' own. Both have the same form: nodes with their addresses, and where the
//! keys are. Neither holds a secret, and no node reads them back: they are for the command line.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

/// What `roost serve` leaves.
pub(crate) const NODE_FILE: &str = "node.toml";
/// What `roost dev` leaves.
pub(crate) const CLUSTER_FILE: &str = "cluster.toml";

/// A cluster, as its folder describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Description {
    /// The folder with the keys; relative to the file's own folder if it is not absolute.
    pub(crate) keys: PathBuf,
    /// The nodes.
    pub(crate) nodes: Vec<NodeEntry>,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeEntry {
    /// Its number.
    pub(crate) id: u64,
    /// Where clients connect, `host:port`.
    pub(crate) client: String,
    /// Where peers connect, `host:port`.
    pub(crate) peer: String,
}

impl Description {
    /// What `folder` says: `cluster.toml` if it is there, else `node.toml`, else nothing.
    pub(crate) fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        match Self::read(&folder.join(CLUSTER_FILE))? {
            Some(found) => Ok(Some(found)),
            None => Self::read(&folder.join(NODE_FILE)),
        }
    }

    /// Reads one of the two files; `None` if it is not there.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let mut found: Self =
            toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new("."));
        found.keys = folder.join(&found.keys);
        Ok(Some(found))
    }

    /// Writes one of the two files: a reader sees all of it or none.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let text = format!(
            "# Written by roost for its own commands, which find the cluster here. Not read by nodes.\n{}",
            toml::to_string(self)?
        );
        let staged = path.with_extension("toml.new");
        fs::write(&staged, text)
            .and_then(|()| fs::rename(&staged, path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Refuses a folder that `roost dev` made, for `roost serve`.
pub(crate) fn refuse_cluster_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.join(CLUSTER_FILE).exists() {
        bail!(
            "{} holds a cluster of `roost dev`; start it with `roost dev`, or name another folder with --data",
            folder.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(keys: &str) -> Description {
        let node =
            NodeEntry { id: 1, client: "127.0.0.1:7070".into(), peer: "127.0.0.1:7071".into() };
        Description { keys: keys.into(), nodes: vec![node] }
    }

    #[test]
    fn what_is_written_is_found_with_keys_inside_the_folder() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(Description::find(temp.path()).unwrap(), None);
        description("keys").write(&temp.path().join(NODE_FILE)).unwrap();
        let found = Description::find(temp.path()).unwrap().unwrap();
        assert_eq!(found.keys, temp.path().join("keys"));
        assert_eq!(found.nodes, description("keys").nodes);
    }

    #[test]
    fn a_cluster_goes_before_a_node_and_is_refused_by_serve() {
        let temp = tempfile::tempdir().unwrap();
        description("/elsewhere").write(&temp.path().join(NODE_FILE)).unwrap();
        refuse_cluster_folder(temp.path()).unwrap();
        description("keys").write(&temp.path().join(CLUSTER_FILE)).unwrap();
        assert_eq!(Description::find(temp.path()).unwrap().unwrap().keys, temp.path().join("keys"));
        assert!(refuse_cluster_folder(temp.path()).is_err());
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_file() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join(NODE_FILE), "nodes = 7").unwrap();
        assert!(format!("{:#}", Description::find(temp.path()).unwrap_err()).contains(NODE_FILE));
    }
}
