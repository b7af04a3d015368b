//! What is sent: who talks to whom, and what is said.
//!
//! Users are numbered. Each is, on average, in five conversations of each size. Conversation `n` of
//! a size belongs to session `n` modulo the number of sessions: that session's user is its first
//! member and its only sender, because a node takes messages only from whom a connection stands for.
//! The others are drawn from all users. Everything is drawn from fixed seeds, so that a repeated run
//! finds the conversations of the one before.
//!
//! All are as likely as each other, or the first ones likelier (Zipf's law): as members, so that some
//! users are in very many conversations, and as the conversation of a send.

use std::str::FromStr;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};
use roost_client::protocol::{Body, CompactString, limits};

/// Conversations of each size that a user is in, on average.
const CONVERSATIONS_PER_USER: usize = 5;
/// Characters that bodies are cut from, beyond the longest body.
const POOL_BYTES: usize = 65_536;
const ALPHABET: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .";

/// How many members the conversations have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Group {
    /// Half the sends go to conversations of 2, half to groups of 10.
    Mix,
    /// All conversations have so many members.
    Of(usize),
}

impl Group {
    /// The sizes that there are; a send takes each with the same chance.
    pub(crate) fn sizes(self) -> Vec<usize> {
        match self {
            Self::Mix => vec![2, 10],
            Self::Of(size) => vec![size],
        }
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let most = limits::MAX_USERS_PER_REQUEST;
        match text.parse() {
            _ if text == "mix" => Ok(Self::Mix),
            Ok(size) if (2..=most).contains(&size) => Ok(Self::Of(size)),
            _ => Err(format!("mix, or a number of members from 2 to {most}")),
        }
    }
}

impl std::fmt::Display for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mix => f.write_str("mix"),
            Self::Of(size) => write!(f, "{size}"),
        }
    }
}

/// A user's id.
pub(crate) fn user_name(user: usize) -> CompactString {
    // 24 bytes stand in the string itself: no allocation.
    compact(format_args!("bench-{user}"))
}

fn compact(arguments: std::fmt::Arguments<'_>) -> CompactString {
    let mut text = CompactString::default();
    // A string takes every write.
    let _ = std::fmt::Write::write_fmt(&mut text, arguments);
    text
}

/// All conversations of one size.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Members of each.
    pub(crate) size: usize,
    /// Their ids, once they are made.
    pub(crate) ids: Vec<CompactString>,
}

/// The plan of a run.
#[derive(Debug)]
pub(crate) struct Workload {
    /// How many users there are.
    pub(crate) users: usize,
    /// How many sessions send; session `n` is user `n`.
    pub(crate) sessions: usize,
    /// The conversations by size.
    pub(crate) kinds: Vec<Kind>,
    /// Names this run: client ids begin with it.
    run: u32,
    body_bytes: usize,
    /// The exponent of Zipf's law; 0 makes all as likely.
    skew: f64,
    pool: bytes::Bytes,
}

/// One send.
#[derive(Debug)]
pub(crate) struct Draw<'a> {
    /// The conversation.
    pub(crate) conversation: &'a CompactString,
    /// How many references it makes.
    pub(crate) references: u64,
}

impl Workload {
    /// Plans the conversations of so many users, `conversations` of each size if that is said; their
    /// ids are still empty.
    pub(crate) fn new(
        users: usize,
        sessions: usize,
        group: Group,
        conversations: Option<usize>,
        body_bytes: usize,
        skew: f64,
    ) -> Self {
        let kinds = group.sizes().into_iter().map(|size| {
            let usual = users * CONVERSATIONS_PER_USER / size;
            let count = conversations.unwrap_or(usual).max(sessions);
            Kind { size, ids: vec![CompactString::default(); count] }
        });
        let mut rng = SmallRng::seed_from_u64(1);
        let pool = (0..POOL_BYTES + body_bytes)
            .map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())])
            .collect::<Vec<u8>>();
        Self {
            users,
            sessions,
            kinds: kinds.collect(),
            run: rand::random(),
            body_bytes,
            skew,
            pool: pool.into(),
        }
    }

    /// One of so many, of which the first may be likelier; at least one.
    fn pick(&self, count: usize, rng: &mut SmallRng) -> usize {
        let zipf = (self.skew > 0.0).then(|| Zipf::new(count as f64, self.skew));
        match zipf {
            Some(Ok(zipf)) => (zipf.sample(rng) as usize).clamp(1, count) - 1,
            _ => rng.random_range(0..count),
        }
    }

    /// The members of a conversation, the sending one first.
    pub(crate) fn members(&self, size: usize, index: usize) -> Vec<usize> {
        let mut rng = SmallRng::seed_from_u64((size as u64) << 40 ^ index as u64);
        let mut members = Vec::with_capacity(size);
        members.push(index % self.sessions);
        while members.len() < size {
            let user = self.pick(self.users, &mut rng);
            // Looking through them is quick enough for the sizes that there are.
            if !members.contains(&user) {
                members.push(user);
            }
        }
        members
    }

    /// A conversation of a session, drawn at random.
    pub(crate) fn draw(&self, session: usize, rng: &mut SmallRng) -> Draw<'_> {
        let kind = match self.kinds.as_slice() {
            [only] => only,
            kinds => &kinds[rng.random_range(0..kinds.len())],
        };
        // Those of this session are `session`, `session + sessions`, …
        let own = (kind.ids.len() - session).div_ceil(self.sessions);
        let index = session + self.pick(own, rng) * self.sessions;
        Draw { conversation: &kind.ids[index], references: kind.size as u64 }
    }

    /// A body.
    pub(crate) fn body(&self, rng: &mut SmallRng) -> Body {
        let from = rng.random_range(0..POOL_BYTES);
        self.pool.slice(from..from + self.body_bytes).into()
    }

    /// A client id that no other send of this run, or of another, has.
    pub(crate) fn client_id(&self, session: usize, count: u64) -> CompactString {
        compact(format_args!("{:x}-{session:x}-{count:x}", self.run))
    }

    /// A client id of this run for a purpose of its own.
    pub(crate) fn client_id_for(&self, purpose: &str, session: usize, count: u64) -> CompactString {
        compact(format_args!("{:x}-{purpose}-{session:x}-{count:x}", self.run))
    }

    /// The client id under which a conversation is made, the same in every run.
    pub(crate) fn creation_id(&self, size: usize, index: usize) -> CompactString {
        let (users, sessions) = (self.users, self.sessions);
        match self.skew > 0.0 {
            false => compact(format_args!("bench-{users}-{sessions}-{size}-{index}")),
            true => compact(format_args!("bench-{users}-{sessions}-{size}-{index}-{}", self.skew)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_and_written_alike() {
        for text in ["mix", "2", "10", "1000"] {
            assert_eq!(text.parse::<Group>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1001", "half"] {
            assert!(text.parse::<Group>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_conversation_has_its_session_and_others_and_is_the_same_each_time() {
        let plan = || Workload::new(50, 4, Group::Of(10), None, 200, 0.0);
        let members = plan().members(10, 7);
        assert_eq!((members[0], members.len()), (3, 10));
        let mut sorted = members.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 10);
        assert_eq!(plan().members(10, 7), members);
        assert_eq!(plan().creation_id(10, 7), plan().creation_id(10, 7));
        assert_ne!(plan().client_id(0, 7), plan().client_id(0, 7));
    }

    #[test]
    fn a_session_draws_its_own_conversations_of_each_size() {
        let mut plan = Workload::new(100, 7, Group::Mix, Some(40), 200, 0.0);
        for kind in &mut plan.kinds {
            for index in 0..kind.ids.len() {
                kind.ids[index] = format!("{}-{index}", kind.size).into();
            }
        }
        let mut rng = SmallRng::seed_from_u64(3);
        let mut references = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let draw = plan.draw(5, &mut rng);
            let index: usize = draw.conversation.split_once('-').unwrap().1.parse().unwrap();
            assert_eq!(index % 7, 5);
            references.insert(draw.references);
        }
        assert_eq!(references.into_iter().collect::<Vec<_>>(), [2, 10]);
        assert_eq!(plan.body(&mut rng).len(), 200);
    }

    #[test]
    fn with_a_skew_the_first_are_likelier_and_all_are_there() {
        let count = |skew| {
            let plan = Workload::new(50, 1, Group::Of(2), None, 1, skew);
            let mut rng = SmallRng::seed_from_u64(5);
            let mut counts = vec![0; 50];
            for _ in 0..10_000 {
                counts[plan.pick(50, &mut rng)] += 1;
            }
            counts
        };
        let (even, skewed) = (count(0.0), count(1.0));
        assert!(even.iter().all(|count| (100..300).contains(count)), "{even:?}");
        // The first of 50 has one part of 4.5 under Zipf's law with exponent 1.
        assert!((2_000..2_450).contains(&skewed[0]), "{skewed:?}");
        assert!(skewed.iter().all(|count| *count > 10), "{skewed:?}");
        let skewed = Workload::new(50, 1, Group::Of(2), None, 1, 1.0);
        assert_ne!(
            skewed.creation_id(2, 7),
            Workload::new(50, 1, Group::Of(2), None, 1, 0.0).creation_id(2, 7)
        );
    }

    #[test]
    fn few_users_still_give_each_session_a_conversation() {
        let plan = Workload::new(100, 64, Group::Of(100), None, 1, 0.0);
        assert_eq!(plan.kinds[0].ids.len(), 64);
    }
}
