//! The fuzzer finds what is planted; what it found in Roost stays found; a short run of each target.

use std::path::Path;
use std::time::Duration;

use roost_fuzz::targets::all;
use roost_fuzz::{Target, fuzz, run_once};

/// A decoder with a bug behind a length, a kind and a value, each with its own error.
struct Planted {
    checksum: bool,
}

impl Target for Planted {
    fn name(&self) -> &'static str {
        "planted"
    }

    fn corpus(&self) -> Vec<Vec<u8>> {
        let mut input = b"\0M\x04\x01abcd".to_vec();
        self.seal(&mut input);
        vec![input]
    }

    fn run(&self, input: &[u8]) -> String {
        let sum = input.iter().skip(1).fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        match input {
            [check, ..] if self.checksum && *check != sum => "checksum".into(),
            [_, b'M', len, kind, rest @ ..] if *len as usize == rest.len() => match kind {
                1 => "first kind".into(),
                2 if rest.len() > 4 => match rest[0] {
                    0xff => panic!("planted"),
                    _ => "second kind".into(),
                },
                2 => "short second kind".into(),
                _ => "no kind".into(),
            },
            [_, b'M', ..] => "length".into(),
            _ => "magic".into(),
        }
    }

    fn seal(&self, input: &mut Vec<u8>) {
        if self.checksum && !input.is_empty() {
            input[0] = input[1..].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        }
    }
}

#[test]
fn planted_panics_are_found_and_shrunk() {
    for checksum in [false, true] {
        // A bound for a machine that does something else; it takes a moment.
        let summary = fuzz(&Planted { checksum }, Duration::from_secs(60), 7);
        let finding = summary.finding.expect("the planted panic");
        assert!(finding.panic.contains("planted"), "{}", finding.panic);
        assert!(finding.input.len() <= 9, "{} bytes", finding.input.len());
    }
}

#[test]
fn every_decoder_takes_its_corpus_and_some_mutations_of_it() {
    for target in all() {
        let summary = fuzz(&*target, Duration::from_secs(2), 1);
        assert_eq!(summary.finding, None);
        assert!(summary.runs > 100 && summary.outcomes > 1, "{summary:?}");
    }
}

#[test]
fn what_was_found_once_panics_no_more() {
    for target in all() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kept").join(target.name());
        for file in std::fs::read_dir(folder).into_iter().flatten() {
            let path = file.unwrap().path();
            let input = std::fs::read(&path).unwrap();
            let run = run_once(&*target, &input);
            assert!(run.is_ok(), "{}: {run:?}", path.display());
        }
    }
}
