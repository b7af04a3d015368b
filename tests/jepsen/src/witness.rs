//! What an engine was told and said, line by line on the standard output of whoever uses it, and what
//! it must hold by that. So a loss is told to be the engine's or that of whoever builds on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::Context as _;
use roost_storage::Fault;
use roost_storage::engine::{Change, ChangeRef, Direction, Engine, Feed, Visitor};

/// Beyond every key.
pub(crate) const END: [u8; 1] = [0xff];

/// An engine whose changes are written down before they are made.
#[derive(Debug, Clone)]
pub(crate) struct Witnessed(pub(crate) Arc<dyn Engine>);

impl Witnessed {
    /// Writes down everything that it holds.
    pub(crate) fn tell(&self) -> Result<(), Fault> {
        let mut told = Ok(());
        self.0.visit(&[], &END, Direction::Ascending, &mut |key, value| {
            told = say(&format!("found {} {:x}", hex(key), hash(value)));
            if told.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        told
    }
}

fn note(change: ChangeRef<'_>) -> Result<(), Fault> {
    match change {
        ChangeRef::Put(key, value) => say(&format!("put {} {:x}", hex(key), hash(value))),
        ChangeRef::Delete(key) => say(&format!("put {} -", hex(key))),
    }
}

fn say(line: &str) -> Result<(), Fault> {
    writeln!(std::io::stdout().lock(), "{line}").map_err(|error| Fault::io("note a change", error))
}

fn hex(key: &[u8]) -> String {
    key.iter().fold(String::new(), |mut text, byte| {
        // Text takes whatever is written to it.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn hash(value: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Engine for Witnessed {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.0.get(key)
    }

    fn visit(
        &self,
        start: &[u8],
        end: &[u8],
        direction: Direction,
        visitor: &mut Visitor<'_>,
    ) -> Result<(), Fault> {
        self.0.visit(start, end, direction, visitor)
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), Fault> {
        changes.iter().try_for_each(|change| note(change.as_ref()))?;
        self.0.write(changes)
    }

    fn write_sorted(&self, feed: &mut Feed<'_>) -> Result<(), Fault> {
        self.0.write_sorted(&mut |sink| {
            feed(&mut |change| {
                note(change)?;
                sink(change)
            })
        })?;
        if self.writes_sorted_whole() { say("flushed") } else { Ok(()) }
    }

    fn writes_sorted_whole(&self) -> bool {
        self.0.writes_sorted_whole()
    }

    fn merge_bytes(&self) -> usize {
        self.0.merge_bytes()
    }

    fn flush(&self) -> Result<(), Fault> {
        self.0.flush()?;
        say("flushed")
    }

    fn clear(&self) -> Result<(), Fault> {
        say("clear")?;
        self.0.clear()
    }

    fn disk_bytes(&self) -> Result<u64, Fault> {
        self.0.disk_bytes()
    }
}

/// A value's hash; `None` where there is none.
type Value = Option<u64>;

/// What an engine must hold.
#[derive(Default)]
pub(crate) struct Held {
    /// What it holds now, if nothing was lost.
    current: BTreeMap<String, u64>,
    /// Of keys that changed since the last flush, what each was at it and became since: any of these may
    /// be left by a crash.
    open: BTreeMap<String, BTreeSet<Value>>,
    /// What was found in it.
    found: BTreeMap<String, u64>,
}

impl Held {
    /// Takes in a line; `false` if it is none of an engine's.
    pub(crate) fn hear(&mut self, line: &str) -> anyhow::Result<bool> {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["put", key, "-"] => self.change(key, None),
            ["put", key, value] => self.change(key, Some(number(value)?)),
            ["clear"] => {
                for key in self.current.keys().cloned().collect::<Vec<_>>() {
                    self.change(&key, None);
                }
            }
            ["flushed"] => self.open.clear(),
            ["found", key, value] => {
                self.found.insert(key.to_owned(), number(value)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn change(&mut self, key: &str, to: Value) {
        let before = self.current.get(key).copied();
        self.open.entry(key.to_owned()).or_insert_with(|| BTreeSet::from([before])).insert(to);
        match to {
            Some(value) => self.current.insert(key.to_owned(), value),
            None => self.current.remove(key),
        };
    }

    /// The keys that are not as they may be, of those found since the last time, each with what it is.
    pub(crate) fn lost(&mut self) -> Vec<String> {
        let found = std::mem::take(&mut self.found);
        let keys: BTreeSet<&String> = self.current.keys().chain(found.keys()).collect();
        let lost = keys.into_iter().filter_map(|key| {
            let (is, due) = (found.get(key).copied(), self.current.get(key).copied());
            let may = self.open.get(key).map_or(is == due, |may| may.contains(&is));
            (!may).then(|| match (is, due) {
                (None, _) => format!("{key} is gone"),
                (_, None) => format!("{key} is back"),
                _ => format!("{key} has another value"),
            })
        });
        let lost = lost.collect();
        self.current = found;
        lost
    }
}

fn number(text: &str) -> anyhow::Result<u64> {
    u64::from_str_radix(text, 16).with_context(|| format!("{text:?} is no hash"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is lost, if each line of `said` was heard and the keys were found with these values.
    fn lost(held: &mut Held, said: &[&str], found: &[(&str, u64)]) -> Vec<String> {
        for line in said {
            assert!(held.hear(line).unwrap(), "{line}");
        }
        for (key, value) in found {
            assert!(held.hear(&format!("found {key} {value:x}")).unwrap());
        }
        held.lost()
    }

    #[test]
    fn only_what_was_not_flushed_may_go_back() {
        let held = &mut Held::default();
        let said = ["put a 1", "put b 1", "flushed", "put b 2", "put c 2"];
        assert!(lost(held, &said, &[("a", 1), ("b", 1)]).is_empty());
        // What a crash left may go back further, until it is flushed.
        assert!(lost(held, &[], &[("a", 1), ("b", 2), ("c", 2)]).is_empty());
        assert_eq!(
            lost(held, &["flushed"], &[("b", 1), ("c", 2)]),
            ["a is gone", "b has another value"]
        );
    }

    #[test]
    fn a_clear_may_be_left_half_way() {
        let held = &mut Held::default();
        let said = ["put a 1", "put b 1", "flushed", "clear", "put a 2"];
        assert!(lost(held, &said, &[("b", 1), ("a", 2)]).is_empty());
        assert_eq!(lost(held, &["flushed"], &[("a", 2), ("b", 3)]), ["b has another value"]);
        assert_eq!(lost(held, &["put a -", "flushed"], &[("a", 2), ("b", 3)]), ["a is back"]);
    }
}
