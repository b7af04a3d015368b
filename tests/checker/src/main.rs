//! `roost-checker HISTORY [--svg DIR]`: prints the verdict and the evidence.
//!
//! Ends with 0 if the history is valid, 1 if it breaks a promise, 2 if something acknowledged was
//! never looked for.

use std::fs::{self, File};
use std::io::{BufReader, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use roost_checker::{History, Verdict, check, svg};

/// Say which of Roost's promises a history breaks
#[derive(Debug, Parser)]
struct Arguments {
    /// The history, one event a line
    history: PathBuf,
    /// Draw each violation into this folder
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let file = File::open(&arguments.history)
        .with_context(|| format!("cannot open {}", arguments.history.display()))?;
    let history = History::read(BufReader::new(file))?;
    let report = check(&history);
    if let Some(folder) = &arguments.svg {
        fs::create_dir_all(folder)?;
        for (n, violation) in report.violations.iter().enumerate() {
            let name = format!("{n:02}-{}.svg", violation.anomaly.replace(' ', "-"));
            fs::write(folder.join(name), svg::draw(&history, violation))?;
        }
    }
    std::io::stdout().write_all(report.text(&history).as_bytes())?;
    Ok(ExitCode::from(match report.verdict() {
        Verdict::Valid => 0,
        Verdict::Invalid => 1,
        Verdict::Unknown => 2,
    }))
}
