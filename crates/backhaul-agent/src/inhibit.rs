//! Keeps a machine on mains from going to sleep by itself in the middle of a backup.

use std::sync::Once;

use zbus::OwnedFd;

use crate::gates::Conditions;
use crate::signals::bus::{Bus, Method};
use crate::signals::power::Supply;

const INHIBIT: Method = Method {
    service: "org.freedesktop.login1",
    path: "/org/freedesktop/login1",
    interface: "org.freedesktop.login1.Manager",
    name: "Inhibit",
};

/// Absent once, absent always.
static ABSENT: Once = Once::new();

/// While this is held, the machine does not become idle. Lids and people still put it to sleep.
#[derive(Debug)]
pub struct Inhibitor {
    /// logind takes the lock back when this closes.
    _lock: OwnedFd,
}

/// Keeps the machine awake for a run, whoever has dialled for it; not on battery.
pub async fn during_run(conditions: &Conditions) -> Option<Inhibitor> {
    match conditions.power.supply {
        Supply::Mains => Inhibitor::hold("a backup is under way").await,
        Supply::Battery => None,
    }
}

impl Inhibitor {
    /// Asks logind for a lock, for a reason that it shows to people. None where logind is absent or says no: a
    /// backup does not depend on it. Takes 2 s at most.
    pub async fn hold(why: &str) -> Option<Self> {
        let answer = Bus::default().call(INHIBIT, &("idle", "Backhaul", why, "block")).await;
        let lock = answer.and_then(|answer| answer.body().deserialize::<OwnedFd>().ok());
        if lock.is_none() {
            ABSENT.call_once(|| {
                tracing::debug!("the machine may go to sleep during a backup: no lock of logind")
            });
        }
        lock.map(|lock| Self { _lock: lock })
    }
}
