//! The command line: what `roost` understands, and how it ends.
//!
//! One file a command, each with its arguments and what they do. What several need is in [`output`]
//! (printing), [`folder`] (what a data folder says of its cluster), [`target`] (which nodes a client
//! command speaks to, and as whom) and [`api`] (the administrators' HTTP).
//!
//! Exit codes: 0 done, 1 failed (one line on stderr says why), 2 not understood.

use std::process::ExitCode;
use std::{env, thread};

use clap::{Parser, Subcommand};

mod output;
mod folder;
mod target;
mod api;
mod serve;
mod dev;
mod token;
mod keys;
mod send;
mod tail;
mod replay;
mod status;
mod bench;

/// An instant-messaging store and server in one binary.
#[derive(Debug, Parser)]
#[command(name = "roost", version, about, max_term_width = 100, after_help = FIRST_STEPS)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const FIRST_STEPS: &str = "\
First steps:
  roost dev --nodes 3                         a cluster to try out, on 127.0.0.1:7070, 7080 and 7090
  roost tail --as bob                         in a second terminal: bob's queue, live
  roost send --as alice --to bob \"hi\"         in a third one";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Dev(dev::Dev),
    Token(token::Token),
    Send(send::Send),
    Tail(tail::Tail),
    Replay(replay::Replay),
    Status(status::Status),
    Bench(bench::Bench),
    Keys(keys::Keys),
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let command = Cli::parse().command;
    let outcome = match command {
        Command::Serve(serve) => run(serve.run()),
        Command::Dev(dev) => run(dev.run()),
        Command::Token(token) => token.run(),
        Command::Send(send) => run(send.run()),
        Command::Tail(tail) => run(tail.run()),
        Command::Replay(replay) => run(replay.run()),
        Command::Status(status) => run(status.run()),
        Command::Bench(bench) => run(bench.run()),
        Command::Keys(keys) => keys.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// Runs a command that needs the async runtime.
fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    // Who set this knows better.
    if env::var_os("TOKIO_WORKER_THREADS").is_none() {
        runtime.worker_threads(worker_threads());
    }
    let runtime = runtime.enable_all().build()?;
    let outcome = runtime.block_on(command);
    // A blocked read of stdin must not hold up the end.
    runtime.shutdown_background();
    outcome
}

/// One core is left to what has threads of its own: the log's writer, checkpoints, the engine. With
/// as many workers as cores they wake each other more than they work.
fn worker_threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example_that_it_understands() {
        let cli = Cli::command();
        let mut texts = vec![("roost".to_owned(), cli.get_after_help().unwrap().to_string())];
        for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
            let help = command.get_after_help().expect("every command has an example").to_string();
            assert!(
                help.contains(&format!("roost {}", command.get_name())),
                "{}",
                command.get_name()
            );
            texts.push((command.get_name().to_owned(), help));
            assert!(takes_data(command), "{} lacks --data", command.get_name());
        }
        for (name, help) in texts {
            for example in help.lines().filter_map(|line| line.trim().strip_prefix("roost ")) {
                let words = words(example);
                if let Err(error) =
                    Cli::try_parse_from(["roost".to_owned()].into_iter().chain(words))
                {
                    panic!("in the help of {name}: roost {example}\n{error}");
                }
            }
        }
    }

    fn takes_data(command: &clap::Command) -> bool {
        let own = command.get_arguments().any(|argument| argument.get_long() == Some("data"));
        own || command.has_subcommands()
            && command.get_subcommands().all(|sub| sub.get_name() == "help" || takes_data(sub))
    }

    /// An example's words as a shell would see them, up to the explanation after several spaces.
    fn words(example: &str) -> Vec<String> {
        let command = example.split("   ").next().unwrap();
        let command = command.split(" | ").next().unwrap();
        let mut words = Vec::new();
        for (index, part) in command.split('"').enumerate() {
            if index % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    }
}
