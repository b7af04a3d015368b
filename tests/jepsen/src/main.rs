//! Real nodes, real faults: starts a cluster of `roost serve` processes, each in a network namespace
//! of its own, drives clients over QUIC and WebSocket against all of them, makes faults, then reads
//! everything and has the history checked against the promises.
//!
//! Everything lives in namespaces that belong to this process tree (`sandbox`): processes, mounts
//! and networks end with it, also when it is killed. What is left is a scratch folder, which the
//! next run or `clean` removes.
//!
//! Reading order: `sandbox`, `network`, `links`, `disk`, `clocks`, `cluster`, `recorder`, `clients`,
//! `nemesis`, `finish`, `run`; and `lives`, disks that lose their power under `engines` and `stores`
//! alone.

mod clients;
mod clocks;
mod cluster;
mod disk;
mod engines;
mod finish;
mod links;
mod lives;
mod nemesis;
mod network;
mod options;
mod recorder;
mod run;
mod sandbox;
mod shell;
mod stores;
mod witness;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

use options::{Arguments, Command};

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Clean => {
            sandbox::clean()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Engines(_) | Command::Stores(_) if !sandbox::inside() => {
            Err(sandbox::enter(std::env::current_exe()?))
        }
        Command::Engines(options) => lives::run::<engines::Said>(&options),
        Command::EngineWriter(part) => engines::write(&part).map(|()| ExitCode::SUCCESS),
        Command::EngineReader(part) => engines::read(&part).map(|()| ExitCode::SUCCESS),
        Command::Stores(options) => lives::run::<stores::Said>(&options),
        Command::StoreWriter(part) => stores::write(&part).map(|()| ExitCode::SUCCESS),
        Command::StoreReader(part) => stores::read(&part).map(|()| ExitCode::SUCCESS),
        Command::Run(options) => {
            if !sandbox::inside() {
                // Does not return: this process becomes the sandbox's keeper.
                return Err(sandbox::enter(options.binary()?));
            }
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("cannot start the runtime")?;
            runtime.block_on(run::run(*options))
        }
    }
}
