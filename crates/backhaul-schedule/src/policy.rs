//! Policies: what an administrator writes down.
//!
//! ```toml
//! [policy.lab]
//! period = "1d"      # one backup in each; d, h or m
//! rpo = "36h"        # older than this is late; default one and a half periods
//! spread = "3h"      # clients begin at their own moment within this
//! window = { from = "22:00", to = "06:00", tz = "Europe/Berlin" }   # default: any time
//!
//! [admission]
//! slots = 4          # backups at once
//! ```

use std::collections::BTreeMap;

use jiff::civil::Time;
use jiff::tz::TimeZone;
use serde::Deserialize;
use thiserror::Error;

/// Backups at once unless the file says otherwise.
pub const DEFAULT_SLOTS: usize = 4;
/// The policy of clients that have no other.
pub const DEFAULT_POLICY: &str = "default";
const DAY: i64 = 86_400;

/// Why a policy file is refused. Nothing of it is then in force.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PolicyError {
    /// Not TOML, or a key that is not known: it is named, with its line.
    #[error("{0}")]
    Syntax(String),
    /// A value that makes no sense.
    #[error("policy {policy:?}: {key} = {value:?}: {why}")]
    Value {
        /// In which policy.
        policy: String,
        /// Which key.
        key: &'static str,
        /// As written.
        value: String,
        /// Why not.
        why: &'static str,
    },
}

/// The time of day at which runs may start.
#[derive(Debug, Clone, PartialEq)]
pub struct Window {
    /// Opens.
    pub from: Time,
    /// Closes; before `from` when it goes over midnight.
    pub to: Time,
    /// Whose time of day.
    pub zone: TimeZone,
}

/// When the clients of a policy are backed up. All durations are seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// One backup in each.
    pub period: i64,
    /// Age of the newest snapshot at which a client is late.
    pub rpo: i64,
    /// Clients begin within this from the beginning of a period.
    pub spread: i64,
    /// When runs may start; any time if there is none.
    pub window: Option<Window>,
}

impl Default for Policy {
    fn default() -> Self {
        Self { period: DAY, rpo: DAY + DAY / 2, spread: 3_600, window: None }
    }
}

/// All of a policy file.
#[derive(Debug, Clone, PartialEq)]
pub struct Policies {
    /// By name; the default one is always there.
    pub policies: BTreeMap<String, Policy>,
    /// Backups at once.
    pub slots: usize,
}

impl Default for Policies {
    fn default() -> Self {
        let policies = BTreeMap::from([(DEFAULT_POLICY.to_owned(), Policy::default())]);
        Self { policies, slots: DEFAULT_SLOTS }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileText {
    #[serde(default)]
    policy: BTreeMap<String, PolicyText>,
    admission: Option<AdmissionText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AdmissionText {
    slots: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    period: Option<String>,
    rpo: Option<String>,
    spread: Option<String>,
    window: Option<WindowText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WindowText {
    from: String,
    to: String,
    tz: Option<String>,
}

/// Reads a policy file; `zones` finds time zones by name, and the server's own without one.
///
/// # Errors
/// [`PolicyError`] names the first mistake.
pub fn parse(text: &str, zones: &dyn Fn(Option<&str>) -> Option<TimeZone>) -> Result<Policies, PolicyError> {
    let file: FileText = toml::from_str(text).map_err(|error| PolicyError::Syntax(error.to_string()))?;
    let mut all = Policies::default();
    for (name, text) in file.policy {
        let policy = read(&name, &text, zones)?;
        all.policies.insert(name, policy);
    }
    if let Some(slots) = file.admission.and_then(|admission| admission.slots) {
        let why = "at least one backup at a time must be allowed";
        let zero = || value("admission", "slots", "0", why);
        all.slots = if slots > 0 { slots } else { return Err(zero()) };
    }
    Ok(all)
}

fn value(policy: &str, key: &'static str, value: &str, why: &'static str) -> PolicyError {
    PolicyError::Value { policy: policy.to_owned(), key, value: value.to_owned(), why }
}

fn read(
    name: &str,
    text: &PolicyText,
    zones: &dyn Fn(Option<&str>) -> Option<TimeZone>,
) -> Result<Policy, PolicyError> {
    let default = Policy::default();
    let seconds = |key, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => duration(text).map(Some).ok_or_else(|| value(name, key, text, "say 1d, 4h or 30m")),
    };
    let period = seconds("period", &text.period)?.unwrap_or(default.period);
    let rpo = seconds("rpo", &text.rpo)?.unwrap_or(period + period / 2);
    let spread = seconds("spread", &text.spread)?.unwrap_or(default.spread.min(period / 4));
    if rpo < period {
        let text = text.rpo.as_deref().unwrap_or_default();
        return Err(value(
            name,
            "rpo",
            text,
            "it is shorter than the period, so that every client would always be late",
        ));
    }
    let window = text.window.as_ref().map(|window| read_window(name, window, zones)).transpose()?;
    Ok(Policy { period, rpo, spread, window })
}

fn read_window(
    name: &str,
    text: &WindowText,
    zones: &dyn Fn(Option<&str>) -> Option<TimeZone>,
) -> Result<Window, PolicyError> {
    let time = |key, text: &str| match (text, text.parse::<Time>()) {
        ("24:00", _) => Ok(Time::midnight()),
        (_, Ok(time)) => Ok(time),
        (_, Err(_)) => Err(value(name, key, text, "say a time of day, as 22:00")),
    };
    let (from, to) = (time("window.from", &text.from)?, time("window.to", &text.to)?);
    let zone = zones(text.tz.as_deref()).ok_or_else(|| {
        value(name, "window.tz", text.tz.as_deref().unwrap_or_default(), "no such time zone")
    })?;
    Ok(Window { from, to, zone })
}

/// `1d`, `4h`, `30m`, in seconds.
fn duration(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at(text.len().checked_sub(1)?);
    let unit = match unit {
        "d" => DAY,
        "h" => 3_600,
        "m" => 60,
        _ => return None,
    };
    number.parse::<u32>().ok().filter(|n| *n > 0).map(|n| i64::from(n) * unit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn utc(name: Option<&str>) -> Option<TimeZone> {
        matches!(name, None | Some("UTC")).then_some(TimeZone::UTC)
    }

    #[test]
    fn a_file_is_read_and_what_it_leaves_out_has_defaults() {
        let text = "[policy.lab]\nperiod = \"4h\"\nwindow = { from = \"22:00\", to = \"06:00\", tz = \"UTC\" }\n[admission]\nslots = 2";
        let all = parse(text, &utc).unwrap();
        let lab = &all.policies["lab"];
        assert_eq!((lab.period, lab.rpo, lab.spread, all.slots), (14_400, 21_600, 3_600, 2));
        assert_eq!(all.policies[DEFAULT_POLICY], Policy::default());
        assert_eq!(parse("", &utc).unwrap(), Policies::default());
    }

    #[test]
    fn every_mistake_is_named() {
        for (text, named) in [
            ("[policy.a]\nperoid = \"1d\"", "peroid"),
            ("[policy.a]\nperiod = \"soon\"", "soon"),
            ("[policy.a]\nperiod = \"0d\"", "0d"),
            ("[policy.a]\nperiod = \"1d\"\nrpo = \"1h\"", "always be late"),
            ("[policy.a]\nwindow = { from = \"25:00\", to = \"06:00\" }", "25:00"),
            ("[policy.a]\nwindow = { from = \"22:00\", to = \"06:00\", tz = \"Mars\" }", "Mars"),
            ("[admission]\nslots = 0", "at least one"),
            ("[policy", "policy"),
        ] {
            let error = parse(text, &utc).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
