//! The `roost` binary: all of it is in the library's [`roost::cli`].

fn main() -> std::process::ExitCode {
    roost::cli::main()
}
