//! From the text to [`Policies`]; the first mistake is named.

use std::collections::BTreeMap;

use jiff::civil::Time;
use jiff::tz::TimeZone;

use super::file::{AdmissionText, CheckInText, FileText, GatesText, PolicyText, RolloutText, WindowText};
use super::{
    Admission, AgentTerms, DAY, DEFAULT_POLICY, Initiator, Policies, Policy, PolicyError, Prefix, Rules,
    WaveText, Window, keep, units,
};

/// Finds time zones by name, and the server's own without one.
pub type Zones<'z> = dyn Fn(Option<&str>) -> Option<TimeZone> + 'z;

const DURATION: &str = "say 1d, 4h, 30m or 90s";
const SIZE: &str = "say 500kB, 200MiB or 1GiB";

/// Where a value stands, for errors.
pub(super) struct Place(String);

impl Place {
    pub(super) fn error(&self, key: &'static str, value: impl ToString, why: &'static str) -> PolicyError {
        PolicyError::Value { place: self.0.clone(), key, value: value.to_string(), why }
    }

    pub(super) fn seconds(
        &self,
        key: &'static str,
        text: Option<&str>,
        default: i64,
    ) -> Result<i64, PolicyError> {
        let Some(text) = text else { return Ok(default) };
        units::duration(text).ok_or_else(|| self.error(key, text, DURATION))
    }

    fn size(&self, key: &'static str, text: Option<&str>) -> Result<Option<u64>, PolicyError> {
        text.map(|text| units::size(text).ok_or_else(|| self.error(key, text, SIZE))).transpose()
    }

    fn percent(&self, key: &'static str, value: Option<u8>, default: u8) -> Result<u8, PolicyError> {
        match value {
            Some(value) if value > 100 => Err(self.error(key, value, "a percentage ends at 100")),
            value => Ok(value.unwrap_or(default)),
        }
    }
}

/// Reads a policy file.
///
/// # Errors
/// [`PolicyError`] names the first mistake.
pub fn parse(text: &str, zones: &Zones<'_>) -> Result<Policies, PolicyError> {
    let file: FileText = toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
    let mut all = Policies::default();
    // The days of the policy that nobody has written are the server's, too.
    if let (Some(zone), Some(policy)) = (zones(None), all.policies.get_mut(DEFAULT_POLICY)) {
        policy.keep.zone = zone;
    }
    for (name, text) in file.policy {
        let place = Place(format!("policy {name:?}"));
        all.policies.insert(name, policy(&place, &text, zones)?);
    }
    for (name, prefixes) in file.groups {
        let place = Place("groups".to_owned());
        for text in prefixes {
            let prefix: Prefix = text.parse().map_err(|why| place.error("prefix", &text, why))?;
            all.groups.push((prefix, name.clone()));
        }
    }
    all.admission = admission(file.admission)?;
    all.rollout = file.rollout.map(rollout).transpose()?;
    Ok(all)
}

fn policy(place: &Place, text: &PolicyText, zones: &Zones<'_>) -> Result<Policy, PolicyError> {
    let default = Policy::default();
    let period = place.seconds("period", text.period.as_deref(), default.period)?;
    if period > DAY && period % DAY != 0 || period < DAY && DAY % period != 0 {
        return Err(place.error(
            "period",
            units::seconds(period),
            "days, or a part of one day: 1d, 12h, 4h, 30m",
        ));
    }
    let rpo = place.seconds("rpo", text.rpo.as_deref(), period + period / 2)?;
    if rpo < period {
        let why = "it is shorter than the period, so that every client would always be late";
        return Err(place.error("rpo", units::seconds(rpo), why));
    }
    let spread = place.seconds("spread", text.spread.as_deref(), default.spread.min(period / 4))?;
    let window = text.window.as_ref().map(|text| window(place, text, zones)).transpose()?;
    let open = window.as_ref().map_or(period, |window| window.length().min(period));
    if spread > open {
        let why = "it is longer than the window or the period: some clients' moment would never come";
        return Err(place.error("spread", units::seconds(spread), why));
    }
    let priority = text.priority.unwrap_or(default.priority);
    if !(1..=9).contains(&priority) {
        return Err(place.error("priority", priority, "from 1 (first) to 9 (last)"));
    }
    Ok(Policy {
        initiator: text.initiator.as_deref().map(|text| initiator(place, text)).transpose()?,
        period,
        rpo,
        spread,
        window,
        priority,
        alert_after: place.seconds("alert_after", text.alert_after.as_deref(), default.alert_after)?,
        agent: agent(place, text)?,
        keep: keep::keep(place, text.keep.as_ref(), period, zones)?,
    })
}

fn initiator(place: &Place, text: &str) -> Result<Initiator, PolicyError> {
    text.parse().map_err(|why| place.error("initiator", text, why))
}

fn agent(place: &Place, text: &PolicyText) -> Result<AgentTerms, PolicyError> {
    let default = AgentTerms::default();
    let GatesText { battery_min, battery_min_late, metered, metered_cap } = &text.gates;
    let CheckInText { safety_net, when_late, join_jitter } = &text.checkin;
    let terms = AgentTerms {
        battery_min: place.percent("gates.battery_min", *battery_min, default.battery_min)?,
        battery_min_late: place.percent(
            "gates.battery_min_late",
            *battery_min_late,
            default.battery_min_late,
        )?,
        metered: metered.unwrap_or(default.metered),
        metered_cap: place.size("gates.metered_cap", metered_cap.as_deref())?.or(default.metered_cap),
        safety_net: place.seconds("checkin.safety_net", safety_net.as_deref(), default.safety_net)?,
        when_late: place.seconds("checkin.when_late", when_late.as_deref(), default.when_late)?,
        join_jitter: place.seconds("checkin.join_jitter", join_jitter.as_deref(), default.join_jitter)?,
        keepalive: match text.standing.keepalive.as_deref() {
            None => default.keepalive,
            Some(text) => Some(place.seconds("standing.keepalive", Some(text), 0)?),
        },
        on_battery: text.standing.on_battery.unwrap_or(default.on_battery),
        limit_upload: place.size("limit_upload", text.limit_upload.as_deref())?,
        yields: text.yields.unwrap_or(default.yields),
    };
    if terms.battery_min_late > terms.battery_min {
        let why = "a late client must not need more battery than one that is in time";
        return Err(place.error("gates.battery_min_late", terms.battery_min_late, why));
    }
    if let Some(keepalive) = terms.keepalive.filter(|keepalive| !(5..=120).contains(keepalive)) {
        let why = "from 5s to 120s: less is noise, more and routers forget the link";
        return Err(place.error("standing.keepalive", units::seconds(keepalive), why));
    }
    if terms.safety_net > 7 * DAY || terms.when_late < 60 {
        let why = "check-ins come at least weekly, and not more often than once a minute";
        return Err(place.error("checkin", units::seconds(terms.safety_net), why));
    }
    Ok(terms)
}

fn window(place: &Place, text: &WindowText, zones: &Zones<'_>) -> Result<Window, PolicyError> {
    let time = |key, text: &str| match (text, text.parse::<Time>()) {
        ("24:00", _) => Ok(Time::midnight()),
        (_, Ok(time)) => Ok(time),
        (_, Err(_)) => Err(place.error(key, text, "say a time of day, as 22:00")),
    };
    let (from, to) = (time("window.from", &text.from)?, time("window.to", &text.to)?);
    let (zone, of_client) = match text.tz.as_deref() {
        Some("client") => (None, true),
        Some("server") => (None, false),
        zone => (zone, false),
    };
    let zone = zones(zone).ok_or_else(|| {
        place.error(
            "window.tz",
            zone.unwrap_or_default(),
            "no such time zone; `server` and `client` may be said, too",
        )
    })?;
    Ok(Window { from, to, zone, of_client })
}

fn admission(text: AdmissionText) -> Result<Admission, PolicyError> {
    let (place, default) = (Place("admission".to_owned()), Admission::default());
    const ONE: &str = "at least one at a time must be allowed";
    let at_least_one = |key, n: usize| if n > 0 { Ok(n) } else { Err(place.error(key, n, ONE)) };
    let slots = at_least_one("slots", text.slots.unwrap_or(default.slots))?;
    for (key, caps) in [("per_group", &text.per_group), ("per_vault", &text.per_vault)] {
        caps.values().try_for_each(|n| at_least_one(key, *n).map(drop))?;
    }
    let reserve = text.reserve_for_clients.as_deref().unwrap_or("1/3");
    let why = "say a part, as 1/3 or 25%, or a number that is no more than slots";
    let reserve_for_clients =
        units::share(reserve, slots).ok_or_else(|| place.error("reserve_for_clients", reserve, why))?;
    let sizes = |(name, text): (String, String)| match units::size(&text) {
        Some(size) => Ok((name, size)),
        None => Err(place.error("bytes_per_group", text, SIZE)),
    };
    Ok(Admission {
        slots,
        default_remote: at_least_one(
            "default_remote",
            text.default_remote.unwrap_or(default.default_remote),
        )?,
        reserve_for_clients,
        hold: text.hold.unwrap_or(default.hold),
        dials: at_least_one("dials", text.dials.unwrap_or(default.dials))?,
        bytes_per_s: place.size("bytes_per_s", text.bytes_per_s.as_deref())?,
        bytes_per_group: text
            .bytes_per_group
            .into_iter()
            .map(sizes)
            .collect::<Result<BTreeMap<_, _>, _>>()?,
        per_group: text.per_group,
        per_vault: text.per_vault,
    })
}

fn rollout(text: RolloutText) -> Result<Rules, PolicyError> {
    let place = Place("rollout".to_owned());
    let mut all = Rules::default();
    if let Some(waves) = text.waves {
        all.waves = waves.iter().map(|text| wave(text)).collect();
        let percents: Vec<u8> = all.waves.iter().filter_map(WaveText::percent).collect();
        if percents.last() != Some(&100) || !percents.is_sorted() {
            let why = "waves grow, and the last is 100%";
            return Err(place.error("waves", waves.join(", "), why));
        }
    }
    if let Some(min) = text.min_finishers {
        all.rules.min_finishers = min.max(1);
    }
    all.rules.soak = match text.soak.as_deref() {
        // No soak at all is a choice, too.
        Some("0") => 0,
        None => all.rules.soak,
        Some(soak) => units::duration(soak)
            .ok_or_else(|| place.error("soak", soak, "say 1d, 4h, 30m or 90s, or 0 for none at all"))?,
    };
    if let Some(text) = &text.max_failure {
        let why = "say a percentage, as 2%";
        all.rules.max_failure =
            f64::from(units::percent(text).ok_or_else(|| place.error("max_failure", text, why))?) / 100.0;
    }
    Ok(all)
}

/// A percentage, or names of clients with blanks or commas between.
fn wave(text: &str) -> WaveText {
    match units::percent(text) {
        Some(percent) => WaveText::Percent(percent),
        None => {
            let names = text.split([',', ' ']).filter(|name| !name.is_empty());
            WaveText::Clients(names.map(str::to_owned).collect())
        }
    }
}

impl WaveText {
    fn percent(&self) -> Option<u8> {
        match self {
            Self::Percent(percent) => Some(*percent),
            Self::Clients(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::retention::{Keep, Rules};

    fn utc(name: Option<&str>) -> Option<TimeZone> {
        matches!(name, None | Some("UTC")).then_some(TimeZone::UTC)
    }

    #[test]
    fn a_file_is_read_and_what_it_leaves_out_has_defaults() {
        let text = "[policy.lab]\nperiod = \"4h\"\nwindow = { from = \"22:00\", to = \"06:00\", tz = \"UTC\" }\n[admission]\nslots = 2";
        let all = parse(text, &utc).unwrap();
        let lab = &all.policies["lab"];
        assert_eq!((lab.period, lab.rpo, lab.spread, all.admission.slots), (14_400, 21_600, 3_600, 2));
        assert_eq!(all.admission.reserve_for_clients, 1);
        assert_eq!(all.policies[DEFAULT_POLICY], Policy::default());
        assert_eq!(parse("", &utc).unwrap().policies, Policies::default().policies);
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            [policy.laptops]
            initiator = "auto"
            window = { from = "00:00", to = "24:00", tz = "client" }
            priority = 2
            alert_after = "6h"
            gates = { battery_min = 40, battery_min_late = 20, metered = "never", metered_cap = "50MiB" }
            checkin = { safety_net = "2h", when_late = "10m", join_jitter = "5s" }
            standing = { keepalive = "20s", on_battery = "always" }
            limit_upload = "2MB"
            yields = false
            keep = { last = 2, hourly = 24, daily = 30, weekly = 9, monthly = 6, yearly = 1, within = "10d", tags = ["legal"], grace = "14d", tz = "client" }
            [groups]
            lab = ["10.1.0.0/16", "10.2.0.0/16"]
            [admission]
            slots = 12
            per_group = { lab = 6 }
            per_vault = { main = 10 }
            default_remote = 1
            reserve_for_clients = "25%"
            hold = 100
            dials = 8
            bytes_per_s = "50MB"
            bytes_per_group = { lab = "10MB" }
            [rollout]
            waves = ["ana bea", "10%", "100%"]
            min_finishers = 3
            soak = "12h"
            max_failure = "5%"
        "#;
        let all = parse(text, &utc).unwrap();
        let laptops = &all.policies["laptops"];
        assert_eq!(laptops.initiator, Some(Initiator::Auto));
        assert!(laptops.window.as_ref().unwrap().of_client);
        assert_eq!((laptops.agent.limit_upload, laptops.agent.keepalive), (Some(2_000_000), Some(20)));
        assert_eq!(
            (all.admission.reserve_for_clients, all.admission.bytes_per_group["lab"]),
            (3, 10_000_000)
        );
        let keep = &laptops.keep;
        let Rules::Some { last, periods, within, tags } = &keep.rules else { panic!("{:?}", keep.rules) };
        assert_eq!((*last, periods.map(|(_, n)| n), *within), (2, [24, 30, 9, 6, 1], Some(10 * DAY)));
        assert!(tags.contains("legal") && keep.of_client && keep.grace == 14 * DAY);
        let rollout = all.rollout.unwrap();
        assert_eq!(rollout.waves[0], WaveText::Clients(vec!["ana".to_owned(), "bea".to_owned()]));
        assert_eq!((rollout.rules.soak, rollout.rules.min_finishers), (43_200, 3));
        assert_eq!(all.groups.len(), 2);
    }

    #[test]
    fn of_keep_only_what_is_written_counts() {
        let rules = |text: &str| {
            parse(&format!("[policy.a]\n{text}"), &utc).unwrap().policies["a"].keep.rules.clone()
        };
        assert_eq!(rules("keep = { daily = 30 }"), Rules::of(0, [0, 30, 0, 0, 0]));
        assert_eq!(rules("keep = { forever = true }"), Rules::Forever);
        assert_eq!(rules("keep = { grace = \"30d\" }"), Keep::default().rules);
        assert_eq!(rules(""), Keep::default().rules);
        let berlin = |name: Option<&str>| TimeZone::get(name.unwrap_or("Europe/Berlin")).ok();
        for text in ["", "[policy.default]\nkeep = { daily = 3 }"] {
            let keep = parse(text, &berlin).unwrap().policies[DEFAULT_POLICY].keep.clone();
            assert_eq!(keep.zone.iana_name(), Some("Europe/Berlin"), "{text}");
        }
    }

    #[test]
    fn every_mistake_is_named() {
        for (text, named) in [
            ("[policy.a]\nperoid = \"1d\"", "peroid"),
            ("[policy.a]\nperiod = \"soon\"", "soon"),
            ("[policy.a]\nperiod = \"0d\"", "0d"),
            ("[policy.a]\nperiod = \"5h\"", "a part of one day"),
            ("[policy.a]\nperiod = \"1d\"\nrpo = \"1h\"", "always be late"),
            ("[policy.a]\nspread = \"20h\"\nwindow = { from = \"22:00\", to = \"06:00\" }", "never come"),
            ("[policy.a]\nwindow = { from = \"25:00\", to = \"06:00\" }", "25:00"),
            ("[policy.a]\nwindow = { from = \"22:00\", to = \"06:00\", tz = \"Mars\" }", "Mars"),
            ("[policy.a]\npriority = 0", "priority"),
            ("[policy.a]\ninitiator = \"both\"", "both"),
            ("[policy.a]\ngates = { battery = 3 }", "battery"),
            ("[policy.a]\ngates = { battery_min = 10 }", "battery_min_late"),
            ("[policy.a]\ngates = { metered = \"perhaps\" }", "perhaps"),
            ("[policy.a]\nlimit_upload = \"fast\"", "fast"),
            ("[groups]\nlab = [\"10.1.0.0/40\"]", "10.1.0.0/40"),
            ("[admission]\nslots = 0", "at least one"),
            ("[admission]\nper_group = { lab = 0 }", "per_group"),
            ("[admission]\nreserve_for_clients = \"most\"", "most"),
            ("[rollout]\nwaves = [\"5%\", \"50%\"]", "the last is 100%"),
            ("[rollout]\nsoak = \"0s\"", "or 0 for none"),
            ("[policy.a]\nkeep = { dayly = 3 }", "dayly"),
            ("[policy.a]\nkeep = { daily = -1 }", "daily"),
            ("[policy.a]\nkeep = { daily = 0, last = 0 }", "keeps nothing"),
            ("[policy.a]\nkeep = { forever = false }", "keeps nothing"),
            ("[policy.a]\nkeep = { tags = [\"legal\"] }", "tags alone"),
            ("[policy.a]\nkeep = { forever = true, daily = 3 }", "nothing else can be said"),
            ("[policy.a]\nkeep = { daily = 3, grace = \"1h\" }", "1h"),
            ("[policy.a]\nkeep = { daily = 3, within = \"0d\" }", "0d"),
            ("[policy.a]\nkeep = { daily = 3, tz = \"Mars\" }", "Mars"),
            ("[policy", "policy"),
        ] {
            let error = parse(text, &utc).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
