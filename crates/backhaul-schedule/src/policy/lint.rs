//! What a policy file may say and is still unwise: clients that cannot be protected by it.

use std::collections::BTreeMap;

use super::{Group, Policies, units};

/// Length of a run where none was measured yet, in seconds.
const RUN: u64 = 5 * 60;
const DAY: i64 = 86_400;

/// A client, as far as the sums need it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its policy's name.
    pub policy: String,
    /// Its network.
    pub group: Group,
    /// Its vault's name.
    pub vault: String,
    /// Seconds that its runs take, where that is known.
    pub duration: Option<u64>,
}

/// Runs that have to go through one bound in one period.
#[derive(Default)]
struct Load {
    clients: usize,
    seconds: u64,
    /// The shortest time that they have for it.
    open: i64,
}

/// Warns of every bound through which its clients' runs do not fit, one sentence each.
pub fn lint(policies: &Policies, members: &[Member]) -> Vec<String> {
    let mut loads: BTreeMap<(String, usize), Load> = BTreeMap::new();
    for member in members {
        let policy = policies.policy(&member.policy);
        let open = policy.window.as_ref().map_or(policy.period, |window| window.length().min(policy.period));
        let mut add = |name: String, cap: usize| {
            let load = loads.entry((name, cap)).or_insert_with(|| Load { open: DAY, ..Load::default() });
            load.clients += 1;
            load.seconds += member.duration.unwrap_or(RUN);
            load.open = load.open.min(open);
        };
        add("all clients".to_owned(), policies.admission.slots);
        if let Some(cap) = policies.admission.per_vault.get(&member.vault) {
            add(format!("the clients of vault {:?}", member.vault), *cap);
        }
        if let Some(cap) = policies.admission.group_cap(&member.group) {
            add(format!("the clients of network group {:?}", member.group.name()), cap);
        }
    }
    loads.into_iter().filter_map(|((name, cap), load)| warn(&name, cap, &load)).collect()
}

fn warn(name: &str, cap: usize, load: &Load) -> Option<String> {
    let capacity = cap as u64 * load.open.unsigned_abs();
    let needed = load.seconds.div_ceil(load.open.unsigned_abs().max(1));
    (load.seconds > capacity).then(|| {
        format!(
            "{name} ({}) need {} of runs within {}, and have {cap} at once: some will starve; {needed} would do",
            load.clients,
            units::about(load.seconds as i64),
            units::about(load.open),
        )
    })
}

impl super::Admission {
    /// Runs at once in a group; none where only the slots bound it.
    pub fn group_cap(&self, group: &Group) -> Option<usize> {
        let named = self.per_group.get(group.name()).copied();
        named.or_else(|| group.is_remote().then_some(self.default_remote))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::parse;
    use super::*;

    #[test]
    fn a_group_that_would_starve_is_named_with_what_it_needs() {
        let text = "[policy.lab]\nspread = \"10m\"\nwindow = { from = \"22:00\", to = \"23:00\" }\n[admission]\nslots = 40\nper_group = { lab = 2 }";
        let policies = parse(text, &|_| Some(jiff::tz::TimeZone::UTC)).unwrap();
        let member = |group: &str| Member {
            policy: "lab".to_owned(),
            group: Group::named(group),
            vault: "main".to_owned(),
            duration: None,
        };
        let members: Vec<Member> = (0..30).map(|_| member("lab")).collect();
        let warnings = lint(&policies, &members);
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("\"lab\" (30)") && warnings[0].contains("3 would do"), "{warnings:?}");
        assert_eq!(lint(&policies, &members[..20]), Vec::<String>::new());
    }
}
