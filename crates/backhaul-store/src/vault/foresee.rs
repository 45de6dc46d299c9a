//! What will be read is announced, so that the system reads it in the order in which it lies, each place once, while it is
//! still being sent in the order in which it was asked for.

use super::{Vault, open_name, pack_blob};
use crate::blobs::Blobs;
use crate::index::{Location, Ordinal};

/// What lies between two objects is read along if it is no longer than this: another way there would cost more.
const GAP: u64 = 128 << 10;

/// A stretch of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    pack: u32,
    from: u64,
    to: u64,
}

/// By pack and offset, neighbours together.
fn stretches(mut places: Vec<Location>) -> Vec<Stretch> {
    places.retain(|at| at.len > 0);
    places.sort_unstable_by_key(|at| (at.pack, at.offset));
    let mut all: Vec<Stretch> = Vec::new();
    for at in places {
        let (from, to) = (u64::from(at.offset), u64::from(at.offset) + u64::from(at.len));
        match all.last_mut() {
            Some(last) if last.pack == at.pack && from <= last.to.saturating_add(GAP) => {
                last.to = last.to.max(to);
            }
            _ => all.push(Stretch { pack: at.pack, from, to }),
        }
    }
    all
}

impl Vault {
    /// Where objects are; of those that are not there, or without a number, nothing.
    pub fn places(&self, ordinals: &[Option<Ordinal>]) -> Vec<Option<Location>> {
        let some = |ordinals: &[Option<Ordinal>]| -> Vec<Option<Location>> {
            let state = self.state();
            let place = |ordinal: &Option<Ordinal>| state.index.location((*ordinal)?).ok();
            ordinals.iter().map(|ordinal| place(ordinal).filter(|at| at.len > 0)).collect()
        };
        // Whoever else needs the state gets it in between.
        ordinals.chunks(1_024).flat_map(some).collect()
    }

    /// Says which objects will be read next; whether that helps is the system's affair.
    pub fn foresee(&self, ordinals: &[Option<Ordinal>]) {
        let places = self.places(ordinals).into_iter().flatten().collect();
        for Stretch { pack, from, to } in stretches(places) {
            let sealed = self.state().packs.get(&pack).and_then(|row| row.name);
            match sealed {
                Some(name) => self.shared.blobs.will_read(&pack_blob(&name), from, to - from),
                None => self.shared.spool.will_read(&open_name(pack), from, to - from),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_go_by_pack_and_offset_and_neighbours_are_one() {
        let at = |pack, offset, len| Location { pack, offset, len };
        let far = 1_000 + GAP as u32 + 1;
        let places =
            vec![at(2, 50, 10), at(1, far, 5), at(1, 0, 400), at(1, 500, 500), at(1, 7, 0), at(2, 40, 15)];
        let expected = [
            Stretch { pack: 1, from: 0, to: 1_000 },
            Stretch { pack: 1, from: far.into(), to: u64::from(far) + 5 },
            Stretch { pack: 2, from: 40, to: 60 },
        ];
        assert_eq!(stretches(places), expected);
        assert!(stretches(vec![]).is_empty());
    }
}
