//! Which packs go, and which are written anew without what is dead: pure.

use std::collections::BTreeMap;

use backhaul_object::ids::ClientId;

use crate::pack::Class;

/// A pack in which less than one in so many bytes is dead is left alone while the vault as a whole has little waste.
const WASTE_MAX: u64 = 10;
/// So many packs of about one size become one; so does a pack that is larger than this part of a full one no more.
const MERGED: u64 = 8;

/// A sealed pack and what of it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// Its number.
    pub number: u32,
    /// What it holds.
    pub class: Class,
    /// Whose.
    pub client: ClientId,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of records that are needed.
    pub live: u64,
    /// Records that are needed.
    pub objects: u64,
    /// How its session stands.
    pub session: Session,
}

/// How the session that wrote a pack stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// A snapshot came of it, or nothing will.
    Over,
    /// It may be gone on with: what is in its packs is needed because it is there.
    Open,
}

impl PackUse {
    fn dead(&self) -> u64 {
        self.bytes.saturating_sub(self.live)
    }
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Packs in which nothing is needed.
    pub dead: Vec<PackUse>,
    /// Packs whose needed records go into a new one, which is of one client and class like them.
    pub compact: Vec<Vec<PackUse>>,
}

impl Plan {
    /// All packs that will be no more.
    pub fn packs(&self) -> impl Iterator<Item = &PackUse> {
        self.dead.iter().chain(self.compact.iter().flatten())
    }

    /// Bytes that become free.
    pub fn freed(&self) -> u64 {
        self.packs().map(PackUse::dead).sum()
    }
}

/// Packs without anything needed go. Packs that are more than half dead are compacted, and further ones, those first
/// that cost least for what they free, until at most a tenth of the vault is dead. Of the rest small ones are merged.
pub fn plan(packs: &[PackUse]) -> Plan {
    let (dead, mut rest): (Vec<PackUse>, Vec<PackUse>) = packs.iter().partition(|pack| pack.live == 0);
    // By live bytes per dead byte; cross-multiplied, so that nothing is rounded.
    rest.sort_by(|a, b| {
        let cost = |x: &PackUse, y: &PackUse| u128::from(x.live) * u128::from(y.dead());
        cost(a, b).cmp(&cost(b, a)).then(a.number.cmp(&b.number))
    });
    let mut total: u64 = rest.iter().map(|pack| pack.bytes).sum();
    let mut waste: u64 = rest.iter().map(PackUse::dead).sum();
    let mut chosen = Vec::new();
    let mut whole = Vec::new();
    for pack in rest {
        let mostly_dead = pack.live < pack.dead();
        // A footer alone is no reason.
        let worthwhile = pack.dead() > pack.bytes / WASTE_MAX;
        if mostly_dead || (worthwhile && waste > total / WASTE_MAX) {
            waste -= pack.dead();
            total -= pack.dead();
            chosen.push(pack);
        } else {
            whole.push(pack);
        }
    }
    let mut compact = groups(chosen);
    compact.extend(small(whole).into_iter().flat_map(groups).filter(|group| group.len() > 1));
    Plan { dead, compact }
}

/// Small packs that are worth merging: at least [`MERGED`] of one client, class and order of size. So what is in them is
/// copied a few times in its life and not every night.
fn small(packs: Vec<PackUse>) -> Vec<Vec<PackUse>> {
    let mut alike: BTreeMap<(ClientId, u8, u32), Vec<PackUse>> = BTreeMap::new();
    for pack in packs {
        if pack.session == Session::Over && pack.bytes <= pack.class.target() / MERGED {
            let order = pack.bytes.max(1).ilog2() / MERGED.ilog2();
            alike.entry((pack.client, pack.class as u8, order)).or_default().push(pack);
        }
    }
    alike.into_values().filter(|packs| packs.len() as u64 >= MERGED).collect()
}

/// Packs by what fits into one.
fn groups(mut packs: Vec<PackUse>) -> Vec<Vec<PackUse>> {
    packs.sort_by_key(|pack| (pack.client, pack.class as u8, pack.number));
    let mut compact: Vec<Vec<PackUse>> = Vec::new();
    for pack in packs {
        let fits = |group: &Vec<PackUse>| {
            let together: u64 = group.iter().map(|pack| pack.live).sum();
            let alike = group.iter().all(|other| (other.client, other.class) == (pack.client, pack.class));
            alike && together + pack.live <= pack.class.target()
        };
        match compact.last_mut().filter(|group| fits(group)) {
            Some(group) => group.push(pack),
            None => compact.push(vec![pack]),
        }
    }
    compact
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn pack(number: u32, client: u8, bytes: u64, live: u64) -> PackUse {
        let class = if number.is_multiple_of(3) { Class::Meta } else { Class::Data };
        PackUse {
            number,
            class,
            client: ClientId([client; 16]),
            bytes,
            live,
            objects: live.min(1),
            session: Session::Over,
        }
    }

    /// A pack of a megabyte, all of it needed.
    fn nightly(number: u32, client: u8) -> PackUse {
        PackUse { live: (1 << 20) - 88, class: Class::Data, ..pack(number, client, 1 << 20, 1) }
    }

    #[test]
    fn small_packs_become_one_when_there_are_enough_and_only_those_of_one_client() {
        let nights = |count: u32, client| (1..=count).map(move |n| nightly(n, client)).collect::<Vec<_>>();
        assert_eq!(plan(&nights(7, 1)), Plan::default());
        let mixed = [nights(7, 1), nights(7, 2)].concat();
        assert_eq!(plan(&mixed), Plan::default(), "of two clients");
        let eight = nights(8, 1);
        assert_eq!(plan(&eight).compact, std::slice::from_ref(&eight));
        // One of which a session may go on stays, and then there are not enough.
        let mut open = eight;
        open[3].session = Session::Open;
        assert_eq!(plan(&open), Plan::default());
        // What came of it is of another order, and waits for seven like it.
        let merged = PackUse { bytes: 8 << 20, live: (8 << 20) - 200, ..nightly(9, 1) };
        assert_eq!(plan(&[vec![merged], nights(7, 1)].concat()), Plan::default());
    }

    /// A small pack each night for ten years: few are there at any time, and nothing is copied often.
    #[test]
    fn ten_years_of_small_packs_stay_few_and_are_copied_seldom() {
        let (mut packs, mut number, mut written, mut copied) = (Vec::<PackUse>::new(), 0, 0, 0);
        for night in 0..3_650_u64 {
            number += 1;
            let bytes = 40_000 + night * 7_919 % 300_000;
            packs.push(PackUse { bytes, live: bytes - 88, ..nightly(number, 1) });
            written += bytes;
            for group in plan(&packs).compact {
                packs.retain(|pack| !group.contains(pack));
                number += 1;
                let live: u64 = group.iter().map(|pack| pack.live).sum();
                packs.push(PackUse { bytes: live + 88, live, ..nightly(number, 1) });
                copied += live;
            }
            assert!(packs.len() < 8 * 4 + night as usize / 40, "{} after {night} nights", packs.len());
        }
        assert!(copied < 4 * written, "{copied} of {written}");
    }

    #[test]
    fn dead_packs_go_mostly_dead_ones_are_compacted_and_whole_ones_stay() {
        let packs = [pack(1, 1, 1_000, 0), pack(2, 1, 1_000, 300), pack(4, 1, 10_000, 9_900)];
        let plan = plan(&packs);
        assert_eq!(plan.dead, [packs[0]]);
        assert_eq!(plan.compact, [vec![packs[1]]]);
        assert_eq!(plan.freed(), 1_700);
    }

    proptest! {
        #[test]
        fn every_plan_leaves_little_waste_and_mixes_nothing(
            sizes in proptest::collection::vec((0u8..3, 100u64..(64 << 20), 0u64..=100), 0..60)
        ) {
            let packs: Vec<PackUse> = sizes.iter().enumerate()
                .map(|(i, (client, bytes, percent))| pack(i as u32, *client, *bytes, bytes * percent / 100))
                .collect();
            let plan = plan(&packs);
            let going: Vec<u32> = plan.packs().map(|pack| pack.number).collect();
            let mut once = going.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), going.len());
            for pack in &packs {
                let goes = going.contains(&pack.number);
                prop_assert!(goes || pack.live * 2 >= pack.bytes, "half dead and stays");
                let small = pack.bytes <= pack.class.target() / MERGED;
                prop_assert!(!goes || pack.live < pack.bytes || small, "whole and goes");
                prop_assert_eq!(pack.live == 0, plan.dead.contains(pack));
            }
            for group in &plan.compact {
                prop_assert!(group.iter().all(|p| (p.client, p.class) == (group[0].client, group[0].class)));
                let together: u64 = group.iter().map(|p| p.live).sum();
                prop_assert!(group.len() == 1 || together <= group[0].class.target());
            }
            let stay: Vec<&PackUse> = packs.iter().filter(|pack| !going.contains(&pack.number)).collect();
            let after: u64 = stay.iter().map(|pack| pack.bytes).sum::<u64>()
                + plan.compact.iter().flatten().map(|pack| pack.live).sum::<u64>();
            let waste: u64 = stay.iter().map(|pack| pack.bytes - pack.live).sum();
            prop_assert!(waste <= after / WASTE_MAX + stay.len() as u64 + after / 100, "{} of {}", waste, after);
        }
    }
}
