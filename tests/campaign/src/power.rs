//! Power cuts: a story is recorded below the store, and the disk is put into the states in which a cut can leave it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use backhaul_tests::dice::Dice;

use crate::disk::{Image, Op};
use crate::laws::{Acknowledged, Depth, verify};
use crate::local::Failure;
use crate::record::{Fault, Recorder};
use crate::stage::Stage;
use crate::states::Recording;
use crate::story::{Story, Told, prepare};
use crate::teller::{Ending, Teller};

/// One state in this many is also written to.
const NEXT_EVERY: u64 = 4;

/// A story with all that was asked of the disk, and what was acknowledged when.
pub struct Recorded {
    recording: Recording,
    /// What was told when so many operations were asked for.
    told: Vec<(usize, Told)>,
    before: Acknowledged,
    /// The power is cut after this operation.
    from: usize,
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

impl Outcome {
    /// Adds what came of further states; `at` is what led to them.
    pub fn add(&mut self, more: Self, at: &str) {
        self.states += more.states;
        self.distinct += more.distinct;
        self.restored += more.restored;
        self.operations += more.operations;
        self.broken.extend(more.broken.into_iter().map(|why| format!("{at}: {why}")));
    }
}

/// Records a story; `work` is a directory for the mount and scratch.
///
/// # Errors
/// It cannot be recorded, or does not end well.
pub fn record(teller: &Teller, story: Story, stage: &Stage, work: &Path) -> Result<Recorded, Failure> {
    let (recorded, ended, _) = record_with(teller, story, (stage, work), None)?;
    match ended.code {
        Some(0) => story.assured(&ended.told).map(|()| recorded),
        _ => Err(format!("the story {story:?} failed: {}", ended.complaint)),
    }
}

/// Records a story while the disk fails, or not; also how it ended, and whether the fault struck.
///
/// # Errors
/// It cannot be recorded.
pub fn record_with(
    teller: &Teller,
    story: Story,
    (stage, work): (&Stage, &Path),
    fault: Option<Fault>,
) -> Result<(Recorded, Ending, bool), Failure> {
    let (home, mount) = (work.join("prepared"), work.join("mount"));
    let before = Mutex::new(Acknowledged::default());
    let _ = fs::remove_dir_all(&home);
    prepare(story, &home, stage, &|told| before.lock().unwrap().hear(told))?;
    fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
    let base = Image::load(&home);
    let recorder = Recorder::mount(base.clone(), &mount, fault).map_err(|error| format!("mount: {error}"))?;
    let mut told = Vec::new();
    // By another process: whoever serves the memory that a process maps must not be that process.
    let ended = teller.tell(&[], story, (&mount, work), &mut |word| told.push((recorder.asked(), word)))?;
    let struck = recorder.failed();
    let (ops, _) = recorder.finish();
    let before = before.into_inner().unwrap();
    Ok((Recorded { recording: Recording::new(base, ops), told, before, from: 0 }, ended, struck))
}

impl Recorded {
    /// The name of the file whose sync failed; none for a directory.
    pub fn lost(&self) -> Option<String> {
        let ops = &self.recording.ops;
        let lost = ops.iter().find_map(|op| if let Op::Lost(ino) = op { Some(*ino) } else { None })?;
        let named = |op: &Op| match op {
            Op::Name((_, name), ino) | Op::Move(_, (_, name), ino) if *ino == lost => Some(name.clone()),
            _ => None,
        };
        let before = self.recording.base.names.iter().find(|(_, ino)| **ino == lost);
        let name = ops.iter().find_map(named).or(before.map(|((_, name), _)| name.clone()));
        name.map(|name| name.to_string_lossy().into_owned())
    }

    /// How much was asked of the disk.
    pub fn operations(&self) -> usize {
        self.recording.ops.len()
    }

    /// Before which operations something was not durable yet that was from then on.
    pub fn syncs(&self) -> Vec<usize> {
        let is_sync = |(_, op): &(usize, &Op)| matches!(op, Op::Sync(_));
        self.recording.ops.iter().enumerate().filter(is_sync).map(|(at, _)| at).collect()
    }

    /// The process was killed before operation `at`, and what it had asked for shows, durable or not: another one tells
    /// `story`. None if that one says that it cannot.
    ///
    /// # Errors
    /// It cannot be recorded.
    pub fn killed(
        &self,
        at: usize,
        teller: &Teller,
        story: Story,
        work: &Path,
    ) -> Result<Option<Self>, Failure> {
        let mount = work.join("mount");
        let (base, ops) = (self.recording.base.clone(), self.recording.ops[..at].to_vec());
        let mut image = base.clone();
        ops.iter().for_each(|op| image.apply(op));
        let recorder = Recorder::again(image, ops, &mount).map_err(|error| format!("mount: {error}"))?;
        let mut told: Vec<(usize, Told)> =
            self.told.iter().filter(|(when, _)| *when <= at).copied().collect();
        let scratch = (mount.as_path(), work);
        let ended = teller.tell(&[], story, scratch, &mut |word| told.push((recorder.asked(), word)))?;
        let (ops, _) = recorder.finish();
        let before = self.before.clone();
        let again = Self { recording: Recording::new(base, ops), told, before, from: at };
        Ok((ended.code == Some(0)).then_some(again))
    }

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
            // Once after everything: then most was acknowledged.
            let last = self.recording.ops.len();
            let at = if n == 0 { last } else { self.from + dice.index(last - self.from + 1) };
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
