//! What is not yet whole has a name of its own, and takes its place in one step when it is.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{self, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::fetch::{FileJob, Found};
use super::place::{clear, create, insist, is_file, look, same_inode};

/// Set on what is not whole: hardly anybody gives a file this mode, and nobody makes one with it by accident.
const MARK: Mode = Mode::SVTX.union(Mode::RUSR).union(Mode::WUSR);

/// Why something is not replaced.
pub(super) const MEANWHILE: &str = "something has come there meanwhile, and stays (a file system that takes two of the \
    snapshot's names for one looks like that, too)";

/// The name that a file has until it is whole: the same each time that the same is restored, so that a later restore can
/// go on with it, and another than any that people give.
pub(super) fn part_of(job: &FileJob) -> Vec<u8> {
    const ROOM: usize = 200;
    // FNV-1a
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    let version = [job.size as i64, job.metadata.mtime_s, job.metadata.mtime_ns.into()];
    let hash =
        job.name.iter().chain(version.map(i64::to_le_bytes).as_flattened()).fold(0xcbf2_9ce4_8422_2325, step);
    let head = &job.name[..job.name.len().min(ROOM)];
    [b".", head, format!(".{hash:016x}.backhaul-part").as_bytes()].concat()
}

/// What an interrupted restore has left of a file, if it is nobody else's.
fn open_leftover(dir: &OwnedFd, part: &[u8], mode: OFlags) -> Option<File> {
    let flags = mode | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = fs::openat(dir, part, flags, Mode::empty()).ok()?;
    let stat = fs::fstat(&fd).ok()?;
    let is_mine = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_nlink == 1;
    let is_part = stat.st_mode & 0o7777 == MARK.as_raw_mode();
    (is_file(&stat) && is_mine && is_part).then(|| File::from(fd))
}

/// What an interrupted restore has left of a file, to be read.
pub(super) fn leftover(dir: &OwnedFd, job: &FileJob) -> Option<File> {
    open_leftover(dir, &part_of(job), OFlags::RDONLY)
}

/// A name of its own for what is not yet in its place.
fn part_name() -> Vec<u8> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!(".backhaul-{}-{number}.part", std::process::id()).into_bytes()
}

/// Makes a file under a name of its own, to be moved into place when it is whole; or goes on with what an interrupted
/// restore has left of it. Nobody else goes on with it meanwhile.
pub(super) fn create_part(dir: &OwnedFd, job: &FileJob) -> Result<(File, Vec<u8>), Errno> {
    let part = part_of(job);
    let file = match create(dir, &part)? {
        Some(file) => {
            // Where no such mode is taken, no later restore goes on with it.
            let _ = fs::fchmod(&file, MARK);
            Some(file)
        }
        None => open_leftover(dir, &part, OFlags::RDWR),
    };
    if let Some(file) = file
        && fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok()
    {
        return Ok((file, part));
    }
    loop {
        let name = part_name();
        if let Some(file) = create(dir, &name)? {
            return Ok((file, name));
        }
    }
}

/// Moves a whole file into its place, if it is still what this restore has written.
pub(super) fn put_file_in_place(
    dir: &OwnedFd,
    file: &File,
    part: &[u8],
    (name, found): (&[u8], Found),
    make_way: MakeWay<'_>,
) -> Result<(), String> {
    let text = |error: Errno| error.to_string();
    let (written, there) = (fs::fstat(file).map_err(text)?, look(dir, part).map_err(text)?);
    if !there.is_some_and(|there| same_inode(&there, &written)) {
        return Err("somebody has put another file in the place of the one being written".to_owned());
    }
    put_in_place(dir, part, (name, found), make_way)
}

/// Removes a folder that is where something else is to be, or says why not.
pub(super) type MakeWay<'m> = &'m dyn Fn(&OwnedFd) -> Result<(), String>;

/// Gives what is whole its name, over a file that is there.
fn put_in_place(
    dir: &OwnedFd,
    part: &[u8],
    (name, found): (&[u8], Found),
    make_way: MakeWay<'_>,
) -> Result<(), String> {
    if found == Found::Nothing {
        return match fs::renameat_with(dir, part, dir, name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => Err(MEANWHILE.to_owned()),
            // Where that cannot be said in one step, it is said in two.
            Err(Errno::INVAL | Errno::NOSYS) => match look(dir, name).map_err(|error| error.to_string())? {
                Some(_) => Err(MEANWHILE.to_owned()),
                None => fs::renameat(dir, part, dir, name).map_err(|error| error.to_string()),
            },
            other => other.map_err(|error| error.to_string()),
        };
    }
    let put = || insist(dir, name, || fs::renameat(dir, part, dir, name));
    let put = match put() {
        // Only now, when what comes is whole.
        Err(Errno::ISDIR | Errno::EXIST | Errno::NOTEMPTY) => {
            make_way(dir)?;
            put()
        }
        other => other,
    };
    put.map_err(|error| error.to_string())
}

/// Makes a symbolic link or a special file under its name, or a further name of one; what was there is replaced by it in
/// one step, and stays where it cannot be made. `dress` finishes what was made, under the name that it has then.
pub(super) fn put<T>(
    dir: &OwnedFd,
    (name, found): (&[u8], Found),
    make: impl Fn(&[u8]) -> Result<(), Errno>,
    dress: impl FnOnce(&[u8]) -> Result<T, Errno>,
    make_way: MakeWay<'_>,
) -> Result<T, String> {
    let text = |error: Errno| error.to_string();
    let dress = |at: &[u8]| dress(at).map_err(|error| format!("metadata not set: {error}"));
    match make(name) {
        Ok(()) => return dress(name),
        Err(Errno::EXIST) if found == Found::Nothing => return Err(MEANWHILE.to_owned()),
        Err(Errno::EXIST) => {}
        Err(error) => return Err(text(error)),
    }
    let part = loop {
        let part = part_name();
        match make(&part) {
            Ok(()) => break part,
            Err(Errno::EXIST) => {}
            Err(error) => {
                // There are drivers that make something else, and then fail.
                let _ = clear(dir, &part);
                return Err(text(error));
            }
        }
    };
    let done = dress(&part).and_then(|done| put_in_place(dir, &part, (name, found), make_way).map(|()| done));
    // Also where both names were the same file's already: then a rename leaves both.
    clear(dir, &part)?;
    done
}
