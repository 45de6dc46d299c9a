//! The nodes that a walk will come to, in its order, read and decoded by another thread before it does.
//!
//! A walk opens nodes in the order of the tree: a folder, then what is in it, then what comes after it. So what is known of
//! the tree is a line of nodes of which the walk takes the first; those of a node that is read go into the line right behind
//! it. When the first is not there, it is read together with the next of the line that are not. A walk that takes all it
//! comes to needs few reads, about one for each level of the tree and each [`WIDTH_MAX`] nodes, and has the next under way
//! before it needs them; one that passes nodes by has fewer read for nothing each time, and none before it needs one.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};

use backhaul_object::entry::{Body, Entry};
use backhaul_object::node::{self, Node};
use backhaul_object::source::{ObjectSource, TransferError};
use backhaul_object::{FormatError, ObjectId};

use super::is_fatal;

/// Most nodes asked for in one read; the first read is of one.
const WIDTH_MAX: usize = 128;
/// A walk that has taken all that such reads brought is taken to want the rest.
const WIDTH_EAGER: usize = 16;
/// With so many bytes of nodes waiting for the walk, only the one that it needs is read; and no more than as many as have so
/// many bytes if all are like the largest.
const HELD_MAX: usize = 6 << 20;

/// Why a node cannot be had.
#[derive(Debug)]
pub(super) enum Failed {
    Read(TransferError),
    Format(FormatError),
}

/// A node, and how many bytes it was.
type Decoded = Result<(Node, usize), FormatError>;
/// What comes of a read.
type Answer = Result<Vec<Decoded>, TransferError>;

/// How far a node in the line is.
enum State {
    Missing,
    /// It comes in this place of the answer that is awaited.
    Asked(usize),
    Here(Node, usize),
}

/// One place in the line.
struct Place {
    id: ObjectId,
    state: State,
}

impl Place {
    fn new(id: ObjectId) -> Self {
        Self { id, state: State::Missing }
    }
}

/// The line.
pub(super) struct Ahead {
    line: VecDeque<Place>,
    /// Nodes in it that are read, and their bytes.
    here: usize,
    held: usize,
    largest: usize,
    width: usize,
    questions: Sender<Vec<ObjectId>>,
    answers: Receiver<Answer>,
    /// How many nodes the answer that is awaited has; none is awaited if there are none.
    asked: usize,
}

/// Who reads.
pub(super) struct Reader<'a> {
    source: &'a dyn ObjectSource,
    questions: Receiver<Vec<ObjectId>>,
    answers: Sender<Answer>,
}

impl Reader<'_> {
    /// Until the walk has ended.
    pub(super) fn run(self) {
        let read = |ids: Vec<ObjectId>| {
            let objects = self.source.read(&ids)?;
            if objects.len() != ids.len() {
                return Err(TransferError::Lost("an answer without objects".to_owned()));
            }
            Ok(objects.iter().map(|object| Ok((node::decode(object)?, object.payload.len()))).collect())
        };
        for ids in &self.questions {
            if self.answers.send(read(ids)).is_err() {
                return;
            }
        }
    }
}

impl Ahead {
    pub(super) fn new(source: &dyn ObjectSource) -> (Self, Reader<'_>) {
        let ((questions, asked), (answers, answered)) = (channel(), channel());
        let line = VecDeque::new();
        let ahead =
            Self { line, here: 0, held: 0, largest: 1, width: 1, questions, answers: answered, asked: 0 };
        (ahead, Reader { source, questions: asked, answers })
    }

    /// A walk begins with these.
    pub(super) fn begin(&mut self, entries: &[Entry]) {
        collect(entries, &mut |id| self.line.push_back(Place::new(id)));
    }

    /// The node that the walk has come to. Those before it in the line were passed by.
    pub(super) fn take(&mut self, id: ObjectId) -> Result<Node, Failed> {
        let mut passed = 0;
        while self.line.front().is_some_and(|place| place.id != id) {
            self.pop();
            passed += 1;
        }
        self.width = if passed > 0 { (self.width / 2).max(1) } else { self.width };
        if self.line.is_empty() {
            self.line.push_back(Place::new(id));
        }
        while !self.line.front().is_some_and(|place| matches!(place.state, State::Here(..))) {
            if self.asked == 0 {
                self.ask()?;
            }
            self.receive()?;
        }
        let node = self.pop().ok_or_else(|| not_found(id))?;
        if self.asked == 0
            && self.width >= WIDTH_EAGER
            && self.here < self.width / 2
            && self.held < HELD_MAX / 2
        {
            self.ask()?;
        }
        Ok(node)
    }

    fn pop(&mut self) -> Option<Node> {
        match self.line.pop_front()?.state {
            State::Here(node, bytes) => {
                self.here -= 1;
                self.held -= bytes;
                Some(node)
            }
            State::Missing | State::Asked(_) => None,
        }
    }

    /// Asks for the first of the line that is missing, and some of the next.
    fn ask(&mut self) -> Result<(), Failed> {
        let width = if self.held < HELD_MAX { self.width.min(HELD_MAX / self.largest).max(1) } else { 1 };
        let missing = self.line.iter_mut().filter(|place| matches!(place.state, State::Missing));
        let mut ids = Vec::new();
        for place in missing.take(width) {
            place.state = State::Asked(ids.len());
            ids.push(place.id);
        }
        self.asked = ids.len();
        if ids.is_empty() { Ok(()) } else { self.questions.send(ids).map_err(|_| lost()) }
    }

    /// Takes what was asked for into the line. If that failed, the first is asked for alone; if it was, that is the end of it.
    fn receive(&mut self) -> Result<(), Failed> {
        let (answer, asked) = (self.answers.recv().map_err(|_| lost())?, std::mem::take(&mut self.asked));
        let is_first = matches!(self.line.front(), Some(Place { state: State::Asked(_), .. }));
        if answer.is_err() {
            let asked = self.line.iter_mut().filter(|place| matches!(place.state, State::Asked(_)));
            asked.for_each(|place| place.state = State::Missing);
        }
        match answer {
            Ok(nodes) => {
                self.width = (self.width * 2).min(WIDTH_MAX);
                self.put(nodes)
            }
            Err(error) if is_fatal(&error) => Err(Failed::Read(error)),
            Err(error) => {
                self.width = 1;
                if asked == 1 && is_first {
                    self.line.pop_front();
                    return Err(Failed::Read(error));
                }
                Ok(())
            }
        }
    }

    /// Puts nodes into their places, and those that they refer to behind them. One that does not decode is read again when the
    /// walk comes to it.
    fn put(&mut self, nodes: Vec<Decoded>) -> Result<(), Failed> {
        let mut nodes: Vec<Option<Decoded>> = nodes.into_iter().map(Some).collect();
        // From the back, so that places in front stay where they are.
        for at in (0..self.line.len()).rev() {
            let State::Asked(number) = self.line[at].state else { continue };
            self.line[at].state = State::Missing;
            match nodes.get_mut(number).and_then(Option::take) {
                Some(Ok((node, bytes))) => {
                    self.here += 1;
                    self.held += bytes;
                    self.largest = self.largest.max(bytes);
                    let below = below(&node);
                    self.line[at].state = State::Here(node, bytes);
                    let behind = self.line.split_off(at + 1);
                    self.line.extend(below);
                    self.line.extend(behind);
                }
                Some(Err(error)) if at == 0 => {
                    self.line.pop_front();
                    return Err(Failed::Format(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn below(node: &Node) -> Vec<Place> {
    let mut below = Vec::new();
    match node {
        Node::Leaf(entries) => collect(entries, &mut |id| below.push(Place::new(id))),
        Node::Index(branches) => below.extend(branches.iter().map(|branch| Place::new(branch.node))),
    }
    below
}

fn not_found(id: ObjectId) -> Failed {
    Failed::Read(TransferError::NotFound(id))
}

fn lost() -> Failed {
    Failed::Read(TransferError::Lost("reading has ended".to_owned()))
}

/// The nodes below entries in their order, through folded directories (64 levels at most, by the decoder).
fn collect(entries: &[Entry], found: &mut dyn FnMut(ObjectId)) {
    for entry in entries {
        match &entry.body {
            Body::Directory { node, .. } => found(*node),
            Body::Folded(below) => collect(below, found),
            Body::File { .. } | Body::Symlink(_) | Body::Special(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::HashMap;
    use std::sync::Mutex;

    use backhaul_object::Object;
    use backhaul_object::entry::Metadata;
    use backhaul_object::keys::IdKey;
    use backhaul_object::node::{DirectoryBuilder, write_root};

    use super::*;

    /// Objects, and how many were asked for in each read.
    #[derive(Default)]
    struct Vault {
        objects: HashMap<ObjectId, Object>,
        reads: Mutex<Vec<usize>>,
    }

    impl ObjectSource for Vault {
        fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
            self.reads.lock().unwrap().push(ids.len());
            ids.iter().map(|id| self.objects.get(id).cloned().ok_or(TransferError::NotFound(*id))).collect()
        }
    }

    fn folder(name: String) -> Entry {
        let body = Body::Folded(Vec::new());
        Entry { name: name.into_bytes(), metadata: Metadata::default(), body, extensions: Vec::new() }
    }

    /// A tree of folders, `width` in each, too large to be folded.
    fn grow(
        vault: &mut Vault,
        key: &IdKey,
        path: &str,
        depth: u32,
        width: usize,
    ) -> backhaul_object::node::Finished {
        let mut builder = DirectoryBuilder::new(key);
        let mut objects = Vec::new();
        for i in 0..width {
            if depth > 0 {
                let path = format!("{path}/{i}");
                let done = grow(vault, key, &path, depth - 1, width);
                builder.push_directory(folder(format!("d{i}")), done, &mut |id, object| {
                    objects.push((id, object))
                });
            }
        }
        for i in 0..40 {
            let body = Body::Symlink(format!("{path}/{i}/{}", "x".repeat(200)).into_bytes());
            let entry = Entry { body, ..folder(format!("s{i:02}")) };
            builder.push(entry, &mut |id, object| objects.push((id, object)));
        }
        let done = builder.finish(&mut |id, object| objects.push((id, object)));
        vault.objects.extend(objects);
        done
    }

    fn walk(vault: &Vault, root: ObjectId, into: impl Fn(&str) -> bool) -> (usize, usize, usize) {
        use super::super::walker::{Event, Start, Step, Walker};
        vault.reads.lock().unwrap().clear();
        let (mut names, mut unreadable) = (0, 0);
        let visit = &mut |path: &[u8], event: Event<'_>| {
            match event {
                Event::Entry(_) => names += 1,
                Event::Unreadable(_) => unreadable += 1,
                Event::Leave => {}
            }
            Ok::<_, ()>(if into(std::str::from_utf8(path).unwrap()) { Step::Into } else { Step::Over })
        };
        Walker::new(vault, Start::Node(root, None), Vec::new()).run(visit).unwrap();
        (names, unreadable, vault.reads.lock().unwrap().len())
    }

    #[test]
    fn a_whole_walk_needs_few_reads_a_narrow_one_little_and_one_bad_node_costs_only_itself() {
        let (mut vault, key) = (Vault::default(), IdKey::new([7; 32]));
        let done = grow(&mut vault, &key, "", 3, 6);
        let mut rest = Vec::new();
        let (root, _) = write_root(done, &key, &mut |id, object| rest.push((id, object)));
        vault.objects.extend(rest);
        // 1 + 6 + 36 + 216 folders, in each of them 40 links.
        let (names, unreadable, reads) = walk(&vault, root, |_| true);
        assert_eq!((names, unreadable), (259 * 40 + 258, 0));
        assert!(reads <= 16, "{reads} reads of {} nodes", vault.objects.len());
        let (names, _, _) = walk(&vault, root, |path| "/d3/d5/d0".starts_with(path));
        assert_eq!(names, 4 * 40 + 18);
        let read: usize = vault.reads.lock().unwrap().iter().sum();
        assert!(read <= 12, "{read} nodes were read for a way of four");

        let mut ids: Vec<ObjectId> = vault.objects.keys().copied().filter(|id| *id != root).collect();
        ids.sort();
        let lost = ids.into_iter().find(|id| {
            let node = node::decode(&vault.objects[id]).unwrap();
            matches!(node, Node::Leaf(entries) if entries.len() == 40)
        });
        vault.objects.remove(&lost.unwrap());
        let (names, unreadable, _) = walk(&vault, root, |_| true);
        assert_eq!((names, unreadable), (258 * 40 + 258, 1));
    }
}
