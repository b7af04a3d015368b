//! Waiting for what may come, as long as that pays.

/// Chances that are not taken after waits in vain, at most.
const MAX_SKIPPED: u32 = 256;

/// Decides whether to wait where more may come: always while that pays, and after each wait in vain
/// ever more rarely.
#[derive(Debug, Default)]
pub struct Patience {
    /// Chances that will not be taken.
    skip: u32,
    /// Grows with each wait in vain.
    penalty: u32,
}

impl Patience {
    /// Whether to wait this time. Whoever does then says how it ended.
    pub fn waits(&mut self) -> bool {
        match self.skip.checked_sub(1) {
            Some(left) => self.skip = left,
            None => return true,
        }
        false
    }

    /// A wait ended: with what it was for, or in vain.
    pub fn waited(&mut self, paid: bool) {
        self.penalty = if paid { 0 } else { (2 * self.penalty + 1).min(2 * MAX_SKIPPED) };
        self.skip = self.penalty / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits_of(chances: u32, patience: &mut Patience, paid: bool) -> u32 {
        let mut waits = 0;
        for _ in 0..chances {
            if patience.waits() {
                waits += 1;
                patience.waited(paid);
            }
        }
        waits
    }

    #[test]
    fn where_it_pays_it_always_waits() {
        assert_eq!(waits_of(100, &mut Patience::default(), true), 100);
    }

    #[test]
    fn in_vain_it_waits_ever_more_rarely_and_never_gives_up() {
        let mut patience = Patience::default();
        assert!((5..=15).contains(&waits_of(1_000, &mut patience, false)));
        assert!((3..=5).contains(&waits_of(1_000, &mut patience, false)));
    }

    #[test]
    fn one_wait_that_pays_makes_up_for_all_in_vain() {
        let mut patience = Patience::default();
        waits_of(1_000, &mut patience, false);
        while !patience.waits() {}
        patience.waited(true);
        assert!(patience.waits());
    }
}
