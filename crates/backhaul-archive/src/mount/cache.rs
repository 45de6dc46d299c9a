//! Objects that were read, decoded: as many as fit, the ones used last. Whoever needs one that is on its way waits for it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use backhaul_object::flist::{self, Flist};
use backhaul_object::node::{self, Node};
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{FormatError, Kind, Object, ObjectId};
use bytes::Bytes;

use crate::browse::is_fatal;
use crate::dump::{DumpError, members_of};

/// Bytes that are held.
pub(crate) const HELD_MAX: usize = 96 << 20;
/// What a decoded node takes, by what it takes encoded; and anything besides its bytes.
const NODE_FACTOR: usize = 6;
const OVERHEAD: usize = 256;

/// An object that has been read.
#[derive(Debug)]
pub(crate) enum Held {
    Node(Node),
    Members(Vec<Option<Bytes>>),
    List(Flist),
    Chunk(Bytes),
}

/// Of one client only: of a bundle each client sees its own members.
type Key = (u32, ObjectId);

#[derive(Default)]
struct State {
    held: HashMap<Key, (Arc<Held>, u64, usize)>,
    /// When each was used last, oldest first.
    used: BTreeMap<u64, Key>,
    clock: u64,
    bytes: usize,
    flying: HashSet<Key>,
}

/// What all clients' objects share.
#[derive(Default)]
pub(crate) struct Cache {
    state: Mutex<State>,
    landed: Condvar,
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take(&mut self, key: &Key) -> Option<Arc<Held>> {
        self.clock += 1;
        let (held, used, _) = self.held.get_mut(key)?;
        self.used.remove(used);
        *used = self.clock;
        self.used.insert(self.clock, *key);
        Some(Arc::clone(held))
    }

    fn put(&mut self, key: Key, held: Arc<Held>, cost: usize) {
        self.clock += 1;
        if let Some((_, used, cost)) = self.held.insert(key, (held, self.clock, cost)) {
            self.used.remove(&used);
            self.bytes -= cost;
        }
        self.used.insert(self.clock, key);
        self.bytes += cost;
        while self.bytes > HELD_MAX {
            let Some((_, oldest)) = self.used.pop_first() else { return };
            if let Some((.., cost)) = self.held.remove(&oldest) {
                self.bytes -= cost;
            }
        }
    }
}

/// One client's objects.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) source: Arc<dyn ObjectSource>,
    pub(crate) number: u32,
    pub(crate) cache: Arc<Cache>,
}

impl Store {
    /// One object.
    pub(crate) fn one(&self, id: ObjectId) -> Result<Arc<Held>, DumpError> {
        let mut held = self.get(&[id])?;
        Ok(held.remove(&id).ok_or(TransferError::NotFound(id))?)
    }

    /// All of these; those that are not held are read at once.
    pub(crate) fn get(&self, ids: &[ObjectId]) -> Result<HashMap<ObjectId, Arc<Held>>, DumpError> {
        let mut found: HashMap<ObjectId, Arc<Held>> = HashMap::with_capacity(ids.len());
        loop {
            let (mut missing, mut waits) = (Vec::new(), false);
            let mut state = self.cache.state();
            for id in ids {
                let key = (self.number, *id);
                if found.contains_key(id) || missing.contains(id) {
                    continue;
                }
                if let Some(held) = state.take(&key) {
                    found.insert(*id, held);
                } else if state.flying.insert(key) {
                    missing.push(*id);
                } else {
                    waits = true;
                }
            }
            if !missing.is_empty() {
                drop(state);
                found.extend(self.fetch(missing)?);
            } else if waits {
                drop(self.cache.landed.wait(state).unwrap_or_else(PoisonError::into_inner));
            } else {
                return Ok(found);
            }
        }
    }

    fn fetch(&self, ids: Vec<ObjectId>) -> Result<Vec<(ObjectId, Arc<Held>)>, DumpError> {
        let read = self.read(&ids);
        let mut state = self.cache.state();
        for id in &ids {
            state.flying.remove(&(self.number, *id));
        }
        self.cache.landed.notify_all();
        let mut fetched = Vec::with_capacity(ids.len());
        for (id, object) in ids.into_iter().zip(read?) {
            let cost = cost(&object);
            let held = Arc::new(decode(&object).map_err(|why| DumpError::Format { id, why })?);
            state.put((self.number, id), Arc::clone(&held), cost);
            fetched.push((id, held));
        }
        Ok(fetched)
    }

    /// After a failure one by one, to name the bad one.
    fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
        match self.source.read(ids) {
            Ok(objects) if objects.len() == ids.len() => Ok(objects),
            Err(error) if is_fatal(&error) || ids.len() == 1 => Err(error),
            _ => {
                let one = |id: &ObjectId| self.source.read(&[*id])?.pop().ok_or(TransferError::NotFound(*id));
                ids.iter().map(one).collect()
            }
        }
    }
}

fn decode(object: &Object) -> Result<Held, FormatError> {
    Ok(match object.kind {
        Kind::Node => Held::Node(node::decode(object)?),
        Kind::Bundle => Held::Members(members_of(object)?),
        Kind::Flist => Held::List(flist::decode(object)?),
        Kind::Chunk => Held::Chunk(object.payload.clone()),
        _ => return Err(FormatError::Invalid("no part of a file or folder")),
    })
}

fn cost(object: &Object) -> usize {
    let factor = if object.kind == Kind::Node { NODE_FACTOR } else { 1 };
    object.payload.len() * factor + OVERHEAD
}
