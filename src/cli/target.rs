//! Which cluster a command speaks to, and as whom.
//!
//! Addresses: `--addr`, else what the data folder says, else the default of `roost serve`. Tokens:
//! `--token` for a command that acts as one user, else minted from the keys in the data folder.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use roost_client::{ClientOptions, Endpoint, Transport, Trust};
use roost_storage::model::{DeviceId, UserId};

use super::folder::Description;
use crate::auth::{Grant, SigningKey};
use crate::config::{DEFAULT_DATA, DEFAULT_LISTEN, FILE_NAME, Settings, host_of};
use crate::keys::ClusterKeys;

/// How long a token lives that a command mints for itself, in seconds.
const OWN_TOKEN_TTL_S: u64 = 7 * 24 * 60 * 60;
/// The user that an administrator's token names if nobody else is meant.
pub(super) const ADMIN: &str = "roost-cli";

/// Where the keys are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Folders {
    /// The data folder of `roost serve` or `roost dev` [default: ./roost-data]
    #[arg(long, env = "ROOST_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The folder with the cluster's keys [default: what the data folder says]
    #[arg(long, env = "ROOST_KEYS", value_name = "DIR")]
    pub(crate) keys: Option<PathBuf>,
}

impl Folders {
    /// The data folder: as named, else as `./roost.toml` says, else the default.
    pub(crate) fn data(&self) -> anyhow::Result<PathBuf> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let settings = Settings::from_file_if_there(FILE_NAME.as_ref())?;
        Ok(settings.and_then(|settings| settings.data).unwrap_or_else(|| DEFAULT_DATA.into()))
    }

    /// Opens the keys.
    pub(crate) fn open_keys(&self) -> anyhow::Result<ClusterKeys> {
        let folder = match &self.keys {
            Some(keys) => keys.clone(),
            None => {
                let data = self.data()?;
                Description::find(&data)?.map_or_else(|| data.join("keys"), |found| found.keys)
            }
        };
        ClusterKeys::open(&folder)
            .context("no token can be made (name the data folder with --data)")
    }

    /// The key that signs tokens.
    pub(crate) fn signing_key(&self) -> anyhow::Result<SigningKey> {
        Ok(SigningKey::new(self.open_keys()?.token())?)
    }
}

/// What every command needs that speaks to nodes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) folders: Folders,
    /// Nodes to speak to [default: those of the data folder, else 127.0.0.1:7070]
    #[arg(long, env = "ROOST_ADDR", value_name = "HOST:PORT,…", value_delimiter = ',')]
    pub(crate) addr: Vec<String>,
    /// A token to use, instead of one made from the keys
    #[arg(long, env = "ROOST_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
}

/// What a command needs besides to connect as a user.
#[derive(Debug, Clone, Args)]
pub(crate) struct Link {
    /// Connect by WebSocket instead of QUIC
    #[arg(long)]
    pub(crate) websocket: bool,
    /// The certificate authority that QUIC trusts, a PEM file [default: the cluster's, from the keys]
    #[arg(long, env = "ROOST_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

impl Target {
    /// The nodes' client addresses, `host:port`, at least one.
    pub(crate) fn addresses(&self) -> anyhow::Result<Vec<String>> {
        let named: Vec<_> =
            self.addr.iter().filter(|address| !address.is_empty()).cloned().collect();
        for address in &named {
            if host_of(address).is_none() {
                bail!("--addr: {address:?} is not host:port");
            }
        }
        if !named.is_empty() {
            return Ok(named);
        }
        let found = Description::find(&self.folders.data()?)?;
        let nodes: Vec<_> =
            found.into_iter().flat_map(|found| found.nodes).map(|node| node.client).collect();
        Ok(if nodes.is_empty() { vec![DEFAULT_LISTEN.to_string()] } else { nodes })
    }

    /// A token for `user`: the one given, else a new one.
    pub(crate) fn user_token(
        &self,
        user: &UserId,
        device: Option<DeviceId>,
    ) -> anyhow::Result<String> {
        match self.given_token() {
            Some(token) => Ok(token),
            None => mint(&self.folders.signing_key()?, user.clone(), device, false),
        }
    }

    /// An administrator's token: the one given, else a new one.
    pub(crate) fn admin_token(&self) -> anyhow::Result<String> {
        match self.given_token() {
            Some(token) => Ok(token),
            None => mint(&self.folders.signing_key()?, UserId::new(ADMIN)?, None, true),
        }
    }

    /// How to connect as `user`.
    pub(crate) fn client_options(
        &self,
        link: &Link,
        user: &UserId,
        device: &DeviceId,
    ) -> anyhow::Result<ClientOptions> {
        let endpoints = self
            .addresses()?
            .iter()
            .map(|address| address.parse())
            .collect::<Result<Vec<Endpoint>, _>>()?;
        // A WebSocket has no certificate to check.
        let trust = if link.websocket { Trust::Insecure } else { self.trust(link)? };
        let token = self.user_token(user, Some(device.clone()))?;
        let mut options = ClientOptions::new(endpoints, trust, token, device.as_str());
        if link.websocket {
            options.transport = Transport::WebSocketJson;
        }
        Ok(options)
    }

    /// Makes tokens for many users, from the keys.
    ///
    /// # Errors
    /// There are no keys, or a token was given, which is one user's.
    pub(crate) fn minter(&self) -> anyhow::Result<Minter> {
        if self.given_token().is_some() {
            bail!("--token names one user, and this command acts as many: name --data or --keys");
        }
        Ok(Minter(self.folders.signing_key()?))
    }

    /// Whose certificates a QUIC connection accepts.
    pub(crate) fn trust(&self, link: &Link) -> anyhow::Result<Trust> {
        let pem = match &link.ca {
            Some(path) => {
                std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?
            }
            None => {
                let keys = self.folders.open_keys();
                keys.context("QUIC needs to know whom to trust: name --ca, --data or --keys, or use --websocket")?
                    .ca_pem()
                    .into()
            }
        };
        Ok(Trust::Authority(pem.into()))
    }

    fn given_token(&self) -> Option<String> {
        self.token.clone().filter(|token| !token.is_empty())
    }
}

/// Makes tokens for many users.
pub(crate) struct Minter(SigningKey);

impl Minter {
    /// A new token for `user`.
    pub(crate) fn token(&self, user: UserId) -> anyhow::Result<String> {
        mint(&self.0, user, None, false)
    }
}

fn mint(
    key: &SigningKey,
    user: UserId,
    device: Option<DeviceId>,
    admin: bool,
) -> anyhow::Result<String> {
    Ok(key.mint(&Grant { user, device, admin, ttl_s: OWN_TOKEN_TTL_S })?)
}

/// An address that a client on this machine can connect to: a node that listens on every interface
/// is reached by the loopback one.
pub(crate) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::super::folder::{CLUSTER_FILE, NodeEntry};
    use super::*;

    fn target(data: &std::path::Path, addr: &[&str]) -> Target {
        let folders = Folders { data: Some(data.to_owned()), keys: None };
        Target { folders, addr: addr.iter().map(|text| (*text).to_owned()).collect(), token: None }
    }

    #[test]
    fn addresses_are_the_named_ones_else_the_folders_else_the_default() {
        let temp = tempfile::tempdir().unwrap();
        assert_eq!(target(temp.path(), &[]).addresses().unwrap(), ["127.0.0.1:7070"]);
        let nodes = [7, 8].map(|id| NodeEntry {
            id,
            client: format!("127.0.0.1:{id}"),
            peer: "x:1".into(),
        });
        let cluster = Description { keys: "keys".into(), nodes: nodes.into() };
        cluster.write(&temp.path().join(CLUSTER_FILE)).unwrap();
        assert_eq!(target(temp.path(), &[]).addresses().unwrap(), ["127.0.0.1:7", "127.0.0.1:8"]);
        assert_eq!(target(temp.path(), &["a:1", ""]).addresses().unwrap(), ["a:1"]);
        assert!(target(temp.path(), &["a"]).addresses().is_err());
    }

    #[test]
    fn without_keys_the_error_says_where_they_were_expected() {
        let temp = tempfile::tempdir().unwrap();
        let error = format!("{:#}", target(temp.path(), &[]).admin_token().unwrap_err());
        assert!(error.contains("--data") && error.contains("roost serve"), "{error}");
    }

    #[test]
    fn a_token_is_minted_from_the_folders_keys_unless_one_is_given() {
        let temp = tempfile::tempdir().unwrap();
        ClusterKeys::open_or_create(&temp.path().join("keys")).unwrap();
        let mut target = target(temp.path(), &[]);
        assert_eq!(target.admin_token().unwrap().split('.').count(), 3);
        target.token = Some("given".into());
        assert_eq!(target.user_token(&UserId::new("alice").unwrap(), None).unwrap(), "given");
    }

    #[test]
    fn a_node_on_every_interface_is_reached_by_loopback() {
        assert_eq!(reachable("0.0.0.0:7".parse().unwrap()).to_string(), "127.0.0.1:7");
        assert_eq!(reachable("[::]:7".parse().unwrap()).to_string(), "[::1]:7");
        assert_eq!(reachable("10.0.0.1:7".parse().unwrap()).to_string(), "10.0.0.1:7");
    }
}
