//! Power cuts: a story is recorded below the store, and the disk is put into the states in which a cut can leave it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use crate::dice::Dice;
use crate::disk::Image;
use crate::laws::{Acknowledged, Depth, verify};
use crate::local::Failure;
use crate::record::Recorder;
use crate::stage::Stage;
use crate::states::Recording;
use crate::story::{Story, Told, prepare};
use crate::teller::Teller;

/// One state in this many is also written to.
const NEXT_EVERY: u64 = 4;

/// A story with all that was asked of the disk, and what was acknowledged when.
pub struct Recorded {
    recording: Recording,
    /// What was told when so many operations were asked for.
    told: Vec<(usize, Told)>,
    before: Acknowledged,
}

/// What came of many states.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// States made.
    pub states: u64,
    /// Those unlike all before.
    pub distinct: u64,
    /// Snapshots restored and found equal.
    pub restored: u64,
    /// Operations that were recorded.
    pub operations: usize,
    /// Laws broken, with what leads there again.
    pub broken: Vec<String>,
}

/// Records a story; `work` is a directory for the mount and scratch.
///
/// # Errors
/// It cannot be recorded, or does not end well.
pub fn record(teller: &Teller, story: Story, stage: &Stage, work: &Path) -> Result<Recorded, Failure> {
    let (home, mount) = (work.join("prepared"), work.join("mount"));
    let before = Mutex::new(Acknowledged::default());
    let _ = fs::remove_dir_all(&home);
    prepare(story, &home, stage, &|told| before.lock().unwrap().hear(told))?;
    fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
    let base = Image::load(&home);
    let recorder = Recorder::mount(base.clone(), &mount, None).map_err(|error| format!("mount: {error}"))?;
    let mut told = Vec::new();
    // By another process: whoever serves the memory that a process maps must not be that process.
    let ended = teller.tell(&[], story, (&mount, work), &mut |word| told.push((recorder.asked(), word)))?;
    let (ops, _) = recorder.finish();
    if ended.code != Some(0) {
        return Err(format!("the story {story:?} failed: {}", ended.complaint));
    }
    let before = before.into_inner().unwrap();
    Ok(Recorded { recording: Recording::new(base, ops), told, before })
}

impl Recorded {
    fn acknowledged(&self, at: usize) -> Acknowledged {
        let mut all = self.before.clone();
        for (when, word) in &self.told {
            // What is announced counts from before its first write, what is done from after its last.
            if *when <= at {
                all.hear(*word);
            }
        }
        all
    }

    /// Makes `states` states and asks the laws of each; stops when `most` are broken.
    pub fn explore(
        &self,
        story: Story,
        stage: &Stage,
        work: &Path,
        (seed, states): (u64, u64),
        most: usize,
    ) -> Outcome {
        let (vault, scratch) = (work.join("state"), work.join("scratch"));
        let mut outcome = Outcome { operations: self.recording.ops.len(), ..Outcome::default() };
        let mut known = HashSet::new();
        for n in 0..states {
            let mut dice = Dice::of(seed, n);
            let at = dice.index(self.recording.ops.len() + 1);
            let image = self.recording.state(at, &mut dice);
            let acknowledged = self.acknowledged(at);
            outcome.states += 1;
            if !known.insert((image.sum(), acknowledged.snapshots.clone(), acknowledged.doubtful.clone())) {
                continue;
            }
            outcome.distinct += 1;
            for dir in [&vault, &scratch] {
                let _ = fs::remove_dir_all(dir);
                fs::create_dir_all(dir).unwrap();
            }
            image.store(&vault);
            let depth = if n % NEXT_EVERY == 0 { Depth::Next } else { Depth::Whole };
            match verify(&vault, stage, &acknowledged, depth, &scratch) {
                Ok(seen) => outcome.restored += seen.restored,
                Err(why) => {
                    let story = format!("{story:?}").to_lowercase();
                    outcome
                        .broken
                        .push(format!("{story}, seed {seed}, state {n} (cut before operation {at}): {why}"));
                    if outcome.broken.len() >= most {
                        break;
                    }
                }
            }
        }
        outcome
    }
}
