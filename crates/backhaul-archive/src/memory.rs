//! A vault in memory, for tests: what it holds was hashed again, like on a server.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use backhaul_object::keys::{ChunkerKey, IdKey};
use backhaul_object::seal::Unpacker;
use backhaul_object::signature::{Signature, SignatureKey};
use backhaul_object::source::{
    Answer, Answers, Kin, ObjectSink, ObjectSource, Query, Signatures, Spot, TransferError,
};
use backhaul_object::{Compressed, Kind, Object, ObjectId, Reference, bundle, patch};
use bytes::Bytes;

pub(crate) struct Memory {
    key: IdKey,
    /// With which it describes what is there.
    pub(crate) signs: Option<ChunkerKey>,
    pub(crate) held: Mutex<Held>,
}

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) objects: HashMap<ObjectId, Object>,
    members: HashMap<ObjectId, (ObjectId, u16)>,
    pub(crate) puts: u64,
    /// How many of these were patches.
    pub(crate) patches: u64,
    /// Bytes of all of them.
    pub(crate) bytes: u64,
    pub(crate) asked: u64,
    /// Puts after which the session breaks.
    pub(crate) breaks_after: Option<u64>,
}

impl Memory {
    pub(crate) fn new(key: IdKey) -> Self {
        Self { key, signs: None, held: Mutex::default() }
    }
}

impl ObjectSink for Memory {
    fn ask(&self, queries: Vec<Query>) -> Result<Answers, TransferError> {
        let mut held = self.held.lock().unwrap();
        held.asked += queries.len() as u64;
        let answer = |query: &Query| match held.members.get(&query.id) {
            _ if held.objects.contains_key(&query.id) => Answer::Have,
            Some((bundle, member)) => Answer::Member { bundle: *bundle, member: *member },
            None => Answer::Want,
        };
        let (send, receive) = channel();
        send.send(queries.iter().map(answer).collect()).unwrap();
        Ok(receive)
    }

    fn sign(&self, spots: Vec<Spot>) -> Signatures {
        let held = self.held.lock().unwrap();
        let (send, receive) = channel();
        if let Some(key) = &self.signs {
            let kin = |(of, spot): (usize, &Spot)| {
                let object = held.objects.get(&spot.object)?;
                let members = object.provides.len();
                let (at, content) = match spot.member {
                    None => (0, object.payload.clone()),
                    Some(member) => {
                        let members = bundle::members(object).unwrap();
                        let before = members[..usize::from(member)].iter().flatten().map(Bytes::len).sum();
                        (before, members[usize::from(member)].clone().unwrap())
                    }
                };
                let base = patch::base_of_members(spot.object, members)?;
                let signature = Signature { at, ..SignatureKey::new(key).sign(&content) };
                Some(Kin { of, base, signature })
            };
            send.send(spots.iter().enumerate().filter_map(kin).collect()).unwrap();
        }
        receive
    }

    fn put(&self, object: Compressed) -> Result<u64, TransferError> {
        let mut held = self.held.lock().unwrap();
        let mut unpacker = Unpacker::new().unwrap();
        let opened = match object.header.kind {
            Kind::Patch => {
                held.patches += 1;
                let fetch = &mut |base: &Reference, _: &mut Unpacker| {
                    patch::substance(held.objects.get(&base.id).unwrap(), base)
                };
                patch::rebuild(&object, &self.key, &mut unpacker, fetch).unwrap()
            }
            _ => object.open(&self.key, &mut unpacker).unwrap(),
        };
        held.bytes += (object.header.encode().len() + object.body.len()) as u64;
        if held.breaks_after == Some(held.puts) {
            return Err(TransferError::Lost("cut".to_owned()));
        }
        for reference in &opened.references {
            assert!(held.objects.contains_key(&reference.id), "children come before parents");
        }
        for (member, (id, _)) in opened.provides.iter().enumerate() {
            held.members.insert(*id, (object.header.id, member as u16));
        }
        held.objects.insert(object.header.id, opened);
        held.puts += 1;
        Ok(held.puts)
    }

    fn durable(&self) -> u64 {
        self.held.lock().unwrap().puts
    }

    fn failure(&self) -> Option<TransferError> {
        None
    }
}

impl ObjectSource for Memory {
    fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
        let held = self.held.lock().unwrap();
        ids.iter().map(|id| held.objects.get(id).cloned().ok_or(TransferError::NotFound(*id))).collect()
    }
}
