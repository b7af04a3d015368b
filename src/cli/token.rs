//! `roost token`: a token for a user, alone on the last line of stdout.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use roost_storage::model::{DeviceId, UserId};

use super::output::say;
use super::target::{ADMIN, Folders};
use crate::auth::Grant;

/// Print a token for a user
///
/// It is signed with the key in the data folder, and stands alone on the last line.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  roost token alice
  roost token --admin --ttl 1h
  roost token bob --device phone --data ./roost-data")]
pub(crate) struct Token {
    /// The user; an administrator's token need not name one
    #[arg(required_unless_present = "admin")]
    user: Option<UserId>,
    /// Make an administrator's token, for the HTTP API
    #[arg(long)]
    admin: bool,
    /// How long it is valid
    #[arg(long, default_value = "24h", value_name = "TIME", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// The only device that may use it
    #[arg(long, value_name = "ID")]
    device: Option<DeviceId>,
    #[command(flatten)]
    folders: Folders,
}

impl Token {
    /// Prints the token.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.ttl < Duration::from_secs(1) {
            bail!("--ttl: a token lives for a second at least");
        }
        let key = self.folders.signing_key()?;
        let Self { user, admin, device, ttl, .. } = self;
        let user = user.map_or_else(|| UserId::new(ADMIN), Ok)?;
        say!("{}", key.mint(&Grant { user, device, admin, ttl_s: ttl.as_secs() })?);
        Ok(())
    }
}
