//! Sends what a client may read. Of a bundle it sees only the members that are its own, and of these what it wants.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backhaul_net::link::{ObjectWriter, Streams};
use backhaul_object::bundle;
use backhaul_object::seal::Packer;
use backhaul_object::{Compressed, FormatError, Kind, Reference};
use backhaul_proto::end;
use backhaul_store::{Owned, Pass, ReaderPass, StoreError};
use tokio::sync::mpsc;

use super::ingest::Report;
use super::{Ending, OpenVault, lock};
use crate::fleet::Client;

/// Objects read at once, while those before are on their way.
const AHEAD: usize = 8;
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

/// Answers read requests in order until the session ends.
pub async fn serve(
    streams: Arc<Streams>,
    vault: Arc<OpenVault>,
    owned: Arc<Mutex<Owned>>,
    mut requests: Requests,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut writer: Option<ObjectWriter> = None;
    while let Some(wanted) = requests.next().await {
        let stream = match writer.take() {
            Some(stream) => stream,
            None => match streams.open().await {
                Ok(stream) => stream,
                Err(_) => return,
            },
        };
        let (replies_in, mut replies) = mpsc::channel(AHEAD);
        let (vault, owned) = (Arc::clone(&vault), Arc::clone(&owned));
        let reading = tokio::task::spawn_blocking(move || {
            foresee(&vault, &owned, &wanted);
            for one in wanted {
                if replies_in.blocking_send(read(&vault, &owned, &one)).is_err() {
                    return;
                }
            }
        });
        let mut stream = stream;
        while let Some(reply) = replies.recv().await {
            let sent = match &reply {
                Reply::Object(object) => stream.send(object).await,
                Reply::Failure { damaged, text } => stream.send_failure(*damaged, text).await,
            };
            if sent.is_err() {
                return;
            }
        }
        if reading.await.is_err() {
            let _ = reports.send(Report::Failed(Ending::new(end::STORAGE, "reading failed")));
            return;
        }
        writer = Some(stream);
    }
}

/// Replies go in the order of the request; the disk is asked in its own. Nothing that is another's is touched.
fn foresee(vault: &OpenVault, owned: &Mutex<Owned>, wanted: &[Reference]) {
    let found: Vec<_> = wanted.iter().filter_map(|one| vault.vault.ordinal(&one.id).ok().flatten()).collect();
    let mine = {
        let owned = lock(owned);
        let is_mine = |ordinal| owned.has(ordinal) || owned.part(ordinal).is_some();
        found.into_iter().filter(|ordinal| is_mine(*ordinal)).collect::<Vec<_>>()
    };
    vault.vault.foresee(&mine);
}

fn read(vault: &OpenVault, owned: &Mutex<Owned>, wanted: &Reference) -> Reply {
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
    let object = vault.get(ordinal).and_then(|object| {
        let sent = match (part, wants_part(&object, members)) {
            (None, false) => Ok(object),
            (None, true) => part_of(&object, members),
            (Some(mine), false) => part_of(&object, &mine),
            (Some(mine), true) => part_of(&object, &both(&mine, members)),
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

fn both(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a & b).collect()
}

fn part_of(object: &Compressed, members: &[u8]) -> Result<Compressed, FormatError> {
    bundle::part_of(object, members, &mut Packer::new(1)?)
}
