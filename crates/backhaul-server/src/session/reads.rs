//! Sends what a client may read. Of a bundle it sees only the members that are its own.

use std::sync::{Arc, Mutex};

use backhaul_net::link::{ObjectWriter, Streams};
use backhaul_object::bundle;
use backhaul_object::codec::Write;
use backhaul_object::seal::{Packer, Unpacker};
use backhaul_object::{Compressed, FormatError, Object, ObjectId, Proof};
use backhaul_proto::end;
use backhaul_store::{Owned, StoreError};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::ingest::Report;
use super::{Ending, OpenVault, lock};

/// Objects read at once, while those before are on their way.
const AHEAD: usize = 8;

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
    mut requests: mpsc::Receiver<Vec<ObjectId>>,
    reports: mpsc::UnboundedSender<Report>,
) {
    let mut writer: Option<ObjectWriter> = None;
    while let Some(ids) = requests.recv().await {
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
            foresee(&vault, &owned, &ids);
            for id in ids {
                if replies_in.blocking_send(read(&vault, &owned, &id)).is_err() {
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
fn foresee(vault: &OpenVault, owned: &Mutex<Owned>, ids: &[ObjectId]) {
    let found: Vec<_> = ids.iter().filter_map(|id| vault.vault.ordinal(id).ok().flatten()).collect();
    let mine = {
        let owned = lock(owned);
        let is_mine = |ordinal| owned.has(ordinal) || owned.part(ordinal).is_some();
        found.into_iter().filter(|ordinal| is_mine(*ordinal)).collect::<Vec<_>>()
    };
    vault.vault.foresee(&mine);
}

fn read(vault: &OpenVault, owned: &Mutex<Owned>, id: &ObjectId) -> Reply {
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
    let object = vault.get(ordinal).and_then(|object| match part {
        None => Ok(object),
        Some(members) => filter(vault, &object, &members)
            .map_err(|why| StoreError::Damaged { what: format!("object {id}"), why: why.to_string() }),
    });
    match object {
        Ok(object) => Reply::Object(object),
        Err(error) => Reply::Failure { damaged: true, text: error.to_string() },
    }
}

/// A bundle with only the members of a bitmap: the id stays, the other contents and proofs go.
fn filter(vault: &OpenVault, object: &Compressed, members: &[u8]) -> Result<Compressed, FormatError> {
    let opened = object.open(&vault.id_key, &mut Unpacker::new()?)?;
    let (mut payload, mut content, mut provides) = (Vec::new(), Vec::new(), opened.provides.clone());
    for (number, member) in bundle::members(&opened)?.into_iter().enumerate() {
        let mine = members.get(number / 8).is_some_and(|byte| byte >> (number % 8) & 1 == 1);
        match member.filter(|_| mine) {
            Some(bytes) => {
                payload.put_varint(bytes.len() as u64 + 1);
                content.extend_from_slice(&bytes);
            }
            None => {
                payload.put_varint(0);
                provides[number].1 = Proof([0; 16]);
            }
        }
    }
    payload.extend_from_slice(&content);
    let part = Object { provides, payload: Bytes::from(payload), ..opened };
    part.compress_as(object.header.id, object.header.proof, &mut Packer::new(1)?)
}
