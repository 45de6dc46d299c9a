//! Takes what was walked and read, in path order; asks what is missing; bundles; draws the tree.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::Receiver;

use backhaul_object::bundle::BundleBuilder;
use backhaul_object::entry::{Attribute, Body, Content, DIRECT_CHUNKS_MAX, Entry, Metadata};
use backhaul_object::flist;
use backhaul_object::patch::BASES_MAX;
use backhaul_object::piece::Piece;
use backhaul_object::source::{Answer, ObjectSink, Query, TransferError};
use backhaul_object::{Kind, Object, ObjectId};
use bytes::Bytes;

use super::drafts::{Draft, Drafts};
use super::events::{Bases, Batch, Draw, Event, Found, Whole};
use super::outbound::Outbound;
use super::read::{Part, Parts};
use super::recent::{Place, Recent};
use super::state::Journal;
use super::step::{self, Step, extensions};
use super::tree::Tree;
use super::{BackupError, Figures, Saved, VaultParameters, to_path};

/// Questions in one batch.
const BATCH_MAX: usize = 2_048;
/// The most of them that come at once: about a chunk and what it may be a patch of.
const AT_ONCE: usize = 1 + BASES_MAX;
/// Bytes of content that one batch may hold back until its answers are there.
const BATCH_BYTES: usize = 3 << 20;
/// Bytes and events of the batches whose answers are awaited: so much goes in one round trip of the line.
const AWAITED_BYTES: usize = 9 << 20;
const AWAITED_EVENTS: usize = 32_768;
/// Entries that wait for an open bundle before it is closed short.
const WAITING_MAX: usize = 8_192;

/// The bundle being filled, and which contents it has.
#[derive(Default)]
struct OpenBundle {
    builder: BundleBuilder,
    members: HashMap<ObjectId, u16>,
}

/// What the current file's content has become so far.
#[derive(Default)]
struct Current {
    pieces: Vec<Piece>,
    small: Option<(Content, bool)>,
}

pub(super) struct Assembler<'a> {
    parameters: &'a VaultParameters,
    sink: &'a dyn ObjectSink,
    tree: Tree<'a>,
    figures: Figures,
    events: Vec<Event>,
    queries: Vec<Query>,
    held: usize,
    batches: VecDeque<Batch>,
    /// Bytes and events of them.
    awaited: (usize, usize),
    recent: Recent,
    bundle: OpenBundle,
    current: Current,
    waiting: VecDeque<Draw>,
    /// Bytes of extensions in it.
    waiting_bytes: usize,
    drafts: Option<&'a Drafts>,
}

impl<'a> Assembler<'a> {
    pub(super) fn new(
        parameters: &'a VaultParameters,
        sink: &'a dyn ObjectSink,
        outbound: &'a mut Outbound,
        journal: Option<Journal>,
        old_nodes: HashSet<u64>,
        drafts: Option<&'a Drafts>,
    ) -> Self {
        Self {
            parameters,
            sink,
            tree: Tree::new(parameters, outbound, journal, old_nodes),
            figures: Figures::default(),
            events: Vec::new(),
            queries: Vec::new(),
            held: 0,
            batches: VecDeque::new(),
            awaited: (0, 0),
            recent: Recent::default(),
            bundle: OpenBundle::default(),
            current: Current::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            drafts,
        }
    }

    pub(super) fn run(mut self, batches: &Receiver<step::Batch>) -> Result<Saved, BackupError> {
        if let Err(error) = self.take(batches) {
            self.tree.note_durable(self.sink.durable())?;
            return Err(error);
        }
        self.close_bundle();
        self.tree.finish(self.figures)
    }

    fn take(&mut self, batches: &Receiver<step::Batch>) -> Result<(), BackupError> {
        for step::Batch { steps, found } in batches {
            let mut found = found.into_iter().flatten();
            for step in steps {
                self.step(step, &mut found)?;
                self.ask_if_full()?;
            }
        }
        self.ask()?;
        while !self.batches.is_empty() {
            self.settle()?;
        }
        Ok(())
    }

    fn ask_if_full(&mut self) -> Result<(), BackupError> {
        let full = self.queries.len() > BATCH_MAX - AT_ONCE || self.held >= BATCH_BYTES;
        if full || self.events.len() >= WAITING_MAX { self.ask() } else { Ok(()) }
    }

    fn step(&mut self, step: Step, found: &mut impl Iterator<Item = Parts>) -> Result<(), BackupError> {
        step.count(&mut self.figures);
        match step {
            Step::Enter(entry) => {
                self.held += extensions(&entry);
                self.events.push(Event::Enter(entry));
            }
            Step::Leave => self.events.push(Event::Leave),
            Step::Known { entry, record } => {
                self.held += extensions(&entry);
                self.events.push(Event::Known { entry, record });
            }
            Step::Plain(entry) => {
                self.held += extensions(&entry);
                self.events.push(Event::Plain(entry));
            }
            Step::Read { name, path, link, .. } => match found.next() {
                Some(Parts::Here(parts)) => self.read(name, path, link, parts)?,
                Some(Parts::Coming(parts)) => self.read(name, path, link, parts)?,
                None => return Err(reader_failed()),
            },
            Step::Missing(name) => self.events.push(Event::Missing(name)),
            Step::NotKept(_) | Step::LeftOut(_) | Step::Unreadable { .. } => {}
        }
        Ok(())
    }

    /// Takes the parts of a file; a big one may fill several batches.
    fn read(
        &mut self,
        name: Vec<u8>,
        path: Vec<u8>,
        link: Option<u64>,
        parts: impl IntoIterator<Item = Part>,
    ) -> Result<(), BackupError> {
        let mut inline = None;
        for part in parts {
            match part {
                Part::Inline(content) => inline = Some(content),
                Part::Small { id, proof, content } => {
                    self.content(Found { id, proof, content, whole: Whole::Small, draft: None });
                }
                Part::Chunk { id, proof, content, draft } => {
                    self.content(Found { id, proof, content, whole: Whole::Chunk, draft });
                    self.ask_if_full()?;
                }
                Part::Hole { len } => {
                    self.events.push(Event::Hole { len });
                    self.ask_if_full()?;
                }
                Part::Done(read) => {
                    self.held += read.attributes.iter().map(Attribute::size).sum::<usize>();
                    let unread = read.unread.iter().map(|why| (to_path(&path), why.clone()));
                    self.figures.errors.extend(unread);
                    self.figures.bytes_read += read.read;
                    if let Some(why) = read.unstable {
                        self.figures.errors.push((to_path(&path), why.to_owned()));
                    }
                    self.events.push(Event::File { name, link, inline, read, path });
                    return Ok(());
                }
                Part::Failed(why) => {
                    self.figures.errors.push((to_path(&path), why));
                    self.events.push(Event::Abandoned { name });
                    return Ok(());
                }
            }
        }
        Err(reader_failed())
    }

    fn content(&mut self, found: Found) {
        self.held += found.content.len();
        self.queries.push(Query { id: found.id, proof: found.proof });
        if let Some(draft) = &found.draft {
            self.held += draft.payload.len();
            self.queries.extend_from_slice(&draft.bases);
        }
        self.events.push(Event::Content(found));
    }

    /// Closes the current batch and asks about it.
    fn ask(&mut self) -> Result<(), BackupError> {
        let queries = std::mem::take(&mut self.queries);
        let events = std::mem::take(&mut self.events);
        let held = std::mem::take(&mut self.held);
        let durable = self.sink.durable();
        let answers = match queries.is_empty() {
            true => std::sync::mpsc::channel().1,
            false => self.sink.ask(queries)?,
        };
        self.awaited.0 += held;
        self.awaited.1 += events.len();
        self.batches.push_back(Batch { events, held, answers, durable });
        while self.awaited.0 > AWAITED_BYTES || self.awaited.1 > AWAITED_EVENTS {
            self.settle()?;
        }
        self.tree.note_durable(self.sink.durable())
    }

    /// Waits for the oldest answers and carries out the events up to them.
    fn settle(&mut self) -> Result<(), BackupError> {
        let Some(Batch { events, held, answers, durable }) = self.batches.pop_front() else { return Ok(()) };
        self.awaited.0 -= held;
        self.awaited.1 -= events.len();
        let asked = events.iter().any(|event| matches!(event, Event::Content(_)));
        let answers = match asked {
            true => answers.recv().map_err(|_| {
                let lost = TransferError::Lost("the session ended before it answered".to_owned());
                self.sink.failure().unwrap_or(lost)
            })?,
            false => Vec::new(),
        };
        self.recent.forget(durable);
        let mut answers = answers.into_iter();
        for event in events {
            match event {
                Event::Content(found) => {
                    let answer = answers.next().unwrap_or(Answer::Want);
                    let bases = found.draft.as_ref().map_or(0, |draft| draft.bases.len());
                    let there = answers.by_ref().take(bases).filter(|base| *base == Answer::Have).count();
                    let bases = if there == bases { Bases::There } else { Bases::Lacking };
                    self.place(found, answer, bases);
                }
                other => self.draw(other),
            }
        }
        Ok(())
    }

    fn place(&mut self, found: Found, answer: Answer, bases: Bases) {
        let Found { id, proof, content, whole, draft } = found;
        let draft = draft.filter(|draft| bases == Bases::There || self.forsake(draft));
        let len = content.len() as u64;
        let known = match (answer, whole) {
            (Answer::Have, _) => Some(Place::Object),
            (Answer::Member { bundle, member }, Whole::Small) => Some(Place::Member { bundle, member }),
            // A chunk list refers to objects only: what is there as a small file is sent again as a chunk.
            (Answer::Member { .. }, Whole::Chunk) | (Answer::Want, _) => None,
        };
        if known.is_some() {
            self.figures.objects_known += 1;
        }
        let recent = || self.recent.get(&id).filter(|place| whole == Whole::Small || *place == Place::Object);
        match (known.or_else(recent), whole) {
            (Some(_), Whole::Chunk) => self.current.pieces.push(Piece::Data { id, len }),
            (Some(place), Whole::Small) => self.current.small = Some((place.content(id, len), false)),
            (None, Whole::Chunk) => {
                let object =
                    Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload: content };
                let sent = self.tree.send((id, proof), object, draft.map(|draft| draft.into_patch()));
                self.recent.insert(id, Place::Object, sent);
                self.current.pieces.push(Piece::Data { id, len });
            }
            (None, Whole::Small) => {
                let member = match self.bundle.members.get(&id) {
                    Some(member) => *member,
                    None => {
                        let member = self.bundle.builder.push(id, proof, &content) as u16;
                        self.bundle.members.insert(id, member);
                        member
                    }
                };
                // The bundle's name is known when it is closed.
                let content = Content::Member { bundle: ObjectId([0; 32]), member };
                self.current.small = Some((content, true));
            }
        }
    }

    /// The sink does not have what a draft builds on: it is not used.
    fn forsake(&self, draft: &Draft) -> bool {
        self.drafts.inspect(|drafts| drafts.forsake(&draft.of));
        false
    }

    fn draw(&mut self, event: Event) {
        let draw = match event {
            Event::Enter(entry) => Draw::Enter(entry),
            Event::Leave => Draw::Leave,
            Event::Plain(entry) => Draw::Entry { entry, record: None, in_open_bundle: false },
            Event::Known { entry, record } => {
                Draw::Entry { entry, record: Some(record), in_open_bundle: false }
            }
            Event::File { name, link, inline, read, path } => {
                let current = std::mem::take(&mut self.current);
                let (content, in_open_bundle) = self.file_content(current, inline);
                Draw::file(name, link, content, in_open_bundle, &read, path)
            }
            Event::Missing(name) => Draw::Missing(name),
            Event::Abandoned { name } => {
                self.current = Current::default();
                Draw::Missing(Some(name))
            }
            Event::Hole { len } => {
                self.current.pieces.push(Piece::Hole { len });
                return;
            }
            Event::Content(_) => return,
        };
        self.waiting_bytes += match &draw {
            Draw::Enter(entry) | Draw::Entry { entry, .. } => extensions(entry),
            Draw::Leave | Draw::Missing(_) => 0,
        };
        self.waiting.push_back(draw);
        let full = self.bundle.builder.is_full(self.parameters.descriptor.bundle_target as usize);
        if full || self.waiting.len() >= WAITING_MAX || self.waiting_bytes >= BATCH_BYTES {
            self.close_bundle();
        } else if self.bundle.builder.is_empty() {
            self.drain(None);
        }
    }

    fn file_content(&mut self, current: Current, inline: Option<Bytes>) -> (Content, bool) {
        if let Some(small) = current.small {
            return small;
        }
        let content = match (inline, current.pieces) {
            (Some(bytes), _) if bytes.is_empty() => Content::Empty,
            (Some(bytes), _) => Content::Inline(bytes.to_vec()),
            (None, pieces) if pieces.is_empty() => Content::Empty,
            (None, pieces) if pieces.len() <= DIRECT_CHUNKS_MAX => Content::Chunks(pieces),
            (None, pieces) => {
                let (tree, key) = (&mut self.tree, &self.parameters.id_key);

                Content::Flist(flist::build(&pieces, key, |id, object| tree.emit(id, object)))
            }
        };
        (content, false)
    }

    /// Sends the open bundle and draws what waited for its name.
    fn close_bundle(&mut self) {
        let OpenBundle { builder, members } = std::mem::take(&mut self.bundle);
        if builder.is_empty() {
            return self.drain(None);
        }
        let object = builder.finish();
        let (bundle, proof) = object.identify(&self.parameters.id_key);
        let sent = self.tree.send((bundle, proof), object, None);
        for (id, member) in members {
            self.recent.insert(id, Place::Member { bundle, member }, sent);
        }
        self.drain(Some(bundle));
    }

    fn drain(&mut self, closed: Option<ObjectId>) {
        self.waiting_bytes = 0;
        for draw in self.waiting.drain(..) {
            match draw {
                Draw::Enter(entry) => self.tree.enter(entry),
                Draw::Leave => self.tree.leave(),
                Draw::Missing(name) => self.tree.missing(name),
                Draw::Entry { mut entry, mut record, in_open_bundle } => {
                    if let (true, Some(closed)) = (in_open_bundle, closed) {
                        let name = |content: &mut Content| {
                            if let Content::Member { bundle, .. } = content {
                                *bundle = closed;
                            }
                        };
                        if let Body::File { content, .. } = &mut entry.body {
                            name(content);
                        }
                        if let Some(record) = &mut record {
                            name(&mut record.content);
                        }
                    }
                    self.tree.add(entry, record.as_deref());
                }
            }
        }
    }
}

fn reader_failed() -> BackupError {
    TransferError::Lost("a reading thread failed".to_owned()).into()
}

pub(super) fn directory_entry(name: Vec<u8>, metadata: Metadata) -> Entry {
    Entry { name, metadata, body: Body::Folded(Vec::new()), extensions: vec![] }
}
