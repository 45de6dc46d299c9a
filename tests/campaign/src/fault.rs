//! Faults of the disk: every place where a story touches its vault fails once, in each way it can.
//!
//! Either the story says so and ends, or it goes well; whatever was acknowledged is there afterwards.

use std::fs;
use std::path::Path;

use crate::disk::Image;
use crate::kill::Ground;
use crate::local::Failure;
use crate::record::{self, Fault, Recorder};
use crate::teller::Ending;
use crate::trace;

/// Kinds of system calls with the errors that each can give.
pub const KINDS: [(&str, &[&str]); 6] = [
    ("write,pwrite64,writev,pwritev,fallocate", &["ENOSPC", "EIO", "EINTR"]),
    ("fsync,fdatasync", &["EIO", "ENOSPC", "EINTR"]),
    ("open,openat,openat2", &["EMFILE", "EACCES", "EIO"]),
    ("rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat", &["EIO", "ENOSPC"]),
    ("ftruncate,flock,fcntl,fchmod", &["EIO", "EINTR"]),
    ("read,pread64,getdents64,lseek,fstat,statx", &["EIO"]),
];
/// Calls of a kind after which the sweep ends, for it would never: none was met in the vault for so many.
const IDLE_MAX: u64 = 60;

/// What came of many faults.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Cases in which something failed that touches what is looked at.
    pub sites: u64,
    /// Those in which somebody ended otherwise than well, and said so.
    pub refused: u64,
    /// Snapshots restored and found equal.
    pub restored: u64,
    /// Laws broken, with what leads there again.
    pub broken: Vec<String>,
}

/// Fails every `step`th place in every way.
///
/// # Errors
/// The story cannot be told.
pub fn sweep(ground: &Ground<'_>, step: u64, most: usize) -> Result<Outcome, Failure> {
    let mut outcome = refusals(ground, step, most)?;
    short_writes(ground, step, most, &mut outcome)?;
    Ok(outcome)
}

/// The same with what a tracer alone can do: no write is taken in part.
///
/// # Errors
/// The story cannot be told.
pub fn refusals(ground: &Ground<'_>, step: u64, most: usize) -> Result<Outcome, Failure> {
    ground.whole()?;
    let mut outcome = Outcome::default();
    for (calls, errors) in KINDS {
        for error in errors {
            let (mut nth, mut idle) = (1, 0);
            while idle < IDLE_MAX && outcome.broken.len() < most {
                let wrap = trace::inject(calls, &format!("error={error}"), nth, &ground.log());
                let ending = ground.tell(&wrap)?;
                let (all, below) = trace::injected(&ground.log(), &ground.vault());
                if all == 0 {
                    break;
                }
                idle = if below.is_empty() { idle + 1 } else { 0 };
                if let Some(first) = below.first() {
                    let call = first.split_whitespace().nth(1).unwrap_or_default().to_owned();
                    // Where its own words could not be written, none are asked for.
                    let mut ending = ending;
                    if all > below.len() && ending.complaint.is_empty() {
                        "unsaid".clone_into(&mut ending.complaint);
                    }
                    count(
                        ground,
                        &mut outcome,
                        &ending,
                        &format!("{error} at call {nth} of {calls} ({call})"),
                    );
                }
                nth += step.max(1);
            }
        }
    }
    Ok(outcome)
}

fn count(ground: &Ground<'_>, outcome: &mut Outcome, ending: &Ending, place: &str) {
    outcome.sites += 1;
    outcome.refused += u64::from(ending.code != Some(0));
    let clear = match ending.code {
        Some(0) => Ok(()),
        Some(1 | 2) if !ending.complaint.trim().is_empty() => Ok(()),
        code => Err(format!("ended with {code:?} and said {:?}", ending.complaint.trim())),
    };
    match clear.and_then(|()| ground.judge(ending)) {
        Ok(restored) => outcome.restored += restored,
        Err(why) => {
            outcome.broken.push(ground.name(place, &format!("{why} (it said {:?})", ending.complaint.trim())))
        }
    }
}

/// The nth write is taken in part.
fn short_writes(ground: &Ground<'_>, step: u64, most: usize, outcome: &mut Outcome) -> Result<(), Failure> {
    let mut nth = 0;
    while outcome.broken.len() < most {
        ground.reset();
        let mount = mount_point(&ground.vault())?;
        let fault = Fault { nth, failure: record::Failure::Short };
        let disk = Image::load(&ground.vault());
        let recorder = Recorder::mount(disk, &mount, Some(fault)).map_err(|error| error.to_string())?;
        let work = ground.vault();
        let work = work.parent().unwrap_or(&mount);
        let ending = ground.teller.tell(&[], ground.story, (&mount, work), &mut |_| ())?;
        let struck = recorder.failed();
        let (_, image) = recorder.finish();
        if !struck {
            return Ok(());
        }
        fs::remove_dir_all(ground.vault()).map_err(|error| error.to_string())?;
        image.store(&ground.vault());
        count(ground, outcome, &ending, &format!("write {nth} taken in part"));
        nth += step.max(1);
    }
    Ok(())
}

fn mount_point(vault: &Path) -> Result<std::path::PathBuf, Failure> {
    let mount = vault.with_file_name("mount");
    fs::create_dir_all(&mount).map_err(|error| error.to_string())?;
    Ok(mount)
}
