//! Measurements that take a while: Roost beside other systems, and its cost as work grows.
//!
//! ```sh
//! cargo build --release && cargo build --release --example measure
//! target/release/examples/measure compare --peers ../shared/bench --out runs.jsonl
//! target/release/examples/measure report runs.jsonl
//! target/release/examples/measure sweep --out costs.jsonl
//! target/release/examples/measure plot costs.jsonl docs/costs
//! target/release/examples/measure flame stacks.folded docs/profiles/send.svg
//! ```
//!
//! Every measurement is a `roost bench` against a cluster of its own on this machine (or a peer's
//! driver, which prints the same keys), and one line of JSON in a file. [`compare`] and [`sweep`] run
//! them, [`report`] and [`svg`] show what the files hold; [`flame`] shows what a profiler saw. Figures of two machines, or of one on two
//! days, do not compare; ratios from one sitting do.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it prints figures")]

use std::path::PathBuf;

use clap::{Parser, Subcommand};

mod cluster;
mod compare;
mod flame;
mod lines;
mod report;
mod svg;
mod sweep;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run peers and Roost in turn, round after round
    Compare(compare::Compare),
    /// Print medians and ratios of what `compare` wrote
    Report {
        /// The lines
        file: PathBuf,
    },
    /// Measure against users, group size, queue length, stored messages and connections
    Sweep(sweep::Sweep),
    /// Draw what `sweep` wrote
    Plot {
        /// The lines
        file: PathBuf,
        /// The folder for the drawings
        folder: PathBuf,
    },
    /// Draw a profile as a flame graph
    Flame {
        /// Collapsed stacks, a line each
        file: PathBuf,
        /// The drawing
        out: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Compare(compare) => compare.run(),
        Command::Report { file } => report::print(&file),
        Command::Sweep(sweep) => sweep.run(),
        Command::Plot { file, folder } => svg::plot(&file, &folder),
        Command::Flame { file, out } => flame::draw(&file, &out),
    }
}
