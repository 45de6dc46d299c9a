//! Which packs go, and which are written anew without what is dead: pure.

use backhaul_object::ids::ClientId;

use crate::pack::Class;

/// A pack in which less than one in so many bytes is dead is left alone while the vault as a whole has little waste.
const WASTE_MAX: u64 = 10;

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
/// that cost least for what they free, until at most a tenth of the vault is dead.
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
    for pack in rest {
        let mostly_dead = pack.live < pack.dead();
        // A footer alone is no reason.
        let worthwhile = pack.dead() > pack.bytes / WASTE_MAX;
        if mostly_dead || (worthwhile && waste > total / WASTE_MAX) {
            waste -= pack.dead();
            total -= pack.dead();
            chosen.push(pack);
        }
    }
    chosen.sort_by_key(|pack| (pack.client, pack.class as u8, pack.number));
    let mut compact: Vec<Vec<PackUse>> = Vec::new();
    for pack in chosen {
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
    Plan { dead, compact }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn pack(number: u32, client: u8, bytes: u64, live: u64) -> PackUse {
        let class = if number.is_multiple_of(3) { Class::Meta } else { Class::Data };
        PackUse { number, class, client: ClientId([client; 16]), bytes, live, objects: live.min(1) }
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
                prop_assert!(!goes || pack.live < pack.bytes, "whole and goes");
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
