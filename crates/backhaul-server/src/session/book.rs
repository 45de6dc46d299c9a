//! Where all sessions of a vault see what each has promised ([`promises`](super::promises)): locks, clock and bells.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use backhaul_object::{Header, Kind};
use tokio::sync::Notify;

use super::promises::{Decision, Lacking, Party, Promises};
use crate::clock;

/// The promises of all sessions of a vault.
#[derive(Default)]
pub(super) struct Book(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    promises: Promises,
    bells: HashMap<Party, Arc<Notify>>,
}

/// A session's place in the book, until it is dropped.
pub(super) struct Seat {
    book: Arc<Book>,
    party: Party,
    bell: Arc<Notify>,
}

impl Pages {
    fn ring(&self, woken: &[Party]) {
        woken.iter().filter_map(|party| self.bells.get(party)).for_each(|bell| bell.notify_one());
    }
}

impl Book {
    /// A session begins.
    pub fn join(self: &Arc<Self>) -> Seat {
        let bell = Arc::new(Notify::new());
        let mut pages = self.open();
        let party = pages.promises.join();
        pages.bells.insert(party, Arc::clone(&bell));
        Seat { book: Arc::clone(self), party, bell }
    }

    fn open(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// An object of this session is in the vault.
    pub fn arrived(&self, header: &Header) {
        let members = header.provides.iter().filter(|_| header.kind == Kind::Bundle).map(|(id, _)| id);
        let whole = matches!(header.kind, Kind::Chunk | Kind::Patch).then_some(&header.id);
        let prefixes = members.chain(whole).map(|id| id.prefix());
        let mut pages = self.book.open();
        let bytes = u64::from(header.plain_len);
        let woken = pages.promises.arrived(self.party, bytes, prefixes, clock::boot_ms());
        pages.ring(&woken);
    }

    /// Until it is worth looking at the oldest question again; what rang before counts.
    pub async fn rung(&self) {
        self.bell.notified().await;
    }

    /// It delivers nothing any more.
    pub fn leave(&self) {
        let mut pages = self.book.open();
        pages.bells.remove(&self.party);
        let woken = pages.promises.leave(self.party, clock::boot_ms());
        pages.ring(&woken);
    }

    /// Which of these are promised, by place.
    pub fn promised(&self, prefixes: &[u64]) -> Vec<usize> {
        self.book.open().promises.among(prefixes)
    }

    /// What becomes of its oldest question, of which the vault lacks these.
    pub fn decide(&self, lacking: &[Lacking]) -> Decision {
        self.book.open().promises.decide(self.party, lacking, clock::boot_ms())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}
