//! A process is killed, another one goes on with what it left, durable or not, and then the power is cut.

use std::path::Path;

use backhaul_tests::dice::Dice;

use crate::local::Failure;
use crate::power::{self, Outcome};
use crate::stage::Stage;
use crate::story::Story;
use crate::teller::Teller;

/// What came of many kills.
#[derive(Debug, Clone, Default)]
pub struct Twice {
    /// Kills after which another process went on.
    pub killed: u64,
    /// Those after which it said that it cannot: nothing had been promised yet.
    pub refused: u64,
    /// States of the disk that were looked at.
    pub seen: Outcome,
}

/// Kills a story at `points` places in turn, every second before a sync (there most shows that is not durable), tells [`Story::Backup`] to what is left, and looks at `states` states of the
/// disk after each.
///
/// # Errors
/// A story cannot be told.
pub fn sweep(
    teller: &Teller,
    story: Story,
    (stage, work): (&Stage, &Path),
    (seed, points, states): (u64, u64, u64),
    most: usize,
) -> Result<Twice, Failure> {
    let mut all = Twice::default();
    let first = power::record(teller, story, stage, work)?;
    for n in 0..points {
        let (mut dice, syncs) = (Dice::of(seed, n), first.syncs());
        let at = match n % 2 == 1 && !syncs.is_empty() {
            true => syncs[dice.index(syncs.len())],
            false => dice.index(first.operations() + 1),
        };
        let Some(recorded) = first.killed(at, teller, Story::Backup, work)? else {
            all.refused += 1;
            continue;
        };
        all.killed += 1;
        let seen = recorded.explore(story, stage, work, (seed + n, states), most);
        all.seen.add(seen, &format!("killed before operation {at}, then"));
        if all.seen.broken.len() >= most {
            break;
        }
    }
    Ok(all)
}
