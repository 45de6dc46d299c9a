//! What of small files is there already, in the files that they replace: whose time was changed and nothing else, or that have
//! grown. Bundles tell the ids of their members without being opened, and by these a content is recognised that need not be
//! fetched.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;

use backhaul_object::header::PLAIN_MAX;
use backhaul_object::keys::IdKey;
use backhaul_object::seal::identify_content;
use backhaul_object::source::TransferError;
use backhaul_object::{ObjectId, Reference};
use bytes::Bytes;

use super::fetch::{Engine, FileJob, Folder, Found};
use super::place::{self, Target};
use super::plan::{Group, Task};
use crate::browse::is_fatal;

/// Turns tasks of a read into [`Task::Near`] where that can be.
pub(super) fn find(engine: &Engine<'_>, group: &mut Group) -> Result<(), TransferError> {
    let (Some(key), Some(place)) = (&engine.request.id_key, engine.place) else { return Ok(()) };
    let may_all = |task: &Task| match task {
        Task::Bundle { at, files } if files.iter().all(|(_, job)| may_have(job)) => {
            Some(group.wanted[*at].id)
        }
        _ => None,
    };
    let asked: Vec<ObjectId> = group.tasks.iter().filter_map(may_all).collect();
    if asked.is_empty() {
        return Ok(());
    }
    let questions: Vec<_> = asked.iter().map(|id| Reference::to_none_of(*id)).collect();
    let members: HashMap<ObjectId, Vec<ObjectId>> = match engine.source.read_parts(&questions) {
        Ok(bundles) => {
            let ids = bundles.iter().map(|bundle| bundle.provides.iter().map(|(id, _)| *id).collect());
            asked.into_iter().zip(ids).collect()
        }
        Err(error) if is_fatal(&error) => return Err(error),
        // What is wrong with them is said when they are read.
        Err(_) => return Ok(()),
    };
    let (mut folder, mut tasks) = (Folder::default(), Vec::new());
    for task in std::mem::take(&mut group.tasks) {
        let (at, files) = match task {
            Task::Bundle { at, files } => (at, files),
            other => {
                tasks.push(other);
                continue;
            }
        };
        let ids = members.get(&group.wanted[at].id).map_or(&[][..], Vec::as_slice);
        let mut left = Vec::new();
        for (member, job) in files {
            let id = ids.get(usize::from(member)).filter(|_| may_have(&job));
            match id.and_then(|id| content(place, &mut folder, &job, (key, *id))) {
                Some(bytes) => tasks.push(Task::Near { job, bytes }),
                None => left.push((member, job)),
            }
        }
        if !left.is_empty() {
            tasks.push(Task::Bundle { at, files: left });
        }
    }
    group.tasks = tasks;
    group.shed();
    Ok(())
}

/// Whether what is there is long enough.
fn may_have(job: &FileJob) -> bool {
    matches!(job.found, Found::File(there) if there >= job.size) && job.size <= PLAIN_MAX as u64
}

fn content(
    place: &Target,
    folder: &mut Folder,
    job: &FileJob,
    (key, id): (&IdKey, ObjectId),
) -> Option<Bytes> {
    let file = place::open_file(folder.get(place, &job.dir).ok()?, &job.name).ok()?;
    let mut bytes = vec![0; usize::try_from(job.size).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    (identify_content(key, &bytes).0 == id).then(|| bytes.into())
}
