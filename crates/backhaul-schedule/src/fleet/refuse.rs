//! Who may not even wait: what a client is told that asks out of time.

use super::client::{Asking, Client};
use super::{ClientKey, Deferral, Serving, Trigger};
use crate::Now;
use crate::due::Standing;
use crate::fleet::explain::Why;

/// Longest deferral where the time is not a reservation, in seconds.
const DEFER_MAX: i64 = 4 * 3_600;
/// How soon a server that stops or is full may be asked again, in seconds.
const DRAINED: u64 = 30;
const FULL: u64 = 600;

/// What everybody who asks is told while nothing new may start.
pub(super) fn closed(key: &ClientKey, serving: Serving, since: i64) -> Option<Deferral> {
    let since = Some(since);
    match serving {
        // Half a minute to a minute, each client at its own moment.
        Serving::Draining => {
            Some(Deferral { after: DRAINED + super::offset(key) % DRAINED, since, why: Why::Draining })
        }
        Serving::Full => Some(Deferral { after: FULL, since, why: Why::StorageFull }),
        Serving::Open => None,
    }
}

/// Why a client that asks has nothing to wait for; none for what people asked for, and for runs that were cut.
pub(super) fn refusal(client: &Client, asking: &Asking, standing: Standing, at: Now) -> Option<Deferral> {
    let now = at.wall;
    if asking.trigger == Trigger::Manual || client.manual.is_some() {
        return None;
    }
    let until = |at: i64, why| {
        let after = u64::try_from((at - now).min(DEFER_MAX)).unwrap_or(0).max(1);
        Some(Deferral { after, since: None, why })
    };
    if let Some(paused) = client.plan.paused_until.filter(|_| client.is_paused(now)) {
        return until(paused, Why::Paused { until: paused });
    }
    // What has failed comes back when the server thinks it worth a try; a new network or a nudge is a new chance.
    if let (Trigger::Timer, Some((code, why))) = (asking.trigger, &client.memory.failure)
        && at.boot < client.retry_at
    {
        let again_in = client.retry_at - at.boot;
        let why = Why::FailedRun { code: *code, why: why.clone(), again_in };
        return Some(Deferral { after: again_in, since: None, why });
    }
    match standing {
        _ if asking.trigger == Trigger::Resume => None,
        Standing::Protected { next } => until(next, Why::Protected { next }),
        Standing::Waiting { next } => until(next, Why::Shut { next }),
        Standing::Early { .. } | Standing::Due { .. } | Standing::Late { .. } => None,
    }
}
