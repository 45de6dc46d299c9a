//! `keep = { ... }` of a policy: only what is written counts; without any of it, the default holds.

use std::collections::BTreeSet;

use super::PolicyError;
use super::file::KeepText;
use super::read::{Place, Zones};
use crate::retention::{Keep, Rules, RulesError, check_grace};

pub(super) fn keep(
    place: &Place,
    text: Option<&KeepText>,
    period: i64,
    zones: &Zones<'_>,
) -> Result<Keep, PolicyError> {
    let default = Keep::default();
    let (none, of_client) =
        (KeepText::default(), text.is_some_and(|text| text.tz.as_deref() == Some("client")));
    let text = text.unwrap_or(&none);
    let named = text.tz.as_deref().filter(|name| !matches!(*name, "client" | "server"));
    let zone = zones(named).ok_or_else(|| {
        let why = "no such time zone; `server` and `client` may be said, too";
        place.error("keep.tz", named.unwrap_or_default(), why)
    })?;
    let grace = place.seconds("keep.grace", text.grace.as_deref(), default.grace)?;
    let refused = |error: RulesError, key, value: String| place.error(key, value, error.why());
    check_grace(grace)
        .map_err(|error| refused(error, "keep.grace", text.grace.clone().unwrap_or_default()))?;
    let rules = rules(place, text)?.map_or(Ok(default.rules), Rules::check);
    let rules = rules.map_err(|error| refused(error, "keep", text.words()))?;
    Ok(Keep { rules, grace, zone, of_client, usual_gap: period.max(default.usual_gap) })
}

/// What is written, if anything is.
fn rules(place: &Place, text: &KeepText) -> Result<Option<Rules>, PolicyError> {
    let counts = [text.hourly, text.daily, text.weekly, text.monthly, text.yearly];
    let within = match text.within.as_deref() {
        None => None,
        Some(within) => Some(place.seconds("keep.within", Some(within), 0)?),
    };
    let any =
        text.last.is_some() || counts.iter().any(Option::is_some) || within.is_some() || text.tags.is_some();
    match text.forever {
        Some(true) if any => {
            return Err(place.error("keep.forever", "true", RulesError::Contradiction.why()));
        }
        Some(true) => return Ok(Some(Rules::Forever)),
        // Said aloud that not all is kept, and nothing of what is: that is no default.
        Some(false) if !any => return Ok(Some(Rules::of(0, [0; 5]))),
        _ if !any => return Ok(None),
        _ => {}
    }
    let Rules::Some { last, periods, .. } = Rules::of(text.last.unwrap_or(0), counts.map(|n| n.unwrap_or(0)))
    else {
        return Ok(None);
    };
    let tags: BTreeSet<String> = text.tags.iter().flatten().cloned().collect();
    if let Some(tag) = tags.iter().find(|tag| tag.trim().is_empty()) {
        return Err(place.error("keep.tags", format!("{tag:?}"), "a label has letters"));
    }
    Ok(Some(Rules::Some { last, periods, within, tags }))
}

impl KeepText {
    /// As it is written, roughly.
    fn words(&self) -> String {
        match (&self.tags, self.forever) {
            (Some(tags), _) => format!("{{ tags = {tags:?} }}"),
            (None, Some(false)) => "{ forever = false }".to_owned(),
            _ => "{ 0 of everything }".to_owned(),
        }
    }
}
