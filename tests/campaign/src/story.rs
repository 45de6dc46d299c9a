//! What happens to a vault while the world fails: stories, told step by step.

use std::path::Path;

use backhaul_object::ids::ClientId;
use backhaul_store::check::Mending;
use backhaul_store::rebuild;
use clap::ValueEnum;

use crate::harm;
use crate::kill::copy;
use crate::laws::Which;
use crate::local::{Failure, Local};
use crate::stage::{CLIENTS, Stage, VERSIONS, WRITER};

/// Beside the prepared vault: what the client of [`Story::Patches`] knows.
const KNOWN_BEFORE: &str = "known-before";

/// A story.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Story {
    /// A vault is made
    Birth,
    /// One client saves two versions
    Backup,
    /// One tree, many commits
    Commit,
    /// Two clients at once, who have much in common
    Pair,
    /// An upload is cut, begun again and committed
    Cut,
    /// Catalog and index are made anew
    Rebuild,
    /// A snapshot is restored
    Restore,
    /// Snapshots are forgotten, and what only they had goes, in several passes
    Prune,
    /// An upload goes on while all that it relies on is forgotten and reclaimed
    Late,
    /// An upload refers only to what it was told is there, while that is forgotten and reclaimed
    Rely,
    /// Damage to a pack is made good from its parity, and a client saves on
    Mend,
    /// The objects of snapshots are lost beyond parity, and written anew from their manifests; a client saves on
    Regain,
    /// A pack is lost beyond its parity, and a client that still has the files sends them again
    Heal,
    /// A client tries again, whatever went wrong, and the vault is opened again if it asks for that
    Stubborn,
    /// A large file that changes in place is saved as patches, over a repair, a prune and a rebuild
    Patches,
}

/// What a story says it is about to do, and what it was told is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// From now on this snapshot may be there.
    Committing(Which),
    /// This snapshot is there: it was acknowledged.
    Committed(Which),
    /// From now on this snapshot may be gone.
    Forgetting(Which),
    /// Packs were damaged, and all of it can be made good.
    Damaged,
    /// It was made good.
    Mended,
    /// From now on more is damaged than can be mended.
    Losing,
    /// What is lost is known, and wanted: what is acknowledged from now on is whole.
    Named,
    /// All that was lost was sent again.
    Healed,
    /// There may be no vault yet.
    Making,
    /// There is one.
    Made,
    /// Catalog and index may be gone.
    Rebuilding,
    /// They are there again.
    Rebuilt,
    /// What is needed of packs was written anew.
    Compacted,
}

/// Hears of each step.
pub type Tell<'a> = dyn Fn(Told) + 'a;

/// A vault with one snapshot of each client, as stories find it; or the place for one.
///
/// # Errors
/// It cannot be made.
pub fn prepare(story: Story, dir: &Path, stage: &Stage, tell: &Tell<'_>) -> Result<(), Failure> {
    if story == Story::Birth {
        tell(Told::Making);
        return std::fs::create_dir_all(dir).map_err(|error| error.to_string());
    }
    let local = Local::create(dir).map_err(|error| error.to_string())?;
    if story == Story::Patches {
        let state = dir.with_file_name(KNOWN_BEFORE);
        let _ = std::fs::remove_dir_all(&state);
        // The first that changes is whole, and what comes then is a difference to it.
        for sequence in 1..=3 {
            back_up_knowing(&local, stage, (WRITER, sequence), &state, tell)?;
        }
    } else {
        for client in CLIENTS {
            back_up(&local, stage, client, tell)?;
        }
    }
    drop(local);
    match story {
        Story::Mend | Story::Patches => harm::flip_each_pack(dir)?,
        Story::Regain => harm::lose_snapshot_objects(dir)?,
        _ => return Ok(()),
    }
    tell(Told::Damaged);
    Ok(())
}

fn back_up(local: &Local, stage: &Stage, client: ClientId, tell: &Tell<'_>) -> Result<(), Failure> {
    let sequence = local.next(client)?;
    tell(Told::Committing((client, sequence)));
    local.back_up(stage, client)?;
    tell(Told::Committed((client, sequence)));
    Ok(())
}

fn forget(local: &Local, client: ClientId, sequence: u64, tell: &Tell<'_>) -> Result<(), Failure> {
    tell(Told::Forgetting((client, sequence)));
    local.forget(client, sequence)
}

fn pair(local: &Local, stage: &Stage, tell: &Tell<'_>) -> Result<(), Failure> {
    let [ana, bea] = CLIENTS;
    let (first, second) = (local.begin(ana), local.begin(bea));
    let (one, two) = (local.next(ana)?, local.next(bea)?);
    let mine = first.save(&stage.tree(ana, one))?;
    let theirs = second.save(&stage.tree(bea, two))?;
    tell(Told::Committing((bea, two)));
    second.commit(&theirs, two)?;
    tell(Told::Committed((bea, two)));
    tell(Told::Committing((ana, one)));
    first.commit(&mine, one)?;
    tell(Told::Committed((ana, one)));
    Ok(())
}

fn cut(local: &Local, stage: &Stage, tell: &Tell<'_>) -> Result<(), Failure> {
    let [ana, _] = CLIENTS;
    for most in [0, 1] {
        let mut upload = local.begin(ana);
        upload.breaks_after = Some(most);
        if upload.save(&stage.tree(ana, local.next(ana)?)).is_ok() {
            return Err("an upload that was cut went through".to_owned());
        }
    }
    back_up(local, stage, ana, tell)
}

fn prune(local: &Local, stage: &Stage, tell: &Tell<'_>) -> Result<(), Failure> {
    let [ana, bea] = CLIENTS;
    for client in [ana, bea] {
        back_up(local, stage, client, tell)?;
        back_up(local, stage, client, tell)?;
    }
    // What both have had from the first is needed, and most of what lies with it is not any more.
    for (client, sequence) in [(ana, 1), (ana, 2), (bea, 1), (bea, 2)] {
        forget(local, client, sequence, tell)?;
    }
    // Condemned, still unreached, gone; compacted; and all is well with those who come then.
    for _ in 0..3 {
        if local.prune_counted()? > 0 {
            tell(Told::Compacted);
        }
    }
    back_up(local, stage, ana, tell)?;
    local.prune()
}

fn late(local: &Local, stage: &Stage, tell: &Tell<'_>) -> Result<(), Failure> {
    let [ana, bea] = CLIENTS;
    forget(local, bea, 1, tell)?;
    local.prune()?;
    forget(local, ana, 1, tell)?;
    let (mut upload, sequence) = (local.begin(ana), local.next(ana)?);
    // Between what it was told is there and what refers to that.
    upload.meanwhile = Some(Local::prune);
    let saved = upload.save(&stage.tree(ana, sequence))?;
    (0..3).try_for_each(|_| local.prune())?;
    tell(Told::Committing((ana, sequence)));
    upload.commit(&saved, sequence)?;
    tell(Told::Committed((ana, sequence)));
    (0..3).try_for_each(|_| local.prune())
}

/// What only the fence protects: nothing is appended before the vault has forgotten all that the upload relies on.
fn rely(local: &Local, stage: &Stage, tell: &Tell<'_>) -> Result<(), Failure> {
    let [ana, bea] = CLIENTS;
    forget(local, bea, 1, tell)?;
    forget(local, ana, 1, tell)?;
    let sequence = local.next(ana)?;
    let mut upload = local.begin(ana);
    upload.told = Some(|local| (0..3).try_for_each(|_| local.prune()));
    let saved = upload.save(&stage.tree(ana, sequence))?;
    tell(Told::Committing((ana, sequence)));
    upload.commit(&saved, sequence)?;
    tell(Told::Committed((ana, sequence)));
    (0..3).try_for_each(|_| local.prune())
}

/// The next number that stands for version 1 of a tree.
pub fn first_again(next: u64) -> u64 {
    (next..).find(|number| number % VERSIONS == 1).unwrap_or(next)
}

/// Saves version 1 of ana's tree once more, with what the client knows.
fn back_up_first(local: &Local, stage: &Stage, state: &Path, tell: &Tell<'_>) -> Result<(), Failure> {
    let [ana, _] = CLIENTS;
    let sequence = first_again(local.next(ana)?);
    back_up_knowing(local, stage, (ana, sequence), state, tell).map(drop)
}

/// Saves a tree with what the client knows; returns how many chunks went as differences.
fn back_up_knowing(
    local: &Local,
    stage: &Stage,
    (client, sequence): Which,
    state: &Path,
    tell: &Tell<'_>,
) -> Result<u64, Failure> {
    let mut upload = local.begin(client);
    upload.state = Some(state.to_path_buf());
    upload.lies_at = Some(stage.tree(client, sequence));
    let mut saved = upload.save(&stage.name(client, sequence))?;
    let (known, patches) = (saved.state.take(), upload.patches());
    tell(Told::Committing((client, sequence)));
    upload.commit(&saved, sequence)?;
    tell(Told::Committed((client, sequence)));
    known.map_or(Ok(()), |known| known.accept().map_err(|error| error.to_string()))?;
    Ok(patches)
}

/// The bases of patches outlive the snapshots that had them whole, and what is damaged, moved or numbered anew still fits.
fn patches(dir: &Path, stage: &Stage, scratch: &Path, tell: &Tell<'_>) -> Result<(), Failure> {
    let state = scratch.join("known-now");
    let _ = std::fs::remove_dir_all(&state);
    copy(&scratch.join(KNOWN_BEFORE), &state);
    let local = open(dir)?;
    mend(&local, tell)?;
    let save = |local: &Local, sequence| back_up_knowing(local, stage, (WRITER, sequence), &state, tell);
    if save(&local, 4)? == 0 {
        return Err("nothing was sent as a difference".to_owned());
    }
    (1..=3).try_for_each(|sequence| forget(&local, WRITER, sequence, tell))?;
    (0..3).try_for_each(|_| local.prune())?;
    save(&local, 5)?;
    drop(local);
    tell(Told::Rebuilding);
    rebuild::rebuild(dir, [2; 16], Mending::Look, 5_000).map_err(|error| error.to_string())?;
    tell(Told::Rebuilt);
    save(&open(dir)?, 6).map(drop)
}

/// Makes good what [`prepare`] has damaged.
fn mend(local: &Local, tell: &Tell<'_>) -> Result<(), Failure> {
    let report = local.check(Mending::Mend)?;
    if report.damage.is_empty() || !report.is_sound() {
        return Err(format!("it was not mended: {:?}", report.damage));
    }
    tell(Told::Mended);
    Ok(())
}

fn heal(dir: &Path, stage: &Stage, scratch: &Path, tell: &Tell<'_>) -> Result<(), Failure> {
    let state = scratch.join("known");
    let _ = std::fs::remove_dir_all(&state);
    back_up_first(&open(dir)?, stage, &state, tell)?;
    let pack = harm::largest_pack(dir)?;
    tell(Told::Losing);
    harm::rot(&pack)?;
    let local = open(dir)?;
    let report = local.check(Mending::Mend)?;
    if report.affected.is_empty() {
        return Err(format!("nothing was lost: {:?}", report.damage));
    }
    tell(Told::Named);
    back_up_first(&local, stage, &state, tell)?;
    tell(Told::Healed);
    back_up(&local, stage, CLIENTS[1], tell)
}

/// As a server does that has many clients: one that fails does not end the others, and a vault that is not sure of its
/// disk any more is opened again.
fn stubborn(dir: &Path, stage: &Stage, tell: &Tell<'_>) -> Result<(), Failure> {
    let mut last = Err("never tried".to_owned());
    for _ in 0..3 {
        let local = open(dir)?;
        for client in [CLIENTS[0], CLIENTS[1], CLIENTS[0]] {
            last = back_up(&local, stage, client, tell);
        }
        if last.is_ok() {
            break;
        }
    }
    last
}

fn open(dir: &Path) -> Result<Local, Failure> {
    Local::open(dir).map_err(|error| error.to_string())
}

impl Story {
    /// What it must come to when nothing happens to it: else nothing could happen to that.
    ///
    /// # Errors
    /// It is not among what was told.
    pub fn assured(self, told: &[Told]) -> Result<(), Failure> {
        match self {
            Self::Prune if !told.contains(&Told::Compacted) => {
                Err("the story Prune compacts nothing".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Lets it happen to the vault at `dir`, which [`prepare`] made.
    ///
    /// # Errors
    /// A step failed, and said so; nothing after it was done.
    pub fn run(self, dir: &Path, stage: &Stage, scratch: &Path, tell: &Tell<'_>) -> Result<(), Failure> {
        if self == Self::Rebuild {
            tell(Told::Rebuilding);
            rebuild::rebuild(dir, [2; 16], Mending::Look, 5_000).map_err(|error| error.to_string())?;
            tell(Told::Rebuilt);
        }
        if self == Self::Birth {
            tell(Told::Making);
            drop(Local::create(dir).map_err(|error| error.to_string())?);
            tell(Told::Made);
        }
        match self {
            Self::Heal => return heal(dir, stage, scratch, tell),
            Self::Stubborn => return stubborn(dir, stage, tell),
            Self::Patches => return patches(dir, stage, scratch, tell),
            _ => {}
        }
        let local = open(dir)?;
        let [ana, bea] = CLIENTS;
        match self {
            Self::Heal | Self::Stubborn | Self::Patches => Ok(()),
            Self::Birth => back_up(&local, stage, ana, tell),
            Self::Backup => {
                back_up(&local, stage, ana, tell)?;
                back_up(&local, stage, ana, tell)
            }
            Self::Commit => (0..4).try_for_each(|_| back_up(&local, stage, bea, tell)),
            Self::Pair => pair(&local, stage, tell),
            Self::Cut => cut(&local, stage, tell),
            Self::Prune => prune(&local, stage, tell),
            Self::Late => late(&local, stage, tell),
            Self::Rely => rely(&local, stage, tell),
            Self::Mend | Self::Regain => {
                mend(&local, tell)?;
                back_up(&local, stage, ana, tell)
            }
            Self::Rebuild => back_up(&local, stage, ana, tell),
            Self::Restore => {
                let target = scratch.join("target");
                let rows = local.vault.snapshots(None).map_err(|error| error.to_string())?;
                rows.iter().try_for_each(|row| {
                    let _ = std::fs::remove_dir_all(&target);
                    local.restore(&stage.name(row.client, row.sequence), row, &target)
                })
            }
        }
    }
}
