//! Patches: a chunk written as a difference to older contents.
//!
//! A patch is another form of a chunk, not another object: its header has the chunk's id and proof, and names the chunks and bundles
//! that it copies from (its *bases*) as references that mark no member that there is: they are used, and not owned by that. Its
//! payload is a [`Program`] of copies and inserts. Who has the bases makes the chunk again with [`rebuild`], which believes nothing but the id.

use std::ops::Range;

use bytes::Bytes;

use crate::bundle;
use crate::codec::{FormatError, Reader, Write};
use crate::header::{Header, Kind, MEMBERS_MAX, PLAIN_MAX, Reference};
use crate::ids::ObjectId;
use crate::keys::IdKey;
use crate::seal::{Compressed, Object, Unpacker};

/// Most bases of one patch.
pub const BASES_MAX: usize = 8;
/// Most steps of one program.
pub const STEPS_MAX: usize = 65_536;

/// A reference to a base that is a chunk: it keeps the base, and gives nobody who has the patch a right to read it.
pub fn base(id: ObjectId) -> Reference {
    marked(id, 0)
}

/// A reference to a base that is a bundle with so many members: it marks one behind the last, which gives no right to any. Nothing
/// where there is no room for such a mark.
pub fn base_of_members(id: ObjectId, members: usize) -> Option<Reference> {
    (members < MEMBERS_MAX).then(|| marked(id, members))
}

fn marked(id: ObjectId, member: usize) -> Reference {
    let mut reference = Reference::whole(id);
    reference.use_member(member);
    reference
}

/// How many members a base has by the mark of a reference to it; nothing if it is no such reference.
pub fn members_of(reference: &Reference) -> Option<usize> {
    let last = reference.members.last().filter(|last| last.is_power_of_two())?;
    let members = (reference.members.len() - 1) * 8 + last.trailing_zeros() as usize;
    let is_alone = reference.members.iter().rev().skip(1).all(|byte| *byte == 0);
    (is_alone && members < MEMBERS_MAX).then_some(members)
}

/// What a patch copies from: all of a chunk, or the contents of a bundle's members, one after the other.
///
/// # Errors
/// The object cannot be a base, is another kind of base than the reference says, or has lost members.
pub fn substance(object: &Object, reference: &Reference) -> Result<Bytes, FormatError> {
    if members_of(reference) != Some(object.provides.len()) {
        return Err(FormatError::Invalid("a base that is something else"));
    }
    match object.kind {
        Kind::Chunk => Ok(object.payload.clone()),
        Kind::Bundle => bundle::contents(object),
        _ => Err(FormatError::Invalid("a base that is not whole")),
    }
}

/// What every header of a patch keeps to.
pub(crate) fn check(header: &Header) -> Result<(), FormatError> {
    let references = &header.references;
    if references.is_empty() || references.len() > BASES_MAX {
        return Err(FormatError::Invalid("a patch has from 1 to 8 bases"));
    }
    let is_base = |(i, reference): (usize, &Reference)| {
        members_of(reference).is_some() && references[..i].iter().all(|before| before.id != reference.id)
    };
    match references.iter().enumerate().all(is_base) {
        true => Ok(()),
        false => Err(FormatError::Invalid("a patch has bases and nothing else, each once")),
    }
}

/// A part of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next literal bytes, so many.
    Insert(usize),
    /// Bytes of a base.
    Copy {
        /// Which.
        base: usize,
        /// Where they begin.
        at: usize,
        /// How many.
        len: usize,
    },
}

/// How a chunk is made of its bases and of literal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Program {
    steps: Vec<Step>,
    literals: Bytes,
}

/// A program that is being written, from the chunk's begin to its end.
#[derive(Debug, Default)]
pub struct Writing {
    steps: Vec<Step>,
    literals: Vec<u8>,
}

impl Writing {
    /// Literal bytes come next.
    pub fn insert(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.literals.extend_from_slice(bytes);
        match self.steps.last_mut() {
            Some(Step::Insert(len)) => *len += bytes.len(),
            _ => self.steps.push(Step::Insert(bytes.len())),
        }
    }

    /// Bytes of a base come next.
    pub fn copy(&mut self, base: usize, at: usize, len: usize) {
        match self.steps.last_mut() {
            Some(Step::Copy { base: same, at: from, len: before })
                if *same == base && *from + *before == at =>
            {
                *before += len;
            }
            _ => self.steps.push(Step::Copy { base, at, len }),
        }
    }

    /// Literal bytes so far.
    pub fn literals(&self) -> usize {
        self.literals.len()
    }

    /// The program with only those bases that it uses, renumbered in their order, and which these are.
    pub fn finish(mut self, bases: usize) -> (Program, Vec<usize>) {
        let is_used = |number: &usize| {
            self.steps.iter().any(|step| matches!(step, Step::Copy { base, .. } if base == number))
        };
        let used: Vec<usize> = (0..bases).filter(is_used).collect();
        for step in &mut self.steps {
            if let Step::Copy { base, .. } = step {
                *base = used.iter().position(|number| number == base).unwrap_or_default();
            }
        }
        (Program { steps: self.steps, literals: Bytes::from(self.literals) }, used)
    }
}

impl Program {
    /// Bytes of the chunk.
    pub fn len(&self) -> usize {
        let len = |step: &Step| match step {
            Step::Insert(len) | Step::Copy { len, .. } => *len,
        };
        self.steps.iter().map(len).sum()
    }

    /// True if it makes nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Literal bytes.
    pub fn literals(&self) -> usize {
        self.literals.len()
    }

    /// How many steps it takes.
    pub fn steps(&self) -> usize {
        self.steps.len()
    }

    /// The stretch of each base within which all is that is copied from it.
    pub fn stretches(&self, bases: usize) -> Vec<Range<usize>> {
        let mut stretches: Vec<Option<Range<usize>>> = vec![None; bases];
        for step in &self.steps {
            if let Step::Copy { base, at, len } = *step
                && let Some(stretch) = stretches.get_mut(base)
            {
                let before = stretch.take().unwrap_or(at..at + len);
                *stretch = Some(before.start.min(at)..before.end.max(at + len));
            }
        }
        // Every base is used: the format says so.
        stretches.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// The payload of a patch (docs/format.md, "Payloads").
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + 6 * self.steps.len() + self.literals.len());
        out.put_varint(self.len() as u64);
        let mut ends = [0; BASES_MAX];
        for step in &self.steps {
            match *step {
                Step::Insert(len) => out.put_varint((len as u64) << 1),
                Step::Copy { base, at, len } => {
                    out.put_varint((len as u64) << 1 | 1);
                    out.put_varint(base as u64);
                    out.put_signed(at as i64 - ends[base % BASES_MAX] as i64);
                    ends[base % BASES_MAX] = at + len;
                }
            }
        }
        out.extend_from_slice(&self.literals);
        out
    }

    /// Reads a payload: memory is bounded by it and by [`STEPS_MAX`], whatever it declares.
    ///
    /// # Errors
    /// It makes another length than it says, copies from a base that there is not, or is not canonical.
    pub fn decode(payload: &Bytes, bases: usize) -> Result<Self, FormatError> {
        let bases = bases.min(BASES_MAX);
        let mut r = Reader::new(payload);
        let len = r.count("patched length", PLAIN_MAX)?;
        let (mut steps, mut made, mut literals) = (Vec::new(), 0, 0);
        let mut ends: [Option<usize>; BASES_MAX] = [None; BASES_MAX];
        while made < len {
            let step = read_step(&mut r, &mut ends[..bases], len - made)?;
            match (steps.last(), step) {
                (Some(Step::Insert(_)), Step::Insert(_)) => {
                    return Err(FormatError::Invalid("two inserts that are one"));
                }
                (Some(Step::Copy { base, at, len }), Step::Copy { base: next, at: from, .. })
                    if *base == next && at + len == from =>
                {
                    return Err(FormatError::Invalid("two copies that are one"));
                }
                _ => {}
            }
            match step {
                Step::Insert(len) => {
                    (made, literals) = (made + len, literals + len);
                }
                Step::Copy { len, .. } => made += len,
            }
            if steps.len() == STEPS_MAX {
                let (value, limit) = (STEPS_MAX as u64 + 1, STEPS_MAX as u64);
                return Err(FormatError::TooLarge { what: "steps of a patch", value, limit });
            }
            steps.push(step);
        }
        if ends[..bases].iter().any(Option::is_none) {
            return Err(FormatError::Invalid("a base that a patch does not use"));
        }
        if r.clone().rest().len() != literals {
            return Err(FormatError::Invalid("a patch has not as many literal bytes as it inserts"));
        }
        let literals = payload.slice(payload.len() - literals..);
        Ok(Self { steps, literals })
    }

    /// Puts the literal bytes into their places.
    fn put_literals(&self, out: &mut [u8]) {
        let (mut at, mut from) = (0, 0);
        for step in &self.steps {
            match *step {
                Step::Insert(len) => {
                    out[at..at + len].copy_from_slice(&self.literals[from..from + len]);
                    (at, from) = (at + len, from + len);
                }
                Step::Copy { len, .. } => at += len,
            }
        }
    }

    /// Puts what is copied from one base into its places.
    fn put_copies(&self, number: usize, content: &[u8], out: &mut [u8]) -> Result<(), FormatError> {
        let mut at = 0;
        for step in &self.steps {
            match *step {
                Step::Copy { base, at: from, len } => {
                    if base == number {
                        let bytes = content.get(from..from + len);
                        let bytes = bytes.ok_or(FormatError::Invalid("a patch copies past its base"))?;
                        out[at..at + len].copy_from_slice(bytes);
                    }
                    at += len;
                }
                Step::Insert(len) => at += len,
            }
        }
        Ok(())
    }
}

/// One step of at most `left` bytes. `ends` says where the last copy from each base ended.
fn read_step(r: &mut Reader<'_>, ends: &mut [Option<usize>], left: usize) -> Result<Step, FormatError> {
    let word = r.count("step of a patch", PLAIN_MAX << 1 | 1)?;
    let len = word >> 1;
    if len == 0 || len > left {
        return Err(FormatError::Invalid("a patch makes another length than it says"));
    }
    if word & 1 == 0 {
        return Ok(Step::Insert(len));
    }
    let base = r.count("base of a patch", ends.len().saturating_sub(1))?;
    let end = ends.get_mut(base).ok_or(FormatError::Invalid("a patch without bases copies"))?;
    let at = (end.unwrap_or(0) as i64).checked_add(r.signed("place in a base")?);
    let at = at.and_then(|at| usize::try_from(at).ok()).filter(|at| at + len <= PLAIN_MAX);
    let at = at.ok_or(FormatError::Invalid("a patch copies past its base"))?;
    *end = Some(at + len);
    Ok(Step::Copy { base, at, len })
}

/// Unpacks what is a base. It is not hashed again: what is made of it is.
///
/// # Errors
/// It is no chunk and no bundle, or cannot be unpacked.
pub fn unpack_base(stored: &Compressed, unpacker: &mut Unpacker) -> Result<Object, FormatError> {
    match stored.header.kind {
        Kind::Chunk | Kind::Bundle => stored.unpack(unpacker),
        _ => Err(FormatError::Invalid("a base that is not whole")),
    }
}

/// How a patch is made of its bases.
///
/// # Errors
/// It is no patch, or breaks the format.
pub fn program_of(patch: &Compressed, unpacker: &mut Unpacker) -> Result<Program, FormatError> {
    if patch.header.kind != Kind::Patch {
        return Err(FormatError::Invalid("not a patch"));
    }
    Program::decode(&patch.unpack(unpacker)?.payload, patch.header.references.len())
}

/// Makes the chunk that a patch stands for. `fetch` gives the [`substance`] of a base; one at a time is in memory, and the chunk.
///
/// # Errors
/// A base cannot be had; the program breaks the format; or ([`FormatError::Mismatch`]) what it makes has another id.
pub fn rebuild<E: From<FormatError>>(
    patch: &Compressed,
    key: &IdKey,
    unpacker: &mut Unpacker,
    fetch: &mut dyn FnMut(&Reference, &mut Unpacker) -> Result<Bytes, E>,
) -> Result<Object, E> {
    let references = &patch.header.references;
    let program = program_of(patch, unpacker)?;
    let mut content = vec![0; program.len()];
    program.put_literals(&mut content);
    for (number, reference) in references.iter().enumerate() {
        program.put_copies(number, &fetch(reference, unpacker)?, &mut content)?;
    }
    let payload = Bytes::from(content);
    let chunk = Object { kind: Kind::Chunk, references: vec![], provides: vec![], payload };
    match chunk.identify(key) == (patch.header.id, patch.header.proof) {
        true => Ok(chunk),
        false => Err(FormatError::Mismatch("what the patch makes").into()),
    }
}
