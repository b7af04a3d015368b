//! Files of one JSON value a line, and medians of what stands in them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

/// Adds a line.
pub(crate) fn append(path: &Path, line: &Value) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(writeln!(file, "{line}")?)
}

/// Reads all lines.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| serde_json::from_str(line).with_context(|| format!("{}", path.display())))
        .collect()
}

/// A number in a line, by its path: `/lat/p50_us`. A list of numbers counts as their sum.
pub(crate) fn figure(line: &Value, path: &str) -> Option<f64> {
    match line.pointer(path)? {
        Value::Array(parts) => parts.iter().map(Value::as_f64).sum(),
        value => value.as_f64(),
    }
}

/// The median, of two in the middle the mean; `None` of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}
