//! A vault of numbers around the real fence: what is stored is a number with its children, ids are what it holds.
//! Truth is kept apart: what each id holds, and what each snapshot was made of.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backhaul_object::ids::ClientId;
use backhaul_store::reclaim::condemned;
use backhaul_store::reclaim::fence::Fence;
use backhaul_store::{Bits, Ordinal};

/// Ids below are leaves.
pub const LEAVES: u32 = 12;
const HOLD: u64 = backhaul_store::reclaim::HOLD;

#[derive(Debug, Clone)]
struct Row {
    id: u32,
    children: Vec<Ordinal>,
}

#[derive(Debug)]
pub struct Session {
    token: u64,
    client: u8,
    /// What it may rely on: it was told so, or has stored it.
    known: BTreeSet<u32>,
    /// References of a node that it is about to add, resolved.
    ready: Option<(u32, Vec<Ordinal>)>,
    number: u32,
}

/// A restore or a mount: it may read all that its client's snapshots reach, and of what it has begun with it needs all.
#[derive(Debug)]
struct Reader {
    token: u64,
    client: u8,
    /// Which snapshots it has begun to read, and what these reach.
    reads: BTreeMap<u32, Vec<Ordinal>>,
}

/// A snapshot: its number in the vault, what it holds, and whose it is.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    root: Ordinal,
    id: u32,
    client: u8,
}

/// What survives a crash.
#[derive(Debug, Clone, Default)]
struct Disk {
    rows: usize,
    file: Vec<u8>,
    resurrected: Vec<(u64, Ordinal)>,
    uploads: BTreeMap<u32, (u8, u64)>,
}

#[derive(Debug, Default)]
pub struct World {
    fence: Fence,
    rows: Vec<Row>,
    /// Which session wrote each row.
    writers: Vec<u32>,
    uploads: BTreeMap<u32, (u8, u64)>,
    pub snapshots: BTreeMap<u32, Snapshot>,
    made: u32,
    sessions_made: u32,
    pub sessions: Vec<Session>,
    readers: Vec<Reader>,
    marking: Option<(Bits, u64)>,
    disk: Disk,
    /// The truth: what nodes hold, by id.
    holds: BTreeMap<u32, Vec<u32>>,
    names: HashMap<Vec<u32>, u32>,
}

type Told<T> = Result<T, String>;

impl World {
    fn found(&self, id: u32) -> Option<Ordinal> {
        let there = |n: &usize| self.rows[*n].id == id && !self.fence.gone().has(Ordinal(*n as u64));
        (0..self.rows.len()).rev().find(there).map(|n| Ordinal(n as u64))
    }

    fn claim(&mut self, ordinal: Ordinal) -> bool {
        let rows = &self.rows;
        let mut children = |of: Ordinal| Ok::<_, ()>(rows[of.0 as usize].children.clone());
        self.fence.claim(ordinal, &mut children).unwrap()
    }

    fn find_and_claim(&mut self, id: u32) -> Option<Ordinal> {
        self.found(id).filter(|ordinal| self.claim(*ordinal))
    }

    pub fn begin(&mut self, client: u8) {
        // A newer session of a client ends the older.
        if let Some(at) = self.sessions.iter().position(|session| session.client == client) {
            self.end(at);
        }
        self.sessions_made += 1;
        let token = self.fence.enter(format!("session {}", self.sessions_made));
        let number = self.sessions_made;
        self.sessions.push(Session { token, client, known: BTreeSet::new(), ready: None, number });
    }

    pub fn end(&mut self, at: usize) {
        let session = self.sessions.remove(at);
        self.fence.leave(session.token);
        self.flush();
    }

    pub fn ask(&mut self, at: usize, id: u32) {
        if self.find_and_claim(id).is_some() {
            self.sessions[at].known.insert(id);
        }
    }

    pub fn add_leaf(&mut self, at: usize, id: u32) -> Told<()> {
        self.append(at, id, Vec::new())
    }

    /// Resolves references to things that the session knows of.
    pub fn resolve(&mut self, at: usize, ids: &[u32]) -> Told<()> {
        let mut edges = Vec::new();
        for id in ids {
            let told = || format!("session {at} was told that {id} is there, and it is not");
            edges.push(self.find_and_claim(*id).ok_or_else(told)?);
        }
        let next = LEAVES + self.names.len() as u32;
        let id = *self.names.entry(ids.to_vec()).or_insert(next);
        self.holds.insert(id, ids.to_vec());
        self.sessions[at].ready = Some((id, edges));
        Ok(())
    }

    pub fn add_node(&mut self, at: usize) -> Told<()> {
        let Some((id, edges)) = self.sessions[at].ready.take() else { return Ok(()) };
        self.append(at, id, edges)
    }

    fn append(&mut self, at: usize, id: u32, edges: Vec<Ordinal>) -> Told<()> {
        self.sessions[at].known.insert(id);
        if self.find_and_claim(id).is_some() {
            return Ok(());
        }
        for edge in &edges {
            if !self.claim(*edge) {
                return Err(format!("what {id} refers to went while it was being added"));
            }
        }
        let Session { number, client, .. } = self.sessions[at];
        let epoch = self.fence.epoch();
        self.uploads.entry(number).or_insert((client, epoch));
        self.rows.push(Row { id, children: edges });
        self.writers.push(number);
        Ok(())
    }

    pub fn commit(&mut self, at: usize, root: u32) -> Told<()> {
        self.resolve(at, &[root])?;
        self.add_node(at)?;
        let snap = *self.names.get(&vec![root]).unwrap();
        let ordinal = self.found(snap).ok_or("the snapshot that was just added is not there")?;
        self.flush();
        self.made += 1;
        let client = self.sessions[at].client;
        self.snapshots.insert(self.made, Snapshot { root: ordinal, id: snap, client });
        self.uploads.retain(|_, (of, _)| *of != client);
        self.disk.uploads = self.uploads.clone();
        Ok(())
    }

    pub fn flush(&mut self) {
        self.disk.rows = self.rows.len();
        let epoch = self.fence.epoch();
        self.disk.resurrected.extend(self.fence.resurrected().iter().map(|ordinal| (epoch, *ordinal)));
        self.fence.noted();
        self.disk.uploads.extend(self.uploads.clone());
    }

    pub fn forget(&mut self, snapshot: u32) {
        if let Some(Snapshot { client, .. }) = self.snapshots.remove(&snapshot) {
            self.fence.unmade(ClientId([client; 16]));
        }
    }

    pub fn read(&mut self, snapshot: u32) {
        let Some(Snapshot { client, .. }) = self.snapshots.get(&snapshot).copied() else { return };
        let token = self.fence.enter_reader("a reader".to_owned(), ClientId([client; 16]));
        self.readers.push(Reader { token, client, reads: BTreeMap::new() });
        self.read_on(self.readers.len() - 1, snapshot);
    }

    /// A mount looks into another snapshot, which may be younger than itself.
    pub fn read_on(&mut self, reader: usize, snapshot: u32) {
        let Some(Snapshot { root, client, .. }) = self.snapshots.get(&snapshot).copied() else { return };
        let Some(reader) = self.readers.get_mut(reader).filter(|reader| reader.client == client) else {
            return;
        };
        let mut needs = vec![root];
        let mut next = 0;
        while let Some(ordinal) = needs.get(next) {
            needs.extend(self.rows[ordinal.0 as usize].children.clone());
            next += 1;
        }
        reader.reads.insert(snapshot, needs);
    }

    /// It has read nothing for long, and makes do with what is there now.
    pub fn renew(&mut self, reader: usize) {
        let Some(reader) = self.readers.get_mut(reader) else { return };
        self.fence.renew(reader.token, ClientId([reader.client; 16]));
        reader.reads.retain(|snapshot, _| self.snapshots.contains_key(snapshot));
    }

    pub fn readers(&self) -> usize {
        self.readers.len()
    }

    pub fn read_end(&mut self) {
        if let Some(reader) = self.readers.pop() {
            self.fence.leave(reader.token);
        }
    }

    fn close(&self, live: &mut Bits, from: u64) {
        for n in (0..from).rev().map(Ordinal).filter(|n| live.has(*n)).collect::<Vec<_>>() {
            let mut open = vec![n];
            while let Some(next) = open.pop() {
                live.add(next);
                open.extend(self.rows[next.0 as usize].children.iter().filter(|child| !live.has(**child)));
            }
        }
    }

    pub fn mark_begin(&mut self) {
        let since = self.fence.epoch().saturating_sub(HOLD);
        let mut live = Bits::default();
        self.snapshots.values().for_each(|snapshot| live.add(snapshot.root));
        for (n, writer) in self.writers.iter().enumerate() {
            if self.uploads.get(writer).is_some_and(|(_, epoch)| *epoch >= since) {
                live.add(Ordinal(n as u64));
            }
        }
        let until = self.rows.len() as u64;
        self.close(&mut live, until);
        self.marking = Some((live, until));
    }

    pub fn mark_end(&mut self) {
        let Some((mut live, until)) = self.marking.take() else { return };
        live.add_range(until..self.rows.len() as u64);
        self.snapshots.values().for_each(|snapshot| live.add(snapshot.root));
        self.close(&mut live, self.rows.len() as u64);
        self.fence.marked(&live, self.rows.len() as u64);
        self.disk.file = condemned::encode(&self.fence);
    }

    pub fn let_go(&mut self) -> bool {
        let went = self.fence.let_go().is_ok();
        self.fence.left();
        self.disk.file = condemned::encode(&self.fence);
        went
    }

    pub fn crash(&mut self) {
        self.fence = condemned::decode(&self.disk.file).unwrap_or_default();
        let epoch = self.fence.epoch();
        let needed = self.disk.resurrected.iter().filter(|(of, _)| *of == epoch).map(|(_, ordinal)| *ordinal);
        self.fence.resume(&needed.collect());
        self.rows.truncate(self.disk.rows);
        self.writers.truncate(self.disk.rows);
        self.uploads = self.disk.uploads.clone();
        (self.sessions, self.readers, self.marking) = (Vec::new(), Vec::new(), None);
    }

    pub fn known(&self, at: usize) -> Vec<u32> {
        self.sessions[at].known.iter().copied().collect()
    }

    pub fn ids(&self) -> u32 {
        LEAVES + self.names.len() as u32
    }

    fn content(&self, id: u32, into: &mut BTreeSet<u32>) {
        if into.insert(id) {
            self.holds.get(&id).into_iter().flatten().for_each(|child| self.content(*child, into));
        }
    }

    /// What must be true after every step.
    pub fn audit(&self) -> Told<()> {
        let is_gone = |ordinal: &Ordinal| self.fence.gone().has(*ordinal);
        for (number, Snapshot { root, id, .. }) in &self.snapshots {
            let (mut found, mut open) = (BTreeSet::new(), vec![*root]);
            while let Some(next) = open.pop() {
                if is_gone(&next) {
                    return Err(format!("snapshot {number} needs {} and it is gone", next.0));
                }
                if self.fence.is_condemned(next) {
                    return Err(format!("snapshot {number} needs {} and it is condemned", next.0));
                }
                let row = &self.rows[next.0 as usize];
                if found.insert(row.id) {
                    open.extend(&row.children);
                }
            }
            let mut truth = BTreeSet::new();
            self.content(*id, &mut truth);
            if found != truth {
                return Err(format!("snapshot {number} holds {found:?} and not {truth:?}"));
            }
        }
        for reader in &self.readers {
            if let Some(gone) = reader.reads.values().flatten().find(|ordinal| is_gone(ordinal)) {
                return Err(format!("a reader needs {} and it is gone", gone.0));
            }
        }
        for session in &self.sessions {
            if let Some(id) = session.known.iter().find(|id| self.found(**id).is_none()) {
                return Err(format!("session {} was told of {id} and it is gone", session.number));
            }
        }
        for (n, row) in self.rows.iter().enumerate() {
            let me = Ordinal(n as u64);
            if is_gone(&me) {
                continue;
            }
            if let Some(child) = row.children.iter().find(|child| is_gone(child)) {
                return Err(format!("{n} is there and refers to {}, which is gone", child.0));
            }
            if !self.fence.is_condemned(me)
                && let Some(child) = row.children.iter().find(|child| self.fence.is_condemned(**child))
            {
                return Err(format!("{n} refers to {}, which is condemned", child.0));
            }
        }
        Ok(())
    }

    /// When nobody is there any more, everything that is not needed goes.
    pub fn clear_out(&mut self) -> Told<()> {
        while !self.sessions.is_empty() {
            self.end(0);
        }
        while !self.readers.is_empty() {
            self.read_end();
        }
        self.uploads.clear();
        self.disk.uploads.clear();
        for _ in 0..4 {
            self.mark_begin();
            self.mark_end();
            while self.let_go() {}
            self.audit()?;
        }
        let mut needed = Bits::default();
        self.snapshots.values().for_each(|snapshot| needed.add(snapshot.root));
        self.close(&mut needed, self.rows.len() as u64);
        let gone = needed.others(self.rows.len() as u64);
        if gone != *self.fence.gone() {
            return Err(format!("{} should be gone, {} are", gone.count(), self.fence.gone().count()));
        }
        Ok(())
    }
}
