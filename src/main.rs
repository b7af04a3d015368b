//! The `roost` binary: all of it is in the library's [`roost::cli`].

/// A batch's hundreds of small pieces come and go together, and what a generation keeps is freed by
/// another thread: glibc's allocator took up to a quarter of the async worker's time with that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    roost::cli::main()
}
