//! Small changes to an input.

use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// Numbers at which decoders change their minds.
const INTERESTING: [u64; 14] = [
    0,
    1,
    0x7f,
    0x80,
    0xfa,
    0xff,
    0x7fff,
    0xffff,
    0x0010_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX / 2,
    u64::MAX,
];
/// The longest input that mutation makes.
const MOST_BYTES: usize = 1 << 20;

/// Mutates an input, with pieces of another one.
pub fn mutate(rng: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..1 << rng.random_range(0..4) {
        step(rng, input, other);
        input.truncate(MOST_BYTES);
    }
}

fn step(rng: &mut StdRng, input: &mut Vec<u8>, other: &[u8]) {
    if input.is_empty() {
        input.extend_from_slice(other);
        input.push(rng.random());
    }
    let at = rng.random_range(0..input.len());
    match rng.random_range(0..10) {
        0 => input[at] ^= 1 << rng.random_range(0..8),
        1 => input[at] = rng.random(),
        2 => input[at] = input[at].wrapping_add(if rng.random() { 1 } else { 0xff }),
        3 => number(rng, input, at),
        4 => input.truncate(at),
        5 => drop(input.drain(at..(at + length(rng)).min(input.len()))),
        6 => {
            let bytes: Vec<u8> = (0..length(rng)).map(|_| rng.random()).collect();
            drop(input.splice(at..at, bytes));
        }
        7 => {
            let piece = input[at..(at + length(rng)).min(input.len())].to_vec();
            let to = rng.random_range(0..=input.len());
            drop(input.splice(to..to, piece));
        }
        8 if !other.is_empty() => {
            let from = rng.random_range(0..other.len());
            let piece = other[from..(from + length(rng)).min(other.len())].to_vec();
            let end = (at + piece.len()).min(input.len());
            drop(input.splice(at..end, piece));
        }
        _ => {
            // The head of one and the tail of the other.
            input.truncate(at);
            let from = rng.random_range(0..=other.len());
            input.extend_from_slice(&other[from..]);
        }
    }
}

/// Mostly short.
fn length(rng: &mut StdRng) -> usize {
    let most = *[1, 2, 4, 8, 32, 256].choose(rng).unwrap_or(&1);
    rng.random_range(1..=most)
}

/// An interesting number, in some width and order.
fn number(rng: &mut StdRng, input: &mut [u8], at: usize) {
    let value = *INTERESTING.choose(rng).unwrap_or(&0);
    let width = *[1, 2, 4, 8].choose(rng).unwrap_or(&1);
    let bytes = if rng.random() { value.to_le_bytes() } else { value.to_be_bytes() };
    // Of the big-endian form the end is the number.
    let bytes = if bytes == value.to_le_bytes() { &bytes[..width] } else { &bytes[8 - width..] };
    for (place, byte) in input[at..].iter_mut().zip(bytes) {
        *place = *byte;
    }
}
