//! What a node is told: flags, then `ROOST_*` variables, then `roost.toml`, then defaults.
//!
//! [`Settings`] is the one list of settings, all optional: clap reads it from flags and variables,
//! serde from the file, so the three cannot differ in what they set. [`Settings::load`] merges them
//! into a [`NodeConfig`] that has everything. An unknown key in the file is an error.
//!
//! Whether addresses can be bound and keys read is found out by those who use them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use roost_storage::engine::EngineKind;
use roost_storage::limits;
use serde::Deserialize;

mod values;

pub use values::{ByteSize, Engine, Peers, host_of};

/// The data folder if none is named.
pub const DEFAULT_DATA: &str = "./roost-data";
/// Where clients connect if nothing else is said.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7070);
/// Where peers connect if nothing else is said.
pub const DEFAULT_PEER_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7071);
/// Log entries kept behind the newest checkpoint.
pub const DEFAULT_LOG_KEEP_ENTRIES: u64 = 20_000;
/// What is logged if nothing else is said.
pub const DEFAULT_LOG: &str = "info,openraft=error,fjall=warn,lsm_tree=warn";
/// The name of the file with settings.
pub const FILE_NAME: &str = "roost.toml";

/// Everything that `roost serve` needs, with all sources merged.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The data folder.
    pub data: PathBuf,
    /// This node's number in its cluster.
    pub node_id: u64,
    /// Where clients connect: HTTP and WebSocket on TCP, QUIC on UDP, the same port.
    pub listen: SocketAddr,
    /// Where peers connect (QUIC, mutual TLS).
    pub peer_listen: SocketAddr,
    /// The client address that others are told, `host:port`; the listen address by default.
    pub advertise: Option<String>,
    /// The voters at the first start, id → peer address `host:port`, this node among them. Empty: a
    /// cluster of this node alone.
    pub peers: BTreeMap<u64, String>,
    /// The folder with the cluster's shared keys (certificate authority, token key); inside the data
    /// folder by default.
    pub keys: Option<PathBuf>,
    /// The cold tier's engine; unless said, the one that the folder has, fjall for a new one.
    pub engine: Option<EngineKind>,
    /// Whether the store is counted anew before it serves; unless said, where the engine may have lost
    /// something since the last start.
    pub verify_store: Option<bool>,
    /// Dirty state that the hot tier may hold, in bytes.
    pub dirty_bytes: usize,
    /// Log entries kept behind the newest checkpoint, for followers that were away.
    pub log_keep_entries: u64,
    /// PEM files with further Ed25519 public keys whose tokens are accepted.
    pub token_public_keys: Vec<PathBuf>,
    /// Files with secrets whose HS256 tokens are accepted.
    pub token_secrets: Vec<PathBuf>,
    /// Origins that a browser may connect from, besides the node's own; `*` for any.
    pub allowed_origins: Vec<String>,
    /// Which log lines are written, as a `tracing` filter: `info`, `warn,roost=debug`.
    pub log: String,
}

impl NodeConfig {
    /// Where the keys are.
    pub fn keys_folder(&self) -> PathBuf {
        self.keys.clone().unwrap_or_else(|| self.data.join("keys"))
    }

    /// The client address that others are told, `host:port`.
    pub fn client_address(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| self.listen.to_string())
    }

    /// The hosts by which this node is reached, for its certificate.
    pub fn hosts(&self) -> Vec<String> {
        let advertised = self.advertise.as_deref().and_then(host_of);
        let as_peer = self.peers.get(&self.node_id).and_then(|address| host_of(address));
        let mut hosts = vec![self.listen.ip().to_string(), self.peer_listen.ip().to_string()];
        hosts.extend(advertised.into_iter().chain(as_peer).map(str::to_owned));
        hosts
    }
}

/// Why settings cannot be used. The message names the setting.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What came of it.
        source: std::io::Error,
    },
    /// The file has an unknown key, a wrong value, or is no TOML.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A setting's value contradicts another or a bound.
    #[error("{0}")]
    Invalid(String),
}

/// The settings of a node, as one source gives them.
#[derive(Debug, Clone, Default, Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The data folder [default: ./roost-data]
    #[arg(long, env = "ROOST_DATA", value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// This node's number, unique for ever in its cluster [default: 1]
    #[arg(long, env = "ROOST_NODE_ID", value_name = "N")]
    pub node_id: Option<u64>,
    /// Where clients connect: HTTP and WebSocket on TCP, QUIC on UDP [default: 127.0.0.1:7070]
    #[arg(long, env = "ROOST_LISTEN", value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where other nodes connect, UDP [default: 127.0.0.1:7071]
    #[arg(long, env = "ROOST_PEER_LISTEN", value_name = "IP:PORT")]
    pub peer_listen: Option<SocketAddr>,
    /// The client address that others are told [default: the listen address]
    #[arg(long, env = "ROOST_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// All nodes of a new cluster with their peer addresses: 1=host:port,2=host:port [default: this node alone]
    #[arg(long, env = "ROOST_PEERS", value_name = "ID=HOST:PORT,…")]
    pub peers: Option<Peers>,
    /// The folder with the cluster's shared keys [default: DATA/keys]
    #[arg(long, env = "ROOST_KEYS", value_name = "DIR")]
    pub keys: Option<PathBuf>,
    /// The cold tier's engine, fjall or sled, of a new folder; an existing one keeps its own
    /// [default: fjall]
    #[arg(long, env = "ROOST_ENGINE", value_name = "NAME")]
    pub engine: Option<Engine>,
    /// Whether to read the whole store at the start and refuse it if something is missing [default: on
    /// sled, at the first start after the machine's]
    #[arg(long, env = "ROOST_VERIFY_STORE", value_name = "BOOL")]
    pub verify_store: Option<bool>,
    /// State that may wait in memory to be written, such as 64MiB [default: 256MiB]
    #[arg(long, env = "ROOST_DIRTY_BYTES", value_name = "SIZE")]
    pub dirty_bytes: Option<ByteSize>,
    /// Log entries kept for nodes that were away [default: 20000]
    #[arg(long, env = "ROOST_LOG_KEEP_ENTRIES", value_name = "N")]
    pub log_keep_entries: Option<u64>,
    /// PEM files with Ed25519 public keys of the application, whose tokens are accepted
    #[arg(long, env = "ROOST_TOKEN_PUBLIC_KEYS", value_name = "FILE,…", value_delimiter = ',')]
    pub token_public_keys: Option<Vec<PathBuf>>,
    /// Files with secrets shared with the application, whose HS256 tokens are accepted
    #[arg(long, env = "ROOST_TOKEN_SECRETS", value_name = "FILE,…", value_delimiter = ',')]
    pub token_secrets: Option<Vec<PathBuf>>,
    /// Origins that browsers may connect from besides the node's own: `https://chat.example.org`
    #[arg(long, env = "ROOST_ALLOWED_ORIGINS", value_name = "ORIGIN,…", value_delimiter = ',')]
    pub allowed_origins: Option<Vec<String>>,
    /// Which log lines are written, such as warn or info,roost=debug [default:
    /// info,openraft=error,fjall=warn,lsm_tree=warn]
    #[arg(long, env = "ROOST_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

impl Settings {
    /// Merges these settings (flags and variables) with the file's and the defaults.
    ///
    /// The file is `config` if one is named, which must be there; else `./roost.toml`, else
    /// `roost.toml` in the data folder, where either may be missing.
    ///
    /// # Errors
    /// [`ConfigError`] naming the file or the setting.
    pub fn load(self, config: Option<&Path>) -> Result<NodeConfig, ConfigError> {
        let in_data = self.data.as_deref().unwrap_or(Path::new(DEFAULT_DATA)).join(FILE_NAME);
        let file = match config {
            Some(path) => Self::from_file(path)?,
            None => match Self::from_file_if_there(Path::new(FILE_NAME))? {
                Some(settings) => settings,
                None => Self::from_file_if_there(&in_data)?.unwrap_or_default(),
            },
        };
        self.or(file).resolve()
    }

    /// Reads a file that must be there.
    ///
    /// # Errors
    /// [`ConfigError::Read`] or [`ConfigError::File`].
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text)
            .map_err(|source| ConfigError::File { path: path.to_owned(), source: Box::new(source) })
    }

    /// Reads a file that may be missing.
    ///
    /// # Errors
    /// As [`Settings::from_file`].
    pub fn from_file_if_there(path: &Path) -> Result<Option<Self>, ConfigError> {
        match Self::from_file(path) {
            Err(ConfigError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// Fills what is not set here from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            data: self.data.or(other.data),
            node_id: self.node_id.or(other.node_id),
            listen: self.listen.or(other.listen),
            peer_listen: self.peer_listen.or(other.peer_listen),
            advertise: self.advertise.or(other.advertise),
            peers: self.peers.or(other.peers),
            keys: self.keys.or(other.keys),
            engine: self.engine.or(other.engine),
            verify_store: self.verify_store.or(other.verify_store),
            dirty_bytes: self.dirty_bytes.or(other.dirty_bytes),
            log_keep_entries: self.log_keep_entries.or(other.log_keep_entries),
            token_public_keys: self.token_public_keys.or(other.token_public_keys),
            token_secrets: self.token_secrets.or(other.token_secrets),
            allowed_origins: self.allowed_origins.or(other.allowed_origins),
            log: self.log.or(other.log),
        }
    }

    /// Fills in the defaults and checks what belongs together.
    fn resolve(self) -> Result<NodeConfig, ConfigError> {
        let config = NodeConfig {
            data: self.data.unwrap_or_else(|| DEFAULT_DATA.into()),
            node_id: self.node_id.unwrap_or(1),
            listen: self.listen.unwrap_or(DEFAULT_LISTEN),
            peer_listen: self.peer_listen.unwrap_or(DEFAULT_PEER_LISTEN),
            advertise: self.advertise.filter(|address| !address.is_empty()),
            peers: self.peers.unwrap_or_default().0,
            keys: self.keys,
            engine: self.engine.map(|engine| engine.0),
            verify_store: self.verify_store,
            dirty_bytes: self.dirty_bytes.map_or(limits::DEFAULT_DIRTY_BYTES, |size| size.0),
            log_keep_entries: self.log_keep_entries.unwrap_or(DEFAULT_LOG_KEEP_ENTRIES),
            token_public_keys: self.token_public_keys.unwrap_or_default(),
            token_secrets: self.token_secrets.unwrap_or_default(),
            // A variable that is set to nothing gives a list of one empty word.
            allowed_origins: self
                .allowed_origins
                .unwrap_or_default()
                .into_iter()
                .filter(|o| !o.is_empty())
                .collect(),
            log: self.log.filter(|filter| !filter.is_empty()).unwrap_or_else(|| DEFAULT_LOG.into()),
        };
        check(&config)?;
        Ok(config)
    }
}

fn check(config: &NodeConfig) -> Result<(), ConfigError> {
    let invalid = |message: String| Err(ConfigError::Invalid(message));
    if config.node_id == 0 {
        return invalid("node-id: numbers start at 1".into());
    }
    if !config.peers.is_empty() && !config.peers.contains_key(&config.node_id) {
        return invalid(format!(
            "peers: node {} itself (node-id) is not among them",
            config.node_id
        ));
    }
    if config.listen == config.peer_listen && config.listen.port() != 0 {
        return invalid(format!("peer-listen: {} is the clients' address already", config.listen));
    }
    if let Some(address) = &config.advertise
        && host_of(address).is_none()
    {
        return invalid(format!("advertise: {address:?} is not host:port"));
    }
    if config.dirty_bytes < 4 * limits::MAX_ENTRY_BYTES {
        return invalid(format!(
            "dirty-bytes: at least {} are needed",
            4 * limits::MAX_ENTRY_BYTES
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        settings: Settings,
    }

    fn flags(arguments: &[&str]) -> Settings {
        Flags::try_parse_from([&["roost"], arguments].concat()).unwrap().settings
    }

    fn file(text: &str) -> Result<Settings, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// Every setting: its name, a value as a flag and the same as TOML.
    const ALL: [(&str, &str, &str); 15] = [
        ("data", "/d", "'/d'"),
        ("node_id", "2", "2"),
        ("listen", "0.0.0.0:1", "'0.0.0.0:1'"),
        ("peer_listen", "0.0.0.0:2", "'0.0.0.0:2'"),
        ("advertise", "a.example:1", "'a.example:1'"),
        ("peers", "1=a:1,2=b:2", "{ 1 = 'a:1', 2 = 'b:2' }"),
        ("keys", "/k", "'/k'"),
        ("engine", "fjall", "'fjall'"),
        ("verify_store", "true", "true"),
        ("dirty_bytes", "32MiB", "'32MiB'"),
        ("log_keep_entries", "5", "5"),
        ("token_public_keys", "/a,/b", "['/a', '/b']"),
        ("token_secrets", "/s", "['/s']"),
        ("allowed_origins", "https://a,https://b", "['https://a', 'https://b']"),
        ("log", "warn", "'warn'"),
    ];

    #[test]
    fn flags_variables_and_file_set_the_same_things() {
        let command = Flags::command();
        let arguments: Vec<_> =
            command.get_arguments().filter(|argument| argument.get_id() != "help").collect();
        assert_eq!(arguments.len(), ALL.len(), "a setting is missing from this test");
        let fields_of_config = format!("{:#?}", Settings::default().resolve().unwrap());
        for (name, flag_value, toml_value) in ALL {
            let flag = format!("--{}", name.replace('_', "-"));
            let argument = arguments.iter().find(|argument| argument.get_id() == name).unwrap();
            let variable = argument.get_env().unwrap().to_str().unwrap();
            assert_eq!(variable, format!("ROOST_{}", name.to_uppercase()));
            assert!(fields_of_config.contains(&format!("{name}: ")), "{name}");

            let from_flag = flags(&[&flag, flag_value]);
            let from_file = file(&format!("{name} = {toml_value}")).unwrap();
            assert_eq!(format!("{from_flag:?}"), format!("{from_file:?}"), "{name}");
            assert_ne!(format!("{from_flag:?}"), format!("{:?}", Settings::default()), "{name}");
            let merged = Settings::default().or(from_file);
            assert_eq!(
                format!("{from_flag:?}"),
                format!("{merged:?}"),
                "{name} is lost in the merge"
            );
        }
    }

    #[test]
    fn flags_go_before_the_file_and_the_file_before_defaults() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("some.toml");
        std::fs::write(&path, "listen = '127.0.0.1:1000'\nlog = 'debug'\n").unwrap();
        let config = flags(&["--listen", "127.0.0.1:2000"]).load(Some(&path)).unwrap();
        assert_eq!(config.listen, "127.0.0.1:2000".parse().unwrap());
        assert_eq!(config.log, "debug");
        assert_eq!(config.peer_listen, DEFAULT_PEER_LISTEN);
        assert_eq!(config.keys_folder(), Path::new("./roost-data/keys"));
    }

    #[test]
    fn the_data_folders_own_file_is_read() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(FILE_NAME), "node_id = 7\n").unwrap();
        let config = flags(&["--data", temp.path().to_str().unwrap()]).load(None).unwrap();
        assert_eq!(config.node_id, 7);
    }

    #[test]
    fn a_named_file_must_be_there() {
        let error = Settings::default().load(Some(Path::new("/nowhere/roost.toml"))).unwrap_err();
        assert!(error.to_string().contains("/nowhere/roost.toml"), "{error}");
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        assert!(file("lisen = '127.0.0.1:1'").unwrap_err().contains("lisen"));
    }

    #[test]
    fn contradictions_are_errors_that_name_the_setting() {
        for (arguments, named) in [
            (&["--node-id", "0"][..], "node-id"),
            (&["--peers", "2=a:1,3=b:1"], "peers"),
            (&["--listen", "127.0.0.1:5", "--peer-listen", "127.0.0.1:5"], "peer-listen"),
            (&["--advertise", "nothing"], "advertise"),
            (&["--dirty-bytes", "1KiB"], "dirty-bytes"),
        ] {
            let error = flags(arguments).resolve().unwrap_err().to_string();
            assert!(error.starts_with(named), "{error}");
        }
    }

    #[test]
    fn variables_set_to_nothing_set_nothing() {
        let arguments = ["--peers", "", "--allowed-origins", "", "--log", "", "--advertise", ""];
        let config = flags(&arguments).resolve().unwrap();
        assert!(config.peers.is_empty() && config.allowed_origins.is_empty());
        assert_eq!(config.log, DEFAULT_LOG);
    }
}
