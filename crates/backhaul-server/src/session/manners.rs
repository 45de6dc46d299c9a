//! How much one session may say without moving anything: words cost the server, and a slot is held for objects.

use backhaul_proto::end;
use backhaul_schedule::policy::units;

use super::Ending;

/// Words that move nothing: so many at once, and then one in so many milliseconds. More is an attack.
const WORDS: u64 = 60;
const WORD_EVERY_MS: u64 = 1_000;
/// A run that only says that it goes on gives its slot back after so long: a scan in which nothing has changed takes less.
const IDLE_MS: u64 = 6 * 3_600_000;
/// In how many seconds one that says too much may come back.
const AWAY: u64 = 600;

/// What one session has said so far.
#[derive(Debug)]
pub(super) struct Manners {
    /// When all of its words are forgiven.
    forgiven: u64,
    /// When it moved something last.
    moved: u64,
}

impl Manners {
    /// Those of a session that begins, at a time in ms since boot.
    pub fn new(now: u64) -> Self {
        Self { forgiven: now, moved: now }
    }

    /// It says something that moves nothing.
    ///
    /// # Errors
    /// It has said too much of that.
    pub fn word(&mut self, now: u64) -> Result<(), Ending> {
        self.forgiven = self.forgiven.max(now) + WORD_EVERY_MS;
        match self.forgiven > now + WORDS * WORD_EVERY_MS {
            true => Err(Ending::busy("this client says too much".to_owned(), AWAY)),
            false => Ok(()),
        }
    }

    /// Its run moves: it asks about contents, or what it sent is safe.
    pub fn moved(&mut self, now: u64) {
        self.moved = now;
    }

    /// It says that its run goes on.
    ///
    /// # Errors
    /// It says so too often, or has for too long.
    pub fn beat(&mut self, now: u64) -> Result<(), Ending> {
        self.word(now)?;
        match now.saturating_sub(self.moved) > IDLE_MS {
            true => {
                let long = units::about((IDLE_MS / 1_000) as i64);
                Err(Ending::new(end::AGENT, format!("it has held its slot for {long} and sent nothing")))
            }
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_few_and_a_minutes_beat_is_none_too_many() {
        let mut manners = Manners::new(5);
        assert!((0..WORDS).all(|_| manners.word(5).is_ok()));
        let ending = manners.word(5).err();
        assert!(ending.is_some_and(|ending| ending.code == end::BUSY && ending.retry.after == AWAY));
        let mut honest = Manners::new(0);
        assert!((0..IDLE_MS / 60_000).all(|minute| honest.beat(minute * 60_000).is_ok()));
    }

    #[test]
    fn a_slot_is_not_held_by_words_alone() {
        let mut manners = Manners::new(0);
        manners.moved(1_000);
        assert_eq!(manners.beat(1_000 + IDLE_MS), Ok(()));
        let ending = manners.beat(1_001 + IDLE_MS).err().map(|ending| ending.text).unwrap_or_default();
        assert!(ending.contains("6 h"), "{ending}");
        manners.moved(1_001 + IDLE_MS);
        assert_eq!(manners.beat(1_002 + IDLE_MS), Ok(()));
    }
}
