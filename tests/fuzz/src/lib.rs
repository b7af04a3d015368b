//! Feeds Roost's decoders with inputs that nobody would send, on the stable toolchain.
//!
//! Each target has a corpus of real inputs. The [`fuzzer`] mutates them, runs the target, and
//! keeps an input whose outcome is new, as the seed of further ones: what a decoder says of an input
//! stands in for the branches that it took. A target may know how to [`Target::seal`] an input, so
//! that a mutation inside a checksummed record is not refused at the door.
//!
//! A finding is a panic: of the decoder, or of the target when a promise does not hold (a refused
//! snapshot that changed something, a value that reads back as another one). It is shrunk, and kept
//! as a file that a test runs for ever after.

pub mod fuzzer;

pub mod mutate;

mod seal;

pub mod targets;

pub use fuzzer::{Finding, Summary, fuzz, run_once};

/// Something that takes any bytes.
pub trait Target: Send + Sync {
    /// Its name on the command line.
    fn name(&self) -> &'static str;
    /// Real inputs.
    fn corpus(&self) -> Vec<Vec<u8>>;
    /// Takes an input; says what became of it, the same for inputs that went the same way.
    ///
    /// # Panics
    /// If the decoder panics, or a promise does not hold.
    fn run(&self, input: &[u8]) -> String;
    /// Makes an input's checksums right again.
    fn seal(&self, _input: &mut Vec<u8>) {}
}
