//! What the server asks of itself: every night an export, retention and a prune, and an export soon after clients or policies have
//! changed.

use backhaul_schedule::Now;
use backhaul_schedule::night::Night;
use backhaul_store::reserve;
use jiff::tz::TimeZone;

use super::{Chore, prune};
use crate::clock;
use crate::error::ServerError;
use crate::export;
use crate::fleet::{AskedBy, Fleet};
use crate::home::ServerHome;
use crate::keep::forget::{By, Detail, Mode, Request};

/// How often the time is looked at, in seconds.
const LOOK: u64 = 5;
/// How often it is looked whether something is to be exported, in seconds; and how long nothing is tried that has not
/// worked.
const CHANGED: u64 = 60;
const TRY_AGAIN: u64 = 3_600;

/// Remembers what was asked for last.
pub(super) struct ByNight {
    night: Night,
    /// When the time was looked at last, and the changes, in seconds since the machine started.
    looked: u64,
    compared: u64,
    /// What was to be exported last, and when that was asked for.
    tried: Option<([u8; 32], u64)>,
}

fn now() -> Now {
    Now { boot: clock::boot_ms() / 1_000, wall: clock::now() as i64 }
}

impl ByNight {
    pub fn new(fleet: &Fleet) -> Result<Self, ServerError> {
        let (last, now) = (fleet.last_night()?, now());
        Ok(Self {
            night: Night::new(last.map(|at| at as i64), now),
            looked: now.boot,
            compared: now.boot,
            tried: None,
        })
    }

    /// Asks for what is due.
    pub fn ask(&mut self, home: &ServerHome, fleet: &mut Fleet) -> Result<(), ServerError> {
        let now = now();
        if now.boot < self.looked + LOOK {
            return Ok(());
        }
        self.looked = now.boot;
        let nightly = home.config()?.nightly;
        if let Some(at) = nightly.time()
            && self.night.look(at, &TimeZone::system(), now)
        {
            reserve::make_room(&home.vault_dir())?;
            for chore in chores(nightly.rate()) {
                queue(fleet, &chore)?;
            }
            self.compared = now.boot;
        } else if now.boot >= self.compared + CHANGED {
            self.compared = now.boot;
            let essence = fleet.essence()?;
            let tried = self.tried.is_some_and(|(what, at)| what == essence && now.boot < at + TRY_AGAIN);
            if !tried && fleet.exported()? != Some(essence) {
                self.tried = Some((essence, now.boot));
                queue(fleet, &Chore::Export(export::Request {}))?;
            }
        }
        Ok(())
    }
}

/// In this order: on a disk that is nearly full an export comes when there is room for it.
fn chores(limit: Option<u64>) -> [Chore; 3] {
    let forget = Request { by: By::Policy, client: None, mode: Mode::DoIt, detail: Detail::Sums };
    [
        Chore::Forget(forget),
        Chore::Prune(prune::Request { limit, ..prune::Request::default() }),
        Chore::Export(export::Request {}),
    ]
}

pub(crate) fn queue(fleet: &mut Fleet, chore: &Chore) -> Result<(), ServerError> {
    let request = serde_json::to_string(chore).map_err(|error| ServerError::Broken(error.to_string()))?;
    fleet.queue_chore(chore.kind(), AskedBy::Timer, &request, clock::now())?;
    // What a connection has written itself is no change to it.
    fleet.look_again();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Nightly;

    #[test]
    fn the_prune_of_the_night_keeps_to_its_rate() {
        let limit = |text: &str| {
            let nightly: Nightly = toml::from_str(text).unwrap();
            let [_, Chore::Prune(prune), _] = chores(nightly.rate()) else { panic!("no prune") };
            prune.limit
        };
        assert_eq!(limit(""), Some(100_000_000));
        assert_eq!(limit("limit = '20MB'"), Some(20_000_000));
        assert_eq!(limit("limit = 'none'"), None);
    }
}
