//! Whether this machine may be backed up now: what its user would want it to do.
//!
//! Gates defer and never skip: they relax when the newest snapshot gets old.

use std::fmt;

use backhaul_schedule::policy::{AgentTerms, Metered as MeteredUse};

use crate::signals::metered::Metered;
use crate::signals::network::Network;
use crate::signals::power::{Power, Supply};

/// From this lateness on, gates relax.
const LATE: f64 = 2.0;

/// The state of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conditions {
    /// The way to the server; none when there is no route.
    pub network: Option<Network>,
    /// Where the power comes from.
    pub power: Power,
    /// What the connection costs.
    pub metered: Metered,
    /// The user wants no backups until then, in seconds since 1970; the greatest number: until told otherwise.
    pub paused_until: Option<i64>,
    /// When this was, in ms since the machine started.
    pub boot_ms: u64,
}

/// Who wants the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// A timer, the server, a network that was joined.
    Automatic,
    /// A person, now.
    Manual,
}

/// Whether it may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Yes.
    Open,
    /// Not now.
    Shut {
        /// Why.
        reason: NotNowReason,
        /// When that ends, in seconds since 1970, if it is known.
        until: Option<i64>,
    },
}

/// Why not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNowReason {
    /// The user said so.
    Paused,
    /// The battery is not full enough.
    Battery {
        /// How full it is, if it tells.
        percent: Option<u8>,
        /// How full it has to be.
        needed: u8,
    },
    /// The connection costs by the byte.
    Metered {
        /// Whether lateness will open it.
        allowed: MeteredUse,
    },
}

impl fmt::Display for NotNowReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Paused => f.write_str("paused by the user"),
            Self::Battery { percent, needed } => {
                match percent {
                    Some(percent) => write!(f, "on battery at {percent} %")?,
                    None => f.write_str("on a battery of unknown charge")?,
                }
                match (percent, needed) {
                    (Some(_), ..=100) => write!(f, ", waits for {needed} %"),
                    _ => f.write_str(", waits for mains"),
                }
            }
            Self::Metered { allowed: MeteredUse::WhenLate } => write!(
                f,
                "on a metered connection, waits for another one or until the newest snapshot is {LATE} times as \
                 old as it should get"
            ),
            Self::Metered { .. } => f.write_str("on a metered connection, waits for another one"),
        }
    }
}

/// Decides at `now`, in seconds since 1970. `lateness` is the age of the newest snapshot in units of how old it
/// should get at most; infinite when there is none.
pub fn decide(
    policy: &AgentTerms,
    conditions: &Conditions,
    lateness: f64,
    urgency: Urgency,
    now: i64,
) -> Verdict {
    if let Some(until) = conditions.paused_until.filter(|until| *until > now) {
        let until = (until != i64::MAX).then_some(until);
        return Verdict::Shut { reason: NotNowReason::Paused, until };
    }
    if urgency == Urgency::Manual {
        return Verdict::Open;
    }
    let late = lateness >= LATE;
    let reason =
        battery(policy, conditions.power, late).or_else(|| metered(policy, conditions.metered, late));
    match reason {
        Some(reason) => Verdict::Shut { reason, until: None },
        None => Verdict::Open,
    }
}

fn battery(policy: &AgentTerms, power: Power, late: bool) -> Option<NotNowReason> {
    // A policy that is stricter when late is a mistake, and harmless like this.
    let relaxed = policy.battery_min.min(policy.battery_min_late);
    let needed = if late { relaxed } else { policy.battery_min };
    let full = match power.battery_percent {
        Some(percent) => percent >= needed,
        None => late && needed <= 100,
    };
    let shut = power.supply == Supply::Battery && !full;
    shut.then_some(NotNowReason::Battery { percent: power.battery_percent, needed })
}

fn metered(policy: &AgentTerms, metered: Metered, late: bool) -> Option<NotNowReason> {
    let used = match policy.metered {
        MeteredUse::Never => false,
        MeteredUse::WhenLate => late,
        MeteredUse::Always => true,
    };
    let shut = metered == Metered::Yes && !used;
    shut.then_some(NotNowReason::Metered { allowed: policy.metered })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_700_000_000;

    fn on(supply: Supply, battery_percent: Option<u8>, metered: Metered) -> Conditions {
        Conditions { power: Power { supply, battery_percent }, metered, ..Conditions::default() }
    }

    fn terms() -> AgentTerms {
        AgentTerms::default()
    }

    fn automatic(conditions: &Conditions, lateness: f64) -> Verdict {
        decide(&terms(), conditions, lateness, Urgency::Automatic, NOW)
    }

    fn reason(verdict: Verdict) -> String {
        match verdict {
            Verdict::Open => String::new(),
            Verdict::Shut { reason, .. } => reason.to_string(),
        }
    }

    #[test]
    fn an_empty_battery_waits_and_less_so_when_it_is_late() {
        let low = on(Supply::Battery, Some(12), Metered::No);
        assert_eq!(reason(automatic(&low, 1.0)), "on battery at 12 %, waits for 30 %");
        assert_eq!(reason(automatic(&low, f64::INFINITY)), "on battery at 12 %, waits for 15 %");
        let half = on(Supply::Battery, Some(15), Metered::No);
        assert_eq!(reason(automatic(&half, 1.9)), "on battery at 15 %, waits for 30 %");
        assert_eq!(automatic(&half, 2.0), Verdict::Open);
        assert_eq!(automatic(&on(Supply::Battery, Some(30), Metered::No), 0.0), Verdict::Open);
        assert_eq!(automatic(&on(Supply::Mains, Some(1), Metered::No), 0.0), Verdict::Open);
        let silent = on(Supply::Battery, None, Metered::No);
        assert_eq!(reason(automatic(&silent, 0.0)), "on a battery of unknown charge, waits for mains");
        let never = AgentTerms { battery_min: 101, battery_min_late: 101, ..terms() };
        let full = on(Supply::Battery, Some(100), Metered::No);
        let verdict = decide(&never, &full, 9.0, Urgency::Automatic, NOW);
        assert_eq!(reason(verdict), "on battery at 100 %, waits for mains");
        let absurd = AgentTerms { battery_min: 10, battery_min_late: 50, ..terms() };
        assert_eq!(decide(&absurd, &low, 9.0, Urgency::Automatic, NOW), Verdict::Open);
    }

    #[test]
    fn metered_connections_are_used_late_or_always_or_never() {
        let phone = on(Supply::Mains, None, Metered::Yes);
        assert!(
            reason(automatic(&phone, 1.0)).starts_with("on a metered connection, waits for another one or")
        );
        let policy = terms();
        let ask = |policy: &AgentTerms, late| decide(policy, &phone, late, Urgency::Automatic, NOW);
        assert_eq!(ask(&policy, 2.5), Verdict::Open);
        assert_eq!(ask(&AgentTerms { metered: MeteredUse::Always, ..policy.clone() }, 0.0), Verdict::Open);
        let never = AgentTerms { metered: MeteredUse::Never, ..policy.clone() };
        assert_eq!(reason(ask(&never, 99.0)), "on a metered connection, waits for another one");
        assert_eq!(decide(&never, &phone, 0.0, Urgency::Manual, NOW), Verdict::Open);
    }

    #[test]
    fn a_pause_binds_everybody_until_it_ends() {
        let mut paused = on(Supply::Mains, None, Metered::No);
        paused.paused_until = Some(NOW + 60);
        let at = |conditions: &Conditions, now| decide(&terms(), conditions, 99.0, Urgency::Manual, now);
        let shut = |until| Verdict::Shut { reason: NotNowReason::Paused, until };
        assert_eq!(at(&paused, NOW), shut(Some(NOW + 60)));
        assert_eq!(at(&paused, NOW + 60), Verdict::Open);
        paused.paused_until = Some(i64::MAX);
        assert_eq!(at(&paused, NOW), shut(None));
    }

    fn policies() -> impl Strategy<Value = AgentTerms> {
        let used = prop_oneof![Just(MeteredUse::Never), Just(MeteredUse::WhenLate), Just(MeteredUse::Always)];
        (0u8..=110, 0u8..=110, used).prop_map(|(battery_min, battery_min_late, metered)| AgentTerms {
            battery_min,
            battery_min_late,
            metered,
            ..terms()
        })
    }

    fn conditions() -> impl Strategy<Value = Conditions> {
        let supply = prop_oneof![Just(Supply::Mains), Just(Supply::Battery)];
        let metered = prop_oneof![Just(Metered::No), Just(Metered::Yes)];
        let pause = prop::option::of(prop_oneof![Just(i64::MAX), NOW - 5..NOW + 5]);
        (supply, prop::option::of(0u8..=100), metered, pause).prop_map(
            |(supply, percent, metered, paused_until)| Conditions {
                paused_until,
                ..on(supply, percent, metered)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn lateness_and_people_open_gates_and_never_shut_one(
            policy in policies(),
            conditions in conditions(),
            sooner in 0.0f64..5.0,
            more in prop_oneof![0.0f64..5.0, Just(f64::INFINITY)],
        ) {
            let ask = |lateness, urgency| decide(&policy, &conditions, lateness, urgency, NOW);
            let before = ask(sooner, Urgency::Automatic);
            let open = |verdict: &Verdict| matches!(verdict, Verdict::Open);
            for after in [ask(sooner + more, Urgency::Automatic), ask(sooner, Urgency::Manual)] {
                prop_assert!(!open(&before) || open(&after), "{before:?}, then {after:?}");
                if let Verdict::Shut { reason, until } = after {
                    prop_assert!(!reason.to_string().trim().is_empty());
                    prop_assert!(until.is_none_or(|until| until > NOW));
                }
            }
            prop_assert_eq!(open(&ask(sooner, Urgency::Manual)), conditions.paused_until.is_none_or(|until| until <= NOW));
        }
    }
}
