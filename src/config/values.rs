//! How settings are written: sizes, peers, engines, addresses. The same text works as a flag, as a
//! variable and in the file.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use roost_storage::engine::EngineKind;
use serde::{Deserialize, Deserializer};

/// The host in `host:port`, `[v6]:port` too; `None` for anything else.
pub fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some(host)
}

/// Nodes with their peer addresses: `1=host:port,2=host:port`, in a file also a table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers(pub BTreeMap<u64, String>);

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut peers = BTreeMap::new();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (id, address) =
                entry.split_once('=').ok_or_else(|| format!("{entry:?} is not ID=HOST:PORT"))?;
            insert_peer(&mut peers, id, address)?;
        }
        Ok(Self(peers))
    }
}

fn insert_peer(peers: &mut BTreeMap<u64, String>, id: &str, address: &str) -> Result<(), String> {
    let number = id.trim().parse::<u64>().ok().filter(|id| *id > 0);
    let number = number.ok_or_else(|| format!("{id:?} is not a node number"))?;
    host_of(address).ok_or_else(|| format!("{address:?} is not HOST:PORT"))?;
    if peers.insert(number, address.to_owned()).is_some() {
        return Err(format!("node {number} is named twice"));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Peers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Text(String),
            Table(BTreeMap<String, String>),
        }
        let parsed = match Form::deserialize(deserializer)? {
            Form::Text(text) => text.parse(),
            Form::Table(table) => {
                let mut peers = BTreeMap::new();
                let inserted =
                    table.iter().try_for_each(|(id, address)| insert_peer(&mut peers, id, address));
                inserted.map(|()| Self(peers))
            }
        };
        parsed.map_err(serde::de::Error::custom)
    }
}

/// The engine's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Engine(pub EngineKind);

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sled" => Ok(Self(EngineKind::Sled)),
            "fjall" => Ok(Self(EngineKind::Fjall)),
            other => Err(format!("{other:?} is no engine; there are sled and fjall")),
        }
    }
}

impl<'de> Deserialize<'de> for Engine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A number of bytes: `1048576`, `1024KiB`, `1MiB`, `1GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(pub usize);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor: usize = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => return Err(format!("{text:?} is no size; write 1048576, 1024KiB or 1MiB")),
        };
        let bytes = number.parse::<usize>().ok().and_then(|number| number.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| format!("{text:?} is no size"))
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(usize),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(bytes) => Ok(Self(bytes)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_checked() {
        for wrong in ["a:1", "0=a:1", "1=a", "1=a:1,1=b:1", "x=a:1", "1=:5"] {
            assert!(wrong.parse::<Peers>().is_err(), "{wrong}");
        }
        assert_eq!("1=[::1]:5".parse::<Peers>().unwrap().0[&1], "[::1]:5");
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!("64MiB".parse(), Ok(ByteSize(64 << 20)));
        assert_eq!("17".parse(), Ok(ByteSize(17)));
        for wrong in ["", "MiB", "1MB", "-1", "99999999999999999999", "99999999999999GiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }
}
