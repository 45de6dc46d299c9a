//! The policy's terms as this agent keeps them: received, checked, written down.

use backhaul_proto::wire;
use backhaul_schedule::policy::{AgentTerms, Metered, OnBattery};

use crate::error::AgentError;
use crate::home::AgentHome;

/// Terms that have arrived, if they make sense here.
///
/// # Errors
/// What does not, in words for the server.
pub fn understand(terms: &wire::Terms) -> Result<AgentTerms, String> {
    let percent = |value: u32| u8::try_from(value).map_err(|_| format!("{value} percent of battery"));
    let seconds = |value: u64| i64::try_from(value).map_err(|_| format!("{value} seconds"));
    let metered = match wire::Metered::try_from(terms.metered) {
        Ok(wire::Metered::WhenLate) => Metered::WhenLate,
        Ok(wire::Metered::Never) => Metered::Never,
        Ok(wire::Metered::Always) => Metered::Always,
        Err(_) => return Err(format!("use {} of metered networks is not known here", terms.metered)),
    };
    if terms.safety_net == 0 {
        return Err("no time between check-ins".to_owned());
    }
    Ok(AgentTerms {
        battery_min: percent(terms.battery_min)?,
        battery_min_late: percent(terms.battery_min_late)?,
        metered,
        metered_cap: Some(terms.metered_cap).filter(|cap| *cap > 0),
        safety_net: seconds(terms.safety_net)?,
        when_late: seconds(terms.when_late)?,
        join_jitter: seconds(terms.join_jitter)?,
        keepalive: Some(seconds(terms.keepalive)?).filter(|keepalive| *keepalive > 0),
        on_battery: if terms.link_on_battery { OnBattery::Always } else { OnBattery::OnlyWhenLate },
        limit_upload: Some(terms.limit_upload).filter(|limit| *limit > 0),
        yields: terms.yields,
    })
}

/// Keeps terms that have arrived, before that is confirmed; returns the confirmation, or why they cannot be kept.
pub fn adopt(home: &AgentHome, terms: &wire::Terms) -> (Option<AgentTerms>, wire::Applied) {
    let version = terms.version;
    let adopted = understand(terms).and_then(|terms| {
        home.keep_terms(version, &terms).map(|()| terms).map_err(|error| error.to_string())
    });
    match adopted {
        Ok(terms) => (Some(terms), wire::Applied { version, ..Default::default() }),
        Err(error) => (None, wire::Applied { version, error }),
    }
}

impl AgentHome {
    /// The terms that are kept to, with their version; the default ones before any were received.
    pub fn terms(&self) -> (u64, AgentTerms) {
        let text = std::fs::read_to_string(self.dir().join("terms.json")).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Keeps terms.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn keep_terms(&self, version: u64, terms: &AgentTerms) -> Result<(), AgentError> {
        let path = self.dir().join("terms.json");
        let file = |why: String| AgentError::File { path: path.clone(), why };
        let text = serde_json::to_string(&(version, terms)).map_err(|error| file(error.to_string()))?;
        let new = path.with_extension("new");
        std::fs::write(&new, text)
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(|error| file(error.to_string()))
    }

    /// Until when the user of this machine wants no backups, seconds since 1970; the greatest number: until told
    /// otherwise.
    pub fn paused_until(&self) -> Option<i64> {
        std::fs::read_to_string(self.dir().join("paused")).ok()?.trim().parse().ok()
    }

    /// Wants no backups until then, or wants them again.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn pause(&self, until: Option<i64>) -> Result<(), AgentError> {
        let path = self.dir().join("paused");
        let result = match until {
            Some(until) => std::fs::write(&path, until.to_string()),
            None => match std::fs::remove_file(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        result.map_err(|error| AgentError::File { path, why: error.to_string() })
    }
}
