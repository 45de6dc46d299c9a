//! Sends what a client may read. Of a bundle it sees only the members that are its own, and of these what it wants.

use std::collections::VecDeque;
use std::iter::zip;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backhaul_net::link::{ObjectWriter, Streams};
use backhaul_object::bundle::{self, Cutter};
use backhaul_object::{Compressed, FormatError, Header, Kind, ObjectId, Reference};
use backhaul_proto::end;
use backhaul_store::index::{Location, Ordinal};
use backhaul_store::{Owned, Pass, ReaderPass, StoreError};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::ingest::Report;
use super::{Ending, OpenVault, lock};
use crate::fleet::Client;

/// Requests of a session that are read at a time: a walk's do not wait until all is read that was asked for before them.
const AT_ONCE: usize = 2;
/// Objects of a request that are read, while those before are on their way.
const AHEAD: usize = 4;
/// A bundle that is no larger is sent with what was not asked for.
const WHOLE_MAX: u32 = 48 << 10;

/// A reader that has asked for nothing for so long holds back nothing that has gone since.
const QUIET: Duration = Duration::from_secs(3_600);

/// By which a session holds back reclaim.
pub enum Presence {
    /// It may refer to whatever it is told of.
    Writer(Pass),
    /// It reads what a client's snapshots reach.
    Reader(ReaderPass),
}

impl Presence {
    /// From before a session learns what is there until its last word.
    pub fn enter(vault: &OpenVault, wants_backup: bool, client: &Client) -> Arc<Self> {
        let name = &client.name;
        Arc::new(match wants_backup {
            true => Self::Writer(vault.vault.enter(&format!("a backup of {name}"))),
            false => {
                let who = format!("a restore, or somebody who looks around, of {name}");
                Self::Reader(vault.vault.enter_reader(&who, client.id))
            }
        })
    }
}

/// What a session asks to read.
pub struct Requests {
    /// One request after the other.
    pub queue: mpsc::Receiver<Vec<Reference>>,
    /// Of the session.
    pub presence: Arc<Presence>,
}

impl Requests {
    async fn next(&mut self) -> Option<Vec<Reference>> {
        loop {
            match tokio::time::timeout(QUIET, self.queue.recv()).await {
                Ok(request) => return request,
                Err(_) => {
                    if let Presence::Reader(pass) = &*self.presence {
                        pass.renew();
                    }
                }
            }
        }
    }
}

/// What is sent for one id.
enum Reply {
    Object(Compressed),
    Failure { damaged: bool, text: String },
}

/// A request that is being read.
struct Reading {
    replies: mpsc::Receiver<Reply>,
    task: JoinHandle<()>,
}

impl Reading {
    fn begin(vault: &Arc<OpenVault>, owned: &Arc<Mutex<Owned>>, wanted: Vec<Reference>) -> Self {
        let (found, replies) = mpsc::channel(AHEAD);
        let (vault, owned) = (Arc::clone(vault), Arc::clone(owned));
        let task = tokio::task::spawn_blocking(move || {
            foresee(&vault, &owned, &wanted);
            let mut cutter = None;
            for one in wanted {
                if found.blocking_send(read(&vault, &owned, &one, &mut cutter)).is_err() {
                    return;
                }
            }
        });
        Self { replies, task }
    }

    async fn next(reading: Option<&mut Self>) -> Option<Reply> {
        reading?.replies.recv().await
    }
}

/// Answers read requests in order until the session ends.
pub async fn serve(
    streams: Arc<Streams>,
    vault: Arc<OpenVault>,
    owned: Arc<Mutex<Owned>>,
    mut requests: Requests,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut writer: Option<ObjectWriter> = None;
    let (mut reading, mut are_more) = (VecDeque::new(), true);
    while are_more || !reading.is_empty() {
        let reply = tokio::select! {
            wanted = requests.next(), if are_more && reading.len() < AT_ONCE => {
                are_more = wanted.is_some();
                reading.extend(wanted.map(|wanted| Reading::begin(&vault, &owned, wanted)));
                continue;
            }
            reply = Reading::next(reading.front_mut()), if !reading.is_empty() => reply,
        };
        let Some(reply) = reply else {
            if let Some(Reading { task, .. }) = reading.pop_front()
                && task.await.is_err()
            {
                let _ = reports.send(Report::Failed(Ending::new(end::STORAGE, "reading failed")));
                return;
            }
            continue;
        };
        if writer.is_none() {
            writer = streams.open().await.ok();
        }
        let Some(stream) = &mut writer else { return };
        let sent = match &reply {
            Reply::Object(object) => stream.send(object).await,
            Reply::Failure { damaged, text } => stream.send_failure(*damaged, text).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Replies go in the order of the request; the disk is asked in its own. Nothing that is another's is touched.
fn foresee(vault: &OpenVault, owned: &Mutex<Owned>, wanted: &[Reference]) {
    vault.vault.foresee(&mine(vault, owned, wanted.iter().map(|one| &one.id)));
}

/// In which order objects lie: by pack and offset. Last comes what is not there, or another's, in the order of the question.
pub(super) fn arrange(vault: &OpenVault, owned: &Mutex<Owned>, ids: &[ObjectId]) -> Vec<u32> {
    let places = vault.vault.places(&mine(vault, owned, ids.iter()));
    let mut order: Vec<(bool, Option<Location>, u32)> =
        zip(places, 0..).map(|(at, number)| (at.is_none(), at, number)).collect();
    order.sort_unstable_by_key(|(is_nowhere, at, number)| {
        (*is_nowhere, at.map(|at| (at.pack, at.offset)), *number)
    });
    order.into_iter().map(|(.., number)| number).collect()
}

/// The numbers of objects that the client may read.
fn mine<'a>(
    vault: &OpenVault,
    owned: &Mutex<Owned>,
    ids: impl Iterator<Item = &'a ObjectId>,
) -> Vec<Option<Ordinal>> {
    let found: Vec<_> = ids.map(|id| vault.vault.ordinal(id).ok().flatten()).collect();
    let owned = lock(owned);
    let is_mine = |ordinal: &Ordinal| owned.has(*ordinal) || owned.part(*ordinal).is_some();
    found.into_iter().map(|ordinal| ordinal.filter(is_mine)).collect()
}

fn read(vault: &OpenVault, owned: &Mutex<Owned>, wanted: &Reference, cutter: &mut Option<Cutter>) -> Reply {
    let Reference { id, members } = wanted;
    let absent = || Reply::Failure { damaged: false, text: "not there, or not yours to read".to_owned() };
    let ordinal = match vault.vault.ordinal(id) {
        Ok(Some(ordinal)) => ordinal,
        Ok(None) => return absent(),
        Err(error) => return Reply::Failure { damaged: true, text: error.to_string() },
    };
    let part = {
        let owned = lock(owned);
        match (owned.has(ordinal), owned.part(ordinal)) {
            (true, _) => None,
            (false, Some(part)) => Some(part.to_vec()),
            (false, None) => return absent(),
        }
    };
    // A base of what the client owns is used, not owned.
    let is_used = |mine: &[u8], header: Header| !has_any(mine, header.provides.len());
    if let Some(mine) = &part
        && vault.vault.header(ordinal).is_ok_and(|header| is_used(mine, header))
    {
        return absent();
    }
    if wanted.is_to_none()
        && let Ok(head) = vault.vault.header(ordinal)
        && let Ok(none) = bundle::none_of(head)
    {
        // Nothing need be unsealed for what its id vouches for.
        return Reply::Object(none);
    }
    let object = vault.get(ordinal);
    let object = object.and_then(|object| {
        let sent = match (part, wants_part(&object, members)) {
            (None, false) => Ok(object),
            (None, true) => part_of(&object, members, cutter),
            (Some(mine), false) => part_of(&object, &mine, cutter),
            (Some(mine), true) => part_of(&object, &both(&mine, members), cutter),
        };
        sent.map_err(|why| StoreError::Damaged { what: format!("object {id}"), why: why.to_string() })
    });
    match object {
        Ok(object) => Reply::Object(object),
        Err(error) => Reply::Failure { damaged: true, text: error.to_string() },
    }
}

/// Whether it is worth it to leave out what was not asked for.
fn wants_part(object: &Compressed, members: &[u8]) -> bool {
    !members.is_empty() && object.header.kind == Kind::Bundle && object.header.plain_len > WHOLE_MAX
}

/// Whether a bitmap marks any of so many members.
fn has_any(bitmap: &[u8], members: usize) -> bool {
    (0..members).any(|n| bitmap.get(n / 8).is_some_and(|byte| byte >> (n % 8) & 1 == 1))
}

fn both(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

fn part_of(
    object: &Compressed,
    members: &[u8],
    cutter: &mut Option<Cutter>,
) -> Result<Compressed, FormatError> {
    let cutter = match cutter {
        Some(cutter) => cutter,
        None => cutter.insert(Cutter::new()?),
    };
    cutter.part_of(object, members)
}
