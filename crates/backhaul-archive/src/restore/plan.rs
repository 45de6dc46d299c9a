//! Which objects a batch of files needs, in which reads: in the order in which they lie, each bundle once, and of it no more than
//! what is wanted.

use std::collections::HashMap;

use backhaul_object::entry::Content;
use backhaul_object::piece::Piece;
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{ObjectId, Reference};
use bytes::Bytes;

use super::fetch::FileJob;

/// Plain bytes asked for in one read.
const READ_BYTES: u64 = 4 << 20;
/// What a bundle is taken to hold until it is read: the usual target size.
const BUNDLE_BYTES: u64 = 512 << 10;
/// Of a bundle of which no more bytes are wanted than this, only the members that are wanted are asked for.
const PART_MAX: u64 = BUNDLE_BYTES / 4;

/// Files that can be finished once the objects at these places of a read are there.
pub(super) enum Task {
    Bundle {
        at: usize,
        files: Vec<(u16, FileJob)>,
    },
    /// A hole is at no place.
    Whole {
        at: Vec<Option<usize>>,
        job: FileJob,
    },
    /// Its content is there already.
    Near {
        job: FileJob,
        bytes: Bytes,
    },
}

/// One read and what follows from it.
#[derive(Default)]
pub(super) struct Group {
    pub(super) wanted: Vec<Reference>,
    pub(super) tasks: Vec<Task>,
    bytes: u64,
}

impl Group {
    /// What has become [`Task::Near`] is not read.
    pub(super) fn shed(&mut self) {
        let mut members: HashMap<usize, Reference> = HashMap::new();
        let mut is_wanted = vec![false; self.wanted.len()];
        for task in &self.tasks {
            match task {
                Task::Bundle { at, files } => {
                    is_wanted[*at] = true;
                    let mut of = Reference::whole(self.wanted[*at].id);
                    files.iter().for_each(|(member, _)| of.use_member((*member).into()));
                    members.insert(*at, of);
                }
                Task::Whole { at, .. } => at.iter().flatten().for_each(|at| is_wanted[*at] = true),
                Task::Near { .. } => {}
            }
        }
        let mut moved = vec![0; self.wanted.len()];
        let mut left = Vec::new();
        for (at, old) in
            std::mem::take(&mut self.wanted).into_iter().enumerate().filter(|(at, _)| is_wanted[*at])
        {
            moved[at] = left.len();
            let part = members.remove(&at).filter(|_| !old.members.is_empty());
            left.push(part.unwrap_or(old));
        }
        self.wanted = left;
        for task in &mut self.tasks {
            match task {
                Task::Bundle { at, .. } => *at = moved[*at],
                Task::Whole { at, .. } => at.iter_mut().flatten().for_each(|at| *at = moved[*at]),
                Task::Near { .. } => {}
            }
        }
    }
}

/// What is wanted of each bundle: members, and their bytes.
fn members_wanted(jobs: &[FileJob]) -> HashMap<ObjectId, (Reference, u64)> {
    let mut wanted = HashMap::new();
    for job in jobs {
        if let Content::Member { bundle, member } = job.content {
            let of = wanted.entry(bundle).or_insert_with(|| (Reference::whole(bundle), 0u64));
            of.0.use_member(member.into());
            of.1 = of.1.saturating_add(job.size);
        }
    }
    wanted
}

/// The object of which a file needs something first.
fn first(job: &FileJob) -> Option<ObjectId> {
    match &job.content {
        Content::Member { bundle, .. } => Some(*bundle),
        Content::Chunks(pieces) => pieces.iter().find_map(Piece::id),
        Content::Flist(id) => Some(*id),
        Content::Empty | Content::Inline(_) => None,
    }
}

/// Sorts files by where their contents lie, so that each pack is read once and forward, however many versions a tree is made of.
/// What fits into one read is left as it is: its reader sorts that.
///
/// # Errors
/// The session is over.
pub(super) fn arrange(
    source: &dyn ObjectSource,
    mut jobs: Vec<FileJob>,
) -> Result<Vec<FileJob>, TransferError> {
    let (mut ids, mut numbers, mut bytes) = (Vec::new(), HashMap::new(), 0u64);
    for job in &jobs {
        let Some(id) = first(job) else { continue };
        numbers.entry(id).or_insert_with(|| {
            ids.push(id);
            bytes = bytes.saturating_add(if job.size < BUNDLE_BYTES { BUNDLE_BYTES } else { job.size });
            ids.len() - 1
        });
    }
    if bytes <= READ_BYTES {
        return Ok(jobs);
    }
    let mut ranks = vec![0; ids.len()];
    for (rank, number) in source.arrange(&ids)?.into_iter().enumerate() {
        ranks.get_mut(number).into_iter().for_each(|slot| *slot = rank);
    }
    jobs.sort_by_cached_key(|job| ranks.get(*numbers.get(&first(job)?)?).copied());
    Ok(jobs)
}

/// Sorts files into reads: each bundle once, each chunk once per read, in the order of first use.
pub(super) fn plan(jobs: Vec<FileJob>) -> Vec<Group> {
    let mut groups = vec![Group::default()];
    let mut members = members_wanted(&jobs);
    let mut bundles: HashMap<ObjectId, (usize, usize)> = HashMap::new();
    let mut chunks: HashMap<ObjectId, usize> = HashMap::new();
    for job in jobs {
        if let Content::Member { bundle, member } = job.content
            && let Some((group, task)) = bundles.get(&bundle)
            && let Some(Task::Bundle { files, .. }) =
                groups.get_mut(*group).and_then(|g| g.tasks.get_mut(*task))
        {
            files.push((member, job));
            continue;
        }
        let of =
            if let Content::Member { bundle, .. } = job.content { members.remove(&bundle) } else { None };
        let (of, cost) = match of {
            // Whoever sends a part has to open the whole: such reads are kept small, so that several are under way.
            Some((of, bytes)) if bytes <= PART_MAX => (Some(of), BUNDLE_BYTES),
            Some((of, _)) => (Some(Reference::whole(of.id)), BUNDLE_BYTES),
            None => (None, job.size),
        };
        if groups.last().is_some_and(|group| group.bytes > 0 && group.bytes + cost > READ_BYTES) {
            groups.push(Group::default());
            chunks.clear();
        }
        let number = groups.len() - 1;
        let Some(group) = groups.last_mut() else { continue };
        group.bytes += cost;
        let task = match &job.content {
            Content::Member { bundle, member } => {
                bundles.insert(*bundle, (number, group.tasks.len()));
                group.wanted.push(of.unwrap_or_else(|| Reference::whole(*bundle)));
                Task::Bundle { at: group.wanted.len() - 1, files: vec![(*member, job)] }
            }
            Content::Chunks(pieces) => {
                let wanted = &mut group.wanted;
                let mut place = |id| {
                    wanted.push(Reference::whole(id));
                    wanted.len() - 1
                };
                let mut at_once = |id| *chunks.entry(id).or_insert_with(|| place(id));
                let at = pieces.iter().map(|piece| piece.id().map(&mut at_once)).collect();
                Task::Whole { at, job }
            }
            Content::Empty | Content::Inline(_) | Content::Flist(_) => Task::Whole { at: Vec::new(), job },
        };
        group.tasks.push(task);
    }
    groups
}
