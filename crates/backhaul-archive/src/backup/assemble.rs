//! Takes what was walked and read, in path order; asks what is missing; bundles; draws the tree.

use std::collections::{HashSet, VecDeque};
use std::sync::mpsc::Receiver;
use std::vec;

use backhaul_object::bundle::BundleBuilder;
use backhaul_object::entry::{Attribute, Body, Content, DIRECT_CHUNKS_MAX, Entry, Metadata};
use backhaul_object::flist;
use backhaul_object::piece::Piece;
use backhaul_object::source::{Answer, ObjectSink, TransferError};
use backhaul_object::{Kind, Object, ObjectId, OwnIdMap, Proof};
use bytes::Bytes;

use super::drafts::Drafts;
use super::events::{Draw, Event, Found, Whole, name_of};
use super::former::Former;
use super::outbound::Outbound;
use super::questions::{Answered, BATCH_BYTES, Questions, Verdict};
use super::read::{Part, Parts};
use super::recent::{Place, Recent};
use super::state::Journal;
use super::step::{self, Seems, Step, extensions};
use super::tree::Tree;
use super::{BackupError, Figures, Saved, VaultParameters, to_path};

/// Entries that wait for an open bundle before it is closed short.
const WAITING_MAX: usize = 8_192;

/// The bundle being filled, and which contents it has.
#[derive(Default)]
pub(super) struct OpenBundle {
    pub(super) builder: BundleBuilder,
    members: OwnIdMap<u16>,
}

/// What the current file's content has become so far.
#[derive(Default)]
struct Current {
    pieces: Vec<Piece>,
    small: Option<(Content, bool)>,
}

/// A file that is being read.
struct Reading {
    path: Vec<u8>,
    link: Option<u64>,
    /// What it was, if it was known.
    former: Option<Former>,
    /// What it was, if it seemed to be the same.
    doubted: Option<Content>,
}

pub(super) struct Assembler<'a> {
    parameters: &'a VaultParameters,
    sink: &'a dyn ObjectSink,
    tree: Tree<'a>,
    figures: Figures,
    pub(super) questions: Questions<'a>,
    recent: Recent,
    pub(super) bundle: OpenBundle,
    current: Current,
    waiting: VecDeque<Draw>,
    /// Bytes of extensions in it.
    waiting_bytes: usize,
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
            questions: Questions::new(parameters, sink, drafts),
            recent: Recent::default(),
            bundle: OpenBundle::default(),
            current: Current::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
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
        while let Some(step::Batch { steps, found }) = self.await_disk(batches) {
            let mut read = Vec::new().into_iter();
            for step in steps {
                self.step(step, (&found, &mut read))?;
                self.ask_if_full()?;
                self.go_on();
            }
        }
        self.ask()?;
        while self.carry_out_oldest()? {}
        Ok(())
    }

    fn ask_if_full(&mut self) -> Result<(), BackupError> {
        if self.questions.is_full(WAITING_MAX) { self.ask() } else { Ok(()) }
    }

    /// `found` and `read`: what comes of the files of its batch, and what of that has come.
    fn step(
        &mut self,
        step: Step,
        (found, read): (&Receiver<Vec<Parts>>, &mut vec::IntoIter<Parts>),
    ) -> Result<(), BackupError> {
        step.count(&mut self.figures);
        match step {
            Step::Enter(entry) => {
                let bytes = extensions(&entry);
                self.questions.push(Event::Enter(entry), bytes);
            }
            Step::Leave => self.questions.push(Event::Leave, 0),
            Step::Known { entry, record } => {
                let bytes = extensions(&entry);
                self.questions.push(Event::Known { entry, record }, bytes);
            }
            Step::Plain(entry) => {
                let bytes = extensions(&entry);
                self.questions.push(Event::Plain(entry), bytes);
            }
            Step::Read { path, link, before, .. } => {
                let former = before.as_ref().map(|before| Former::of(&before.content));
                let doubted =
                    before.filter(|before| before.seems == Seems::Same).map(|before| before.content);
                let file = Reading { path, link, former, doubted };
                if read.len() == 0 {
                    *read = self.await_disk(found).unwrap_or_default().into_iter();
                }
                match read.next().ok_or_else(reader_failed)? {
                    Parts::Small(parts) => {
                        let mut parts = parts.into_iter();
                        self.read(file, |_| parts.next())?;
                    }
                    Parts::Coming(parts) => self.read(file, |this| this.await_disk(&parts))?,
                    Parts::Failed(why) => self.read(file, |_| Some(Part::Failed(why.clone())))?,
                }
            }
            Step::Missing(name) => self.questions.push(Event::Missing(name), 0),
            Step::NotKept(_) | Step::LeftOut(_) | Step::Unreadable { .. } => {}
        }
        Ok(())
    }

    /// Takes the parts of a file; a big one may fill several batches.
    fn read(
        &mut self,
        file: Reading,
        mut next: impl FnMut(&mut Self) -> Option<Part>,
    ) -> Result<(), BackupError> {
        let Reading { path, link, former, doubted } = file;
        let former = former.unwrap_or_default();
        let (mut inline, mut offset) = (None, 0);
        while let Some(part) = next(self) {
            match part {
                Part::Inline(content) => inline = Some(content),
                Part::Small { id, proof, content } => {
                    let former = former.near(0, content.len());
                    self.questions.content(Found {
                        id,
                        proof,
                        content,
                        whole: Whole::Small,
                        draft: None,
                        former,
                    });
                }
                Part::Chunk { id, proof, content, draft } => {
                    let former = former.near(offset, content.len());
                    offset += content.len() as u64;
                    self.questions.content(Found { id, proof, content, whole: Whole::Chunk, draft, former });
                    self.ask_if_full()?;
                }
                Part::Hole { len } => {
                    offset += len;
                    self.questions.push(Event::Hole { len }, 0);
                    self.ask_if_full()?;
                }
                Part::Done(read) => {
                    let bytes = read.attributes.iter().map(Attribute::size).sum::<usize>();
                    let unread = read.unread.iter().map(|why| (to_path(&path), why.clone()));
                    self.figures.errors.extend(unread);
                    self.figures.bytes_read += read.read;
                    if let Some(why) = read.unstable {
                        self.figures.errors.push((to_path(&path), why.to_owned()));
                    }
                    let read = Box::new(read);
                    self.questions.push(Event::File { path, link, inline, read, doubted }, bytes);
                    return Ok(());
                }
                Part::Failed(why) => {
                    self.figures.errors.push((to_path(&path), why));
                    if doubted.is_some() {
                        self.figures.has_changed();
                    }
                    self.questions.push(Event::Abandoned { path }, 0);
                    return Ok(());
                }
            }
        }
        Err(reader_failed())
    }

    fn ask(&mut self) -> Result<(), BackupError> {
        self.questions.ask()?;
        self.go_on();
        while self.questions.is_overdue() && self.carry_out_oldest()? {}
        self.tree.note_durable(self.sink.durable())
    }

    pub(super) fn carry_out(&mut self, answered: Answered) {
        let Answered { events, verdicts, durable } = answered;
        self.recent.forget(durable);
        let mut verdicts = verdicts.into_iter();
        for event in events {
            match event {
                Event::Content(found) => {
                    if let Some(verdict) = verdicts.next() {
                        self.place(found, verdict);
                    }
                }
                other => self.draw(other),
            }
        }
    }

    fn place(&mut self, found: Found, verdict: Verdict) {
        let Found { id, proof, content, whole, .. } = found;
        let Verdict { answer, patch } = verdict;
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
                self.send_chunk((id, proof), content, patch);
                self.current.pieces.push(Piece::Data { id, len });
            }
            (None, Whole::Small) if patch.is_some() && !self.bundle.members.contains_key(&id) => {
                self.send_chunk((id, proof), content, patch);
                self.current.small = Some((Place::Object.content(id, len), false));
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

    fn send_chunk(&mut self, name: (ObjectId, Proof), content: Bytes, patch: Option<Object>) {
        let object = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload: content };
        let sent = self.tree.send(name, object, patch);
        self.recent.insert(name.0, Place::Object, sent);
    }

    fn draw(&mut self, event: Event) {
        let draw = match event {
            Event::Enter(entry) => Draw::Enter(entry),
            Event::Leave => Draw::Leave,
            Event::Plain(entry) => Draw::Entry { entry, record: None, in_open_bundle: false },
            Event::Known { entry, record } => {
                Draw::Entry { entry, record: Some(*record), in_open_bundle: false }
            }
            Event::File { path, link, inline, read, doubted } => {
                let current = std::mem::take(&mut self.current);
                let (content, in_open_bundle) = self.file_content(current, inline);
                if doubted.is_some_and(|doubted| in_open_bundle || doubted != content) {
                    self.figures.has_changed();
                }
                Draw::file(path, link, content, in_open_bundle, &read)
            }
            Event::Missing(name) => Draw::Missing(name),
            Event::Abandoned { path } => {
                self.current = Current::default();
                Draw::Missing(Some(name_of(&path)))
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
    pub(super) fn close_bundle(&mut self) {
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
                    self.tree.add(entry, record.as_ref());
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
