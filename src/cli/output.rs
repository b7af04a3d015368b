//! What commands print: answers on stdout, everything else on stderr.
//!
//! A reader that goes away (`roost tail | head`) ends a command that answers without a complaint; a
//! node or a cluster goes on without its reader.

use std::io::{self, Write as _};
use std::time::{Duration, UNIX_EPOCH};

/// Prints a line to stdout.
macro_rules! say {
    ($($argument:tt)*) => { $crate::cli::output::line(format_args!($($argument)*)) };
}

/// Prints a line to stdout, for a command that goes on without a reader.
macro_rules! announce {
    ($($argument:tt)*) => { $crate::cli::output::announce_line(format_args!($($argument)*)) };
}

/// Prints a line to stderr.
macro_rules! note {
    ($($argument:tt)*) => { $crate::cli::output::note_line(format_args!($($argument)*)) };
}

pub(crate) use announce;
pub(crate) use note;
pub(crate) use say;

/// Writes one line to stdout, at once.
pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    if writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_err() {
        // Nobody reads any more: there is nothing left to do, and nobody to tell.
        std::process::exit(0);
    }
}

/// Writes one line to stdout, at once; without a reader it is lost.
pub(crate) fn announce_line(text: std::fmt::Arguments<'_>) {
    let mut stdout = io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// How this program was called, for commands to copy: `roost` where that finds it.
pub(crate) fn invocation() -> String {
    std::env::args().next().unwrap_or_else(|| "roost".to_owned())
}

/// Writes one line to stderr; without a reader it is lost.
pub(crate) fn note_line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says why a command failed, in one line.
pub(crate) fn complain(error: &anyhow::Error) {
    note!("roost: {}", one_line(&in_words(error)));
}

/// An error with its causes, but those that it has in its own words already.
fn in_words(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Folds a text to one line.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A time in milliseconds since the Unix epoch as RFC 3339 in UTC.
pub(crate) fn time(at_ms: u64) -> String {
    // Past the year 9999 there is no such text; no log has such a time.
    let at_ms = at_ms.min(253_402_300_799_000);
    humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(at_ms)).to_string()
}

/// A number with its thousands apart: `221,597`.
pub(crate) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (221_597, "221,597"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn times_are_utc_to_the_millisecond() {
        assert_eq!(time(1_760_000_000_007), "2025-10-09T08:53:20.007Z");
        assert_eq!(time(u64::MAX), "9999-12-31T23:59:59.000Z");
    }

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("busy").context("cannot listen: busy").context("no node");
        assert_eq!(in_words(&error), "no node: cannot listen: busy");
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(one_line("a\n  b\n\nc"), "a b c");
    }
}
