//! From the data stream into the vault: `receive → verify and seal (in parallel) → authorise → append`.
//!
//! Objects keep their order through the parallel part ([`backhaul_turns`]). A commit travels the same way, behind the objects that
//! it counts. Objects under way share the [room](super::room) of all sessions.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use backhaul_net::NetError;
use backhaul_net::link::{Arrived, Streams};
use backhaul_object::ids::{ClientId, SessionId};
use backhaul_object::snapshot::Snapshot;
use backhaul_object::{Compressed, Kind, ObjectId, Sealed};
use backhaul_proto::end;
use backhaul_schedule::brake::{Added, Profile};
use backhaul_store::index::Edge;
use backhaul_store::session::Commit;
use backhaul_store::{Owned, StoreError, WriteSession};
use backhaul_turns::{Gone, Results, Worker, turns};
use tokio::sync::mpsc;

use super::book::Seat;
use super::room::{Guest, Room, Share};
use super::{Ending, OpenVault, lock};
use crate::clock::{self, Stopwatch};
use crate::rates::Throttle;

mod commit;
mod verify;

pub use commit::{CommitRequest, Made, Report};

/// Verifying threads per session.
const WORKERS: usize = 2;
/// Objects that wait for them, are with them or wait behind them: two, one and two for each.
const UNDER_WAY_MAX: usize = 5 * WORKERS;
/// Bytes after which what was stored is made durable and acknowledged.
const FLUSH_BYTES: u64 = 12 << 20;
/// Time after which it is.
const FLUSH_AFTER: Duration = Duration::from_secs(2);
/// How long a peer may take to say why it has given its objects up.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// How often an idle collector looks at the time.
const TICK: Duration = Duration::from_millis(200);

/// What goes in.
enum Item {
    Object(Compressed, Share),
    Commit(Box<CommitRequest>),
}

/// What comes out of a worker.
enum Checked {
    Object {
        sealed: Sealed,
        /// Lost objects that came as parts of it.
        healed: Vec<Sealed>,
        share: Share,
    },
    Commit(Box<Commitment>),
    Bad(Ending),
}

/// A commit whose manifest has been verified.
struct Commitment {
    request: CommitRequest,
    sealed: Sealed,
    snapshot: Snapshot,
}

/// The running ingest of one session.
pub struct Ingest {
    /// Where others see what is asked of this session, and what it has delivered.
    pub(super) seat: Arc<Seat>,
    input: mpsc::Sender<Item>,
    receiver: tokio::task::JoinHandle<()>,
    collector: JoinHandle<()>,
}

impl Ingest {
    /// Starts the threads.
    pub fn start(
        streams: Arc<Streams>,
        vault: Arc<OpenVault>,
        session: SessionId,
        client: ClientId,
        owned: Arc<Mutex<Owned>>,
        throttle: Throttle,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        let (input, items) = mpsc::channel(4);
        let place = Place { room: Arc::clone(&vault.room), guest: vault.room.enter(), streams };
        place.streams.admit(place.guest.window());
        let seat = Arc::new(vault.promises.join());
        let delivering = Arc::clone(&seat);
        let receiver = tokio::spawn(receive(place, input.clone(), throttle, reports.clone()));
        let collector = std::thread::spawn(move || {
            let writing = vault.vault.begin(session, client);
            let mut collector = Collector {
                vault: &vault,
                client,
                owned: &owned,
                seat: &delivering,
                reports,
                writing,
                stored: 0,
                unflushed: 0,
                added: Added::default(),
                held: None,
            };
            pipeline(&vault, items, &mut collector);
            if collector.added != Added::default() {
                let _ = collector.reports.send(Report::Unfinished(collector.added));
            }
        });
        Self { seat, input, receiver, collector }
    }

    /// Queues a commit.
    ///
    /// # Errors
    /// The ingest has failed and has said so.
    pub async fn commit(&self, request: CommitRequest) -> Result<(), Ending> {
        let over = |_| Ending::new(end::STORAGE, "the session has failed");
        self.input.send(Item::Commit(Box::new(request))).await.map_err(over)
    }

    /// Waits until everything that was started is finished.
    pub async fn stop(self) {
        self.receiver.abort();
        drop(self.input);
        let _ = tokio::task::spawn_blocking(|| self.collector.join()).await;
    }
}

/// Where objects come from, and what they share with those of other sessions.
struct Place {
    streams: Arc<Streams>,
    room: Arc<Room>,
    guest: Guest,
}

/// Moves objects from the data stream into the ingest.
async fn receive(
    place: Place,
    input: mpsc::Sender<Item>,
    mut throttle: Throttle,
    reports: mpsc::UnboundedSender<Report>,
) {
    let Ok(mut reader) = place.streams.accept().await else { return };
    let mut window = place.guest.window();
    loop {
        match reader.next().await {
            Ok(Some(Arrived::Object(object))) => {
                throttle.pass(object.body.len()).await;
                if std::mem::replace(&mut window, place.guest.window()) != window {
                    place.streams.set_window(window);
                }
                let Some(share) = place.room.share(object.body.len()).await else { return };
                if input.send(Item::Object(object, share)).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Ok(Some(_)) => {
                let ending = Ending::new(end::PROTOCOL, "a failure on the data stream");
                let _ = reports.send(Report::Failed(ending));
                return;
            }
            Err(NetError::Abandoned) => {
                // Whoever does that says why on the control stream: first come its words, then ours.
                tokio::time::sleep(LAST_WORDS).await;
                let ending = Ending::new(end::PROTOCOL, "it gave its objects up and did not say why");
                let _ = reports.send(Report::Failed(ending));
                return;
            }
            // A lost connection shows on the control stream, too; anything else must be said.
            Err(NetError::Lost(_) | NetError::Dismissed(_) | NetError::Left(_)) => return,
            Err(error) => {
                let _ = reports.send(Report::Failed(error.into()));
                return;
            }
        }
    }
}

fn pipeline(vault: &OpenVault, mut items: mpsc::Receiver<Item>, collector: &mut Collector<'_>) {
    std::thread::scope(|scope| {
        let (tasks, worker, results) = turns(UNDER_WAY_MAX);
        let owned = collector.owned;
        for _ in 0..WORKERS {
            let worker = worker.clone();
            scope.spawn(move || work(vault, owned, worker));
        }
        drop(worker);
        scope.spawn(move || {
            while let Some(item) = items.blocking_recv() {
                if tasks.give(item).is_err() {
                    return;
                }
            }
        });
        collector.run(results);
    });
}

fn work(vault: &OpenVault, owned: &Mutex<Owned>, worker: Worker<Item, Checked>) {
    worker.run(|item| {
        vault
            .room
            .unpack(|unpacker| verify::check((vault, owned), item, unpacker))
            .unwrap_or_else(|error| Checked::Bad(Ending::new(end::STORAGE, error.to_string())))
    });
}

/// The end of the pipeline: alone in touching the vault.
struct Collector<'v> {
    vault: &'v OpenVault,
    client: ClientId,
    owned: &'v Mutex<Owned>,
    seat: &'v Seat,
    reports: mpsc::UnboundedSender<Report>,
    writing: WriteSession,
    /// Objects taken from the data stream.
    stored: u64,
    /// Bytes since the last flush.
    unflushed: u64,
    /// Contents that the vault did not have.
    added: Added,
    /// A commit that is here before its last object.
    held: Option<Box<Commitment>>,
}

impl Collector<'_> {
    fn run(&mut self, mut results: Results<Checked>) {
        let mut since = Stopwatch::start();
        loop {
            let done = match results.within(TICK) {
                Ok(checked) => checked.map_or(Ok(()), |checked| self.take(checked)),
                Err(Gone) => return,
            };
            let due = self.unflushed >= FLUSH_BYTES || (self.unflushed > 0 && since.elapsed() >= FLUSH_AFTER);
            let done = done.and_then(|()| if due { self.flush() } else { Ok(()) });
            if due || self.unflushed == 0 {
                since = Stopwatch::start();
            }
            if let Err(ending) = done {
                let _ = self.reports.send(Report::Failed(ending));
                return;
            }
        }
    }

    fn take(&mut self, checked: Checked) -> Result<(), Ending> {
        match checked {
            Checked::Bad(ending) => return Err(ending),
            // Its share of the room is given back when it is written.
            Checked::Object { sealed, healed, share: _share } => {
                for chunk in healed {
                    let ordinal = self.writing.append(&chunk, &[])?;
                    lock(self.owned).add(ordinal);
                    self.unflushed += chunk.body.len() as u64;
                }
                let edges = self.authorise(&sealed)?;
                let before = self.writing.added().0;
                let ordinal = self.writing.append(&sealed, &edges)?;
                if self.writing.added().0 == before {
                    // It was there, from another client perhaps: sending it has shown possession.
                    self.vault.vault.note_proven(self.client, ordinal, None);
                } else if matches!(sealed.header.kind, Kind::Chunk | Kind::Bundle | Kind::Patch) {
                    let (bytes, packed) = (u64::from(sealed.header.plain_len), sealed.body.len() as u64);
                    self.added = self.added + Added { bytes, packed };
                }
                lock(self.owned).add(ordinal);
                self.seat.arrived(&sealed.header);
                self.stored += 1;
                self.unflushed += sealed.body.len() as u64;
            }
            Checked::Commit(commitment) => self.held = Some(commitment),
        }
        match self.held.take() {
            Some(held) if held.request.objects == self.stored => self.commit(*held),
            Some(held) if held.request.objects < self.stored => {
                Err(Ending::new(end::PROTOCOL, "more objects than the commit counts"))
            }
            held => {
                self.held = held;
                Ok(())
            }
        }
    }

    /// Everything that an object refers to must be there, and its sender's.
    fn authorise(&self, sealed: &Sealed) -> Result<Vec<Edge>, Ending> {
        let stale = |id: &ObjectId| {
            Ending::new(
                end::STALE,
                format!("object {id} is not on the server, or not this client's; a full read is due"),
            )
        };
        let edges = match self.vault.vault.resolve(&sealed.header.references) {
            Ok(edges) => edges,
            Err(StoreError::MissingReference(id)) => return Err(stale(&id)),
            Err(error) => return Err(error.into()),
        };
        let owned = lock(self.owned);
        match edges.iter().position(|edge| !owned.covers(edge)) {
            Some(i) => Err(stale(&sealed.header.references[i].id)),
            None => Ok(edges),
        }
    }

    fn flush(&mut self) -> Result<(), Ending> {
        self.writing.flush()?;
        self.unflushed = 0;
        let _ = self.reports.send(Report::Durable(self.stored));
        Ok(())
    }

    fn commit(&mut self, commitment: Commitment) -> Result<(), Ending> {
        let Commitment { request, sealed, snapshot } = commitment;
        let wrong =
            |what: &str| Ending::new(end::DATA, format!("the snapshot's {what} is not what was granted"));
        if snapshot.vault != self.vault.vault.descriptor().vault {
            return Err(wrong("vault"));
        }
        if snapshot.client != self.client {
            return Err(wrong("client"));
        }
        if snapshot.sequence != request.sequence || snapshot.previous != request.previous {
            return Err(wrong("place in the chain"));
        }
        let edges = self.authorise(&sealed)?;
        let commit = Commit {
            client_name: &request.client_name,
            sequence: request.sequence,
            server_time: clock::now(),
            signature: request.signature,
        };
        let row = self.writing.commit(&sealed, &edges, commit)?;
        lock(self.owned).add(row.ordinal);
        self.unflushed = 0;
        let _ = self.reports.send(Report::Durable(self.stored));
        let profile = Profile {
            sequence: row.sequence,
            files: snapshot.totals.files,
            files_new: request.changes.0,
            files_changed: request.changes.1,
            bytes: snapshot.totals.bytes,
            added: std::mem::take(&mut self.added),
        };
        let made = Made { row, origin: snapshot.origin(), errors: snapshot.errors, profile };
        let _ = self.reports.send(Report::Committed(Box::new(made)));
        Ok(())
    }
}
