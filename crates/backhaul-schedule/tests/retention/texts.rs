//! Policy texts, right and wrong, down to what they drop.

use std::collections::BTreeMap;

use backhaul_schedule::policy::{Policies, PolicyError, parse};

use super::*;

/// What a term of `keep` says when it can be meant.
#[derive(Debug, Clone)]
enum Means {
    Last(u32),
    Periods(usize, u32),
    Within(i64),
    Tags(BTreeSet<String>),
    Grace(i64),
    Utc,
    Berlin,
    Forever(bool),
}

/// A line of a policy text; one that means nothing is to be refused.
#[derive(Debug, Clone)]
struct Term {
    key: &'static str,
    value: String,
    means: Option<Means>,
}

/// Numbers as they may be written, and what `u32` makes of them: small ones, and all that is too much, too little or none.
fn number() -> impl Strategy<Value = (String, Option<u32>)> {
    let odd: [(&str, Option<u32>); 14] = [
        ("0", Some(0)),
        ("-0", Some(0)),
        ("+5", Some(5)),
        ("1_000", Some(1_000)),
        ("0x10", Some(16)),
        ("4294967295", Some(u32::MAX)),
        ("4294967296", None),
        ("9223372036854775807", None),
        ("99999999999999999999999", None),
        ("-1", None),
        ("-9223372036854775808", None),
        ("2.5", None),
        ("\"3\"", None),
        ("nan", None),
    ];
    prop_oneof![
        2 => (0..40_u32).prop_map(|number| (number.to_string(), Some(number))),
        1 => prop::sample::select(odd.to_vec()).prop_map(|(text, number)| (text.to_owned(), number)),
    ]
}

fn term() -> impl Strategy<Value = Term> {
    let counts = [("last", 0), ("hourly", 0), ("daily", 1), ("weekly", 2), ("monthly", 3), ("yearly", 4)];
    let count =
        (prop::sample::select(counts.to_vec()), number()).prop_map(|((key, unit), (value, number))| {
            let means =
                |number| if key == "last" { Means::Last(number) } else { Means::Periods(unit, number) };
            Term { key, value, means: number.map(means) }
        });
    let tags = |tags: &[&str]| Some(Means::Tags(tags.iter().map(|tag| (*tag).to_owned()).collect()));
    let others: Vec<(&'static str, &str, Option<Means>)> = vec![
        ("within", "\"30d\"", Some(Means::Within(30 * DAY))),
        ("within", "\"1s\"", Some(Means::Within(1))),
        ("within", "\"4294967295d\"", Some(Means::Within(4_294_967_295 * DAY))),
        ("within", "\"4294967296d\"", None),
        ("within", "\"0d\"", None),
        ("within", "\"-3d\"", None),
        ("within", "\"for ever\"", None),
        ("within", "30", None),
        ("tags", "[\"keep-me\"]", tags(&["keep-me"])),
        ("tags", "[\"keep-me\", \"nobody\"]", tags(&["keep-me", "nobody"])),
        ("tags", "[]", tags(&[])),
        ("tags", "[\" \"]", None),
        ("tags", "\"keep-me\"", None),
        ("grace", "\"1d\"", Some(Means::Grace(DAY))),
        ("grace", "\"365d\"", Some(Means::Grace(365 * DAY))),
        ("grace", "\"23h\"", None),
        ("grace", "\"366d\"", None),
        ("grace", "\"4294967295d\"", None),
        ("tz", "\"server\"", Some(Means::Utc)),
        ("tz", "\"Europe/Berlin\"", Some(Means::Berlin)),
        ("tz", "\"Nowhere/Land\"", None),
        ("forever", "true", Some(Means::Forever(true))),
        ("forever", "false", Some(Means::Forever(false))),
        ("forever", "1", None),
        ("lst", "3", None),
        ("dayly", "14", None),
        ("keep_last", "3", None),
        ("minutely", "0", None),
        ("\"daily \"", "14", None),
    ];
    let other = prop::sample::select(others).prop_map(|(key, value, means)| Term {
        key,
        value: value.to_owned(),
        means,
    });
    prop_oneof![2 => count, 1 => other]
}

/// A policy's text, and what it says.
fn policy_text() -> impl Strategy<Value = (String, Vec<Term>)> {
    prop::collection::vec(term(), 0..6).prop_map(|terms| {
        let lines: String = terms.iter().map(|term| format!("{} = {}\n", term.key, term.value)).collect();
        (format!("[policy.default.keep]\n{lines}"), terms)
    })
}

fn read(text: &str) -> Result<Policies, PolicyError> {
    parse(text, &|name| name.map_or(Some(TimeZone::UTC), |name| TimeZone::get(name).ok()))
}

/// What the terms say together, or one of which words a refusal has to have. No term at all says the default.
fn meant(terms: &[Term]) -> Result<Keep, Vec<&'static str>> {
    let mut said = BTreeMap::new();
    let mut refused: Vec<&'static str> = Vec::new();
    for term in terms {
        match &term.means {
            Some(means) if said.insert(term.key, means.clone()).is_none() => {}
            _ => refused.push(term.key),
        }
    }
    if !refused.is_empty() {
        // A contradiction beside it may be told as well as it.
        if matches!(said.get("forever"), Some(Means::Forever(true))) {
            refused.push("keep.forever");
        }
        return Err(refused);
    }
    let mut keep = Keep::default();
    let (mut last, mut counts, mut within, mut tags) = (0, [0; 5], None, BTreeSet::new());
    let (mut forever, mut rules) = (None, 0);
    for means in said.into_values() {
        rules +=
            usize::from(!matches!(means, Means::Grace(_) | Means::Utc | Means::Berlin | Means::Forever(_)));
        match means {
            Means::Last(number) => last = number,
            Means::Periods(unit, number) => counts[unit] = number,
            Means::Within(seconds) => within = Some(seconds),
            Means::Tags(all) => tags = all,
            Means::Grace(seconds) => keep.grace = seconds,
            Means::Utc => {}
            Means::Berlin => keep.zone = TimeZone::get("Europe/Berlin").unwrap(),
            Means::Forever(is_so) => forever = Some(is_so),
        }
    }
    let keeps_any = last > 0 || within.is_some() || counts.iter().any(|count| *count > 0);
    match (forever, rules) {
        (Some(true), 0) => keep.rules = Rules::Forever,
        (Some(true), _) => return Err(vec!["keep.forever"]),
        (None, 0) => {}
        _ if !keeps_any => return Err(vec!["keep = "]),
        _ => {
            let Rules::Some { periods, .. } = Rules::of(0, counts) else { unreachable!() };
            keep.rules = Rules::Some { last, periods, within, tags };
        }
    }
    Ok(keep)
}

/// What no text can drop: the newest whole ones, of fewer the newest others, and what somebody has pinned.
fn untouchable(snapshots: &[Snapshot]) -> BTreeSet<u64> {
    let of = |wanted| snapshots.iter().rev().filter(move |snapshot| snapshot.completeness == wanted);
    let floor = of(Completeness::Complete).chain(of(Completeness::Partial)).take(FLOOR);
    let pinned = snapshots.iter().filter(|snapshot| snapshot.pinned == Pinned::Yes);
    floor.chain(pinned).map(|snapshot| snapshot.sequence).collect()
}

/// The same rules, with no number above one that no history here has so many of.
fn clamped(keep: &Keep) -> Keep {
    let Rules::Some { last, mut periods, within, tags } = keep.rules.clone() else { return keep.clone() };
    periods.iter_mut().for_each(|(_, count)| *count = (*count).min(100));
    Keep { rules: Rules::Some { last: last.min(100), periods, within, tags }, ..keep.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    /// From the text to what is dropped: it is refused and the term is named, or it means what it says, drops nothing of the
    /// floor, nothing that the model keeps, and by no number, however large, more than by a smaller one.
    #[test]
    fn a_policy_text_is_refused_by_its_term_or_keeps_what_it_says(
        (text, terms) in policy_text(), snapshots in history(),
        start in 0..3 * YEAR, gaps in prop::collection::vec(60..20 * DAY, 0..40), tagged in any::<prop::sample::Index>(),
    ) {
        let keep = match (read(&text), meant(&terms)) {
            (Err(error), Err(words)) => {
                let told = error.to_string();
                prop_assert!(words.iter().any(|word| told.contains(word)), "{text}\n{told}\nnames none of {words:?}");
                return Ok(());
            }
            (Ok(policies), Ok(keep)) => {
                let found = policies.policy("default").keep;
                prop_assert_eq!((&found.rules, found.grace), (&keep.rules, keep.grace), "{}", text);
                found
            }
            (found, meant) => return Err(TestCaseError::fail(format!("{text}\n{found:?}\nbut {meant:?}"))),
        };
        let all = kept(&keep, &snapshots);
        prop_assert!(untouchable(&snapshots).is_subset(&all), "{text}\n{all:?}");
        prop_assert!(kept(&clamped(&keep), &snapshots).is_subset(&all), "{text}\n{all:?}");
        let mut at = MONDAY + start;
        let mut calm: Vec<Snapshot> = (1..).zip(gaps).map(|(i, gap)| { at += gap; plain(i, at) }).collect();
        let mut expected = BTreeSet::new();
        if !calm.is_empty() {
            let tagged = tagged.index(calm.len());
            calm[tagged].tags = vec!["keep-me".to_owned()];
        }
        match &keep.rules {
            Rules::Forever => expected.extend(calm.iter().map(|snapshot| snapshot.sequence)),
            Rules::Some { last, periods, within, tags } => {
                // The model has no zones.
                let counts = periods.map(|(_, count)| if keep.zone == TimeZone::UTC { count } else { 0 });
                expected.extend(model(*last as usize, counts, within.unwrap_or(0), &calm));
                let has_tag = |snapshot: &&Snapshot| snapshot.tags.iter().any(|tag| tags.contains(tag));
                expected.extend(calm.iter().filter(has_tag).map(|snapshot| snapshot.sequence));
            }
        }
        let found = kept(&keep, &calm);
        prop_assert!(expected.is_subset(&found), "{text}\n{expected:?}\n{found:?}");
        prop_assert!(keep.zone != TimeZone::UTC || expected == found, "{text}\n{expected:?}\n{found:?}");
    }

    /// A text into which something has got by mistake, at any place, is refused in words or drops nothing of the floor.
    #[test]
    fn a_garbled_policy_text_never_goes_below_the_floor(
        (text, _) in policy_text(), place in any::<prop::sample::Index>(), cut in 0..6_usize, garbage in "[ -~\n\u{e4}\u{0}]{0,6}",
        snapshots in history(),
    ) {
        let at = place.index(text.len());
        let rest = text.get(at + cut..).unwrap_or_default();
        let garbled = format!("{}{garbage}{rest}", &text[..at]);
        match read(&garbled) {
            Err(error) => prop_assert!(!error.to_string().trim().is_empty()),
            Ok(policies) => {
                for policy in policies.policies.values() {
                    let all = kept(&policy.keep, &snapshots);
                    prop_assert!(untouchable(&snapshots).is_subset(&all), "{garbled}\n{all:?}");
                    prop_assert!((DAY..=365 * DAY).contains(&policy.keep.grace), "{garbled}");
                }
            }
        }
    }
}
