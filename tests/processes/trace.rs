//! A made-up chat trace, the same for the same size, in the five columns that `roost replay` reads.

use std::fmt::Write as _;

/// How long a day of a made-up trace lasts by its clock.
pub(crate) const MINUTES: u64 = 12 * 60;

/// How large a trace is.
pub(crate) struct Shape {
    /// Days, one group each.
    pub(crate) days: u64,
    /// Messages of each day.
    pub(crate) messages_per_day: u64,
    /// Users in all; each day has about half of them.
    pub(crate) users: u64,
}

/// The trace's text. Lengths, speakers and events look like chat; nothing is drawn from a clock.
pub(crate) fn generate(shape: &Shape) -> String {
    let mut draw = Draw(0x9E37_79B9_7F4A_7C15);
    let mut text = String::new();
    for day in 1..=shape.days {
        for number in 0..shape.messages_per_day {
            let minute = number * MINUTES / shape.messages_per_day;
            let clock = format!("{:02}:{:02}", minute / 60, minute % 60);
            let user = 1 + (day * 7 + draw.below(shape.users / 2)) % shape.users;
            let (kind, words) = match draw.below(12) {
                0 => ("join", String::new()),
                1 => ("part", String::new()),
                _ => ("say", words(&mut draw, number)),
            };
            let line = format!("2004-11-{day:02}\t{clock}\t{kind}\tu{user:05}\t{words}");
            writeln!(text, "{line}").expect("a string takes all");
        }
    }
    text
}

/// How many messages a trace has.
pub(crate) fn messages(text: &str) -> u64 {
    text.lines().filter(|line| line.split('\t').nth(2) == Some("say")).count() as u64
}

fn words(draw: &mut Draw, number: u64) -> String {
    const WORDS: [&str; 8] =
        ["ok", "how many", "grüße", "🙂", "\"quoted\"", "a\\b", "try it", "..."];
    // Some say the same thing twice: equal bodies are different messages.
    if draw.below(20) == 0 {
        return "+1".to_owned();
    }
    let count = 1 + draw.below(12);
    let picked = (0..count).map(|_| WORDS[draw.below(WORDS.len() as u64) as usize]);
    format!("{number} {}", picked.collect::<Vec<_>>().join(" "))
}

/// Numbers that look drawn (xorshift).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
