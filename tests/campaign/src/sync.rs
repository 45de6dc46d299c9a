//! Syncs that fail: the kernel drops what it could not write and believes it to be there, so that the next sync of the same
//! file goes well. What is acknowledged afterwards must not rely on it, whenever the power is cut.

use std::path::Path;

use crate::local::Failure;
use crate::power::{self, Outcome};
use crate::record::{self, Fault};
use crate::stage::Stage;
use crate::story::Story;
use crate::teller::Teller;

/// What came of many syncs.
#[derive(Debug, Clone, Default)]
pub struct Syncs {
    /// Syncs that failed, each in a telling of its own.
    pub failed: u64,
    /// Those after which the story said so and ended.
    pub refused: u64,
    /// States of the disk that were looked at.
    pub seen: Outcome,
}

/// Fails every `step`th sync of a story (the seed says which first), and looks at `states` states of the disk after each.
///
/// # Errors
/// The story cannot be told.
pub fn sweep(
    teller: &Teller,
    story: Story,
    (stage, work): (&Stage, &Path),
    (seed, step, states): (u64, u64, u64),
    most: usize,
) -> Result<Syncs, Failure> {
    let mut all = Syncs::default();
    for nth in (seed % step.max(1)..).step_by(step.max(1) as usize) {
        let fault = Fault { nth, failure: record::Failure::Sync };
        let (recorded, ended, struck) = power::record_with(teller, story, (stage, work), Some(fault))?;
        if !struck {
            story.assured(&ended.told)?;
            break;
        }
        if all.seen.broken.len() >= most {
            break;
        }
        all.failed += 1;
        all.refused += u64::from(ended.code != Some(0));
        if ended.code != Some(0) && ended.complaint.trim().is_empty() {
            all.seen
                .broken
                .push(format!("sync {nth} fails: the story ends with {:?} and says nothing", ended.code));
        }
        let seen = recorded.explore(story, stage, work, (seed, states), most);
        let of = recorded.lost().unwrap_or("a directory".to_owned());
        all.seen.add(seen, &format!("sync {nth}, of {of}, fails"));
    }
    Ok(all)
}
