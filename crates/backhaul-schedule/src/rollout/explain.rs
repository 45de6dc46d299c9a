//! What a rollout is waiting for, in words with numbers.

use super::gate::Gate;
use super::{Halt, Rollout, State, Wave};

/// Seconds in words: two hours and more as hours, two minutes and more as minutes.
fn span(seconds: i64) -> String {
    match seconds {
        7_200.. => format!("{} h", seconds.saturating_add(3_599) / 3_600),
        120.. => format!("{} min", (seconds + 59) / 60),
        _ => format!("{} s", seconds.max(0)),
    }
}

fn percent(rate: f64) -> String {
    format!("{:.1} %", rate * 100.0)
}

impl std::fmt::Display for Halt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rate { failed, finishers, at_least, allowed } => {
                let percent = |thousandths: &u32| percent(f64::from(*thousandths) / 1_000.0);
                let (least, allowed) = (percent(at_least), percent(allowed));
                write!(
                    f,
                    "{failed} of {finishers} failed, which is at least {least} of all; {allowed} are allowed"
                )
            }
            Self::Same { code, times } => write!(f, "the last {times} failures were all of code {code}"),
        }
    }
}

impl std::fmt::Display for Wave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(clients) => write!(f, "{} named", clients.len()),
            Self::Percent(percent) => write!(f, "{percent} %"),
        }
    }
}

impl Rollout {
    /// What it waits for. Never empty.
    pub fn waiting(&self, now: i64) -> String {
        match &self.state {
            State::Halted(why) => {
                format!("halted: {why}; everybody has version {} until it is resumed", self.previous)
            }
            State::Completed => format!("completed: everybody has version {}", self.version),
            State::Running if self.open == 0 => "waiting for its first wave to be opened".to_owned(),
            State::Running => self.waiting_in_wave(now),
        }
    }

    fn waiting_in_wave(&self, now: i64) -> String {
        let Gate { members, finishers, needed, soak, all_finishers, failed, upper, allowed, .. } =
            self.gate(now);
        let wave = self.rules.waves.get(self.open - 1).map(ToString::to_string).unwrap_or_default();
        let waves = self.rules.waves.len();
        let s = if members == 1 { "" } else { "s" };
        let mut text = format!("wave {} of {waves} ({wave}, {members} new client{s}): ", self.open);
        let mut reasons = Vec::new();
        if finishers < needed {
            let quiet = match self.heard {
                Some(heard) => format!("the last was {} ago", span(now.saturating_sub(heard))),
                None => "none so far".to_owned(),
            };
            reasons.push(format!("{finishers} of at least {needed} finishers, {quiet}"));
        }
        if soak > 0 {
            reasons.push(format!("{} of {} soak left", span(soak), span(self.rules.soak)));
        }
        if failed > 0 && upper > allowed {
            let (upper, allowed) = (percent(upper), percent(allowed));
            reasons.push(format!(
                "{failed} of {all_finishers} failed, which may be up to {upper} of all; {allowed} are allowed: more \
                 finishers, or an operator who resumes it"
            ));
        }
        if reasons.is_empty() {
            reasons.push("nothing, goes on at the next step".to_owned());
        }
        text.push_str(&reasons.join("; "));
        text
    }
}
