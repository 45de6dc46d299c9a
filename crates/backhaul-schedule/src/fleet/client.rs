//! One client's record in the fleet, and what it wants at a moment.

use std::sync::Arc;

use super::queue::{Class, Lane, Rank, Side};
use super::{Cause, ClientKey, Memory, NotNow, Plan, Session, Trigger};
use crate::Now;
use crate::due::{Record, Standing, next_begin, period_begin, standing};
use crate::policy::Initiator;
use crate::reach::{DialResult, Mode, Remedy};

/// After so many seconds of waiting a client moves up one class.
pub(super) const AGEING: i64 = 30 * 60;
/// A client whose agent keeps time asks by itself; this long after its moment it is reminded.
const NUDGE_GRACE: i64 = 15;
/// Between two nudges that nobody asked for.
pub(super) const NUDGE_SPACING: u64 = 600;
/// Three nudges that somebody asked for are within no less than this.
pub(super) const NUDGES_BY_HAND: u64 = 3_600;
/// Dials that a client gets in one period, and knocks: then it is waited for.
pub(super) const DIALS_PER_PERIOD: u32 = 12;
const KNOCKS_PER_PERIOD: u32 = 4;
/// Seconds that a dialled client is given before it should come by itself, and for which a stranger is not dialled again.
const SAFETY_NET: i64 = 3_600;
const STRANGER: u64 = 86_400;
/// A client that came by itself while it was being dialled is dialled again after this, in seconds.
const STARTING: u64 = 5;
/// From one obstacle in time to the next, when looking ahead: a pause, a shut window, its own moment, and some.
const JUMPS: u32 = 16;
/// First pause after a run that failed once it had begun, in seconds.
const RETRY: u64 = 300;
/// A refusal is good for so long at most, in seconds.
pub(super) const NOT_NOW_MAX: i64 = 86_400;

/// Where a client's run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Idle,
    Dialling,
    Running {
        session: Session,
        lease: u64,
    },
    /// Its connection was lost; its slot is kept until then.
    Interrupted {
        until: u64,
    },
}

/// A request that waits on an open connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asking {
    pub session: Session,
    pub trigger: Trigger,
    /// Seconds since 1970 at which it first asked.
    pub since: i64,
}

/// A connection that stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    pub session: Session,
    pub since: Now,
}

/// Dials that nobody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tries {
    pub failures: u32,
    /// Seconds since boot.
    pub not_before: u64,
    /// Dials in the period that began then.
    pub dials: u32,
    pub period: i64,
}

/// What was said to a client to make it come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Nudged {
    /// The one that is not answered: number, and when it expires.
    pub open: Option<(u64, u64)>,
    pub last: Option<u64>,
    /// The last three that somebody asked for.
    pub by_hand: [Option<u64>; 3],
}

/// Since when somebody has asked for it by hand, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manual {
    pub since: i64,
}

#[derive(Debug, Clone)]
pub(super) struct Client {
    pub plan: Plan,
    pub last_success: Option<i64>,
    pub phase: Phase,
    pub asking: Option<Asking>,
    pub link: Option<Link>,
    pub manual: Option<Manual>,
    pub tries: Tries,
    pub nudged: Nudged,
    pub memory: Memory,
    /// When it began to wait for being dialled.
    pub queued: Option<i64>,
    /// Where it is in the queue, or among those to be nudged.
    pub place: Option<(Lane, Rank)>,
    pub asked_for: Option<Rank>,
    /// After a run that failed: no other is started before then, seconds since boot.
    pub retry_at: u64,
    /// The day for which `auto` was considered.
    pub considered: Option<i64>,
    /// The slot that it holds.
    pub held: Option<Lane>,
    pub timer: Option<u64>,
    /// What its run began with.
    pub by: Remedy,
    /// It came by itself while it was being dialled: that it did not answer says little, it may have been starting.
    pub came_meanwhile: bool,
    /// Last time at which its time awake was counted, boot time.
    pub counted: Option<u64>,
}

/// What a client wants at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    /// A slot.
    Start(Side, Class),
    /// A word over its standing link.
    Nudge(Cause),
    /// The same by a short dial.
    Knock(Cause),
}

impl Client {
    pub fn new(plan: Plan, last_success: Option<i64>) -> Self {
        Self {
            plan,
            last_success,
            phase: Phase::Idle,
            asking: None,
            link: None,
            manual: None,
            tries: Tries::default(),
            nudged: Nudged::default(),
            memory: Memory::default(),
            queued: None,
            place: None,
            asked_for: None,
            retry_at: 0,
            considered: None,
            held: None,
            timer: None,
            by: Remedy::CheckIn,
            came_meanwhile: false,
            counted: None,
        }
    }

    pub fn record(&self, key: &ClientKey) -> Record {
        Record { offset: offset(key), last_success: self.last_success, added: self.plan.added }
    }

    pub fn standing(&self, key: &ClientKey, now: i64) -> Standing {
        standing(&self.plan.policy, &self.record(key), now)
    }

    pub fn mode(&self) -> Mode {
        match self.plan.initiator {
            Initiator::Fixed(mode) => mode,
            Initiator::Auto => match &self.memory.auto {
                Some(auto) => auto.mode(),
                None if self.plan.has_address => Mode::Server,
                None => Mode::Client,
            },
        }
    }

    /// True when the client's own link is used because its listener is not reached.
    pub fn falls_back(&self) -> bool {
        self.mode() == Mode::Server && self.memory.reach.falls_back()
    }

    /// True when it is worth a standing link.
    pub fn should_stay(&self) -> bool {
        self.mode() == Mode::Hybrid || self.falls_back()
    }

    /// The session that it runs on, or asks on.
    pub fn newest(&self) -> Option<Session> {
        match self.phase {
            Phase::Running { session, .. } => Some(session),
            _ => self.asking.map(|asking| asking.session),
        }
    }

    /// Somebody waits for a run of it, or for it to be nudged.
    pub fn is_asked_for(&self) -> bool {
        self.manual.is_some() || self.memory.nudge_wanted
    }

    pub fn is_paused(&self, now: i64) -> bool {
        self.plan.paused_until.is_some_and(|until| now < until)
    }

    pub fn refuses(&self, now: i64) -> Option<&NotNow> {
        self.memory.not_now.as_ref().filter(|not_now| now < not_now.until)
    }

    /// What it wants now. `standing` is its own.
    pub fn wish(&self, standing: Standing, now: Now, dark: Dark) -> Wish {
        if self.phase != Phase::Idle {
            return Wish::Nothing;
        }
        let class = self.class(standing, now.wall);
        if let Some(asking) = self.asking {
            let class =
                if asking.trigger == Trigger::Manual { Class::Manual } else { class.unwrap_or(Class::Due) };
            return Wish::Start(Side::Push, class);
        }
        let Some(class) = class.filter(|class| *class != Class::Opportunistic) else { return Wish::Nothing };
        let by_hand = class == Class::Manual;
        let held_back = self.refuses(now.wall).is_some() || now.boot < self.retry_at;
        if self.nudged.open.is_some() || (!by_hand && held_back) {
            return Wish::Nothing;
        }
        if self.link.is_some() {
            return self.nudge_wish(standing, now).map_or(Wish::Nothing, Wish::Nudge);
        }
        if !self.plan.has_address || now.boot < self.tries.not_before {
            return Wish::Nothing;
        }
        match self.mode() {
            // That it is gone is believed once a dial has shown it: a clock may have jumped, or the server slept.
            _ if !by_hand && self.is_lost(now.wall) && self.tries.failures > 0 => Wish::Nothing,
            _ if !by_hand && self.dials(now.wall) >= DIALS_PER_PERIOD => Wish::Nothing,
            Mode::Server if !by_hand && !self.memory.reach.may_dial(now.wall) => Wish::Nothing,
            Mode::Server => Wish::Start(Side::Pull, class),
            // A laptop's listener is dialled only when it matters, and not often: it is away more often than not.
            _ if !by_hand && self.dials(now.wall) >= KNOCKS_PER_PERIOD => Wish::Nothing,
            _ if dark == Dark::No && (by_hand || class == Class::Late) => {
                self.nudge_wish(standing, now).map_or(Wish::Nothing, Wish::Knock)
            }
            _ => Wish::Nothing,
        }
    }

    /// Why it may be nudged now; none if that was done often enough.
    pub fn nudge_wish(&self, standing: Standing, now: Now) -> Option<Cause> {
        if self.is_asked_for() {
            let may = self.nudged.by_hand[2].is_none_or(|oldest| oldest + NUDGES_BY_HAND <= now.boot);
            return may.then_some(Cause::Manual);
        }
        let cause = if matches!(standing, Standing::Late { .. }) { Cause::Overdue } else { Cause::Due };
        (self.nudge_after(standing, now) <= now.boot).then_some(cause)
    }

    /// True when the nudge that it has not followed yet is one that somebody asked for.
    pub fn is_nudged_by_hand(&self) -> bool {
        self.nudged.open.is_some() && self.nudged.by_hand[0].is_some_and(|at| Some(at) == self.nudged.last)
    }

    /// Seconds since boot before which it is not nudged unasked.
    pub fn nudge_after(&self, standing: Standing, now: Now) -> u64 {
        let due = match standing {
            Standing::Due { since } | Standing::Late { since } => {
                let ago = u64::try_from(now.wall - since).unwrap_or(0);
                now.boot.saturating_sub(ago)
            }
            _ => now.boot,
        };
        let linked = self.link.map_or(0, |link| link.since.boot);
        let spaced = self.nudged.last.map_or(0, |last| last + NUDGE_SPACING);
        (due.max(linked) + NUDGE_GRACE.unsigned_abs()).max(spaced).max(self.tries.not_before)
    }

    fn class(&self, standing: Standing, now: i64) -> Option<Class> {
        match standing {
            _ if self.is_asked_for() => Some(Class::Manual),
            _ if self.is_paused(now) => None,
            Standing::Late { .. } => Some(Class::Late),
            Standing::Due { .. } => Some(Class::Due),
            Standing::Early { .. } => Some(Class::Opportunistic),
            Standing::Protected { .. } | Standing::Waiting { .. } => None,
        }
    }

    /// Its place in the order, for a wish to start.
    pub fn rank(&self, key: &ClientKey, class: Class, side: Side, now: Now) -> Rank {
        let since = self.asking.map(|asking| asking.since).or(self.queued).unwrap_or(now.wall);
        let levels = self.levels(since, now.wall);
        let perish = if levels > 0 { 0 } else { self.perish(side, now.wall) };
        let priority = if levels > 0 { 1 } else { self.plan.policy.priority };
        let class = class.promoted(levels);
        Rank { class, priority, perish, since, last_success: self.last_success, tie: offset(key) }
    }

    fn levels(&self, since: i64, now: i64) -> i64 {
        (now.saturating_sub(since) / AGEING).clamp(0, 3)
    }

    /// When its rank changes next, seconds since 1970.
    pub fn promotion(&self, now: i64) -> Option<i64> {
        let since = self.asking.map(|asking| asking.since).or(self.queued)?;
        let levels = self.levels(since, now);
        (levels < 3).then(|| since.saturating_add((levels + 1) * AGEING))
    }

    fn perish(&self, side: Side, now: i64) -> u8 {
        if side == Side::Pull {
            return 2;
        }
        let since = self.link.map_or(now, |link| link.since.wall);
        match self.memory.reach.remaining(since, now) {
            // Unknown: more likely a laptop than not.
            None => 0,
            Some(seconds) if seconds < 3_600 => 0,
            Some(seconds) if seconds < 4 * 3_600 => 1,
            Some(_) => 2,
        }
    }

    pub fn lane(&self, side: Side) -> Lane {
        Lane { group: self.plan.group.clone(), vault: Arc::clone(&self.plan.vault), side }
    }

    /// In how many seconds it should come by itself; 0 is now.
    pub fn due_in(&self, key: &ClientKey, now: Now) -> i64 {
        if self.is_asked_for() {
            return 0;
        }
        let (next, due) = match self.standing(key, now.wall) {
            Standing::Protected { next } | Standing::Early { next } | Standing::Waiting { next } => {
                (next, false)
            }
            Standing::Due { .. } | Standing::Late { .. } => (now.wall, true),
        };
        let wait = (next - now.wall).max(0);
        let paused =
            self.plan.paused_until.map_or(0, |until| until.saturating_sub(now.wall).clamp(0, 86_400));
        // The server dials it; when that has failed, its own coming is the safety net.
        let dialled = self.mode() == Mode::Server && self.plan.has_address && !self.falls_back();
        let net = if dialled && !(due && self.tries.failures > 0) { SAFETY_NET } else { 0 };
        wait.max(paused) + net
    }

    /// From which moment on it is due and let in when it asks, seconds since 1970.
    pub fn let_in_at(&self, key: &ClientKey, now: i64) -> i64 {
        if self.is_asked_for() {
            return now;
        }
        let late = self.last_success.unwrap_or(self.plan.added).saturating_add(self.plan.policy.rpo);
        let mut at = self.plan.paused_until.map_or(now, |until| until.max(now));
        // From a shut window to its opening, and from there to its own moment.
        for _ in 0..JUMPS {
            at = match self.standing(key, at) {
                Standing::Due { .. } | Standing::Late { .. } => break,
                Standing::Early { next } | Standing::Waiting { next } if late > at => next.min(late),
                Standing::Early { next } | Standing::Waiting { next } | Standing::Protected { next } => next,
            }
        }
        at
    }

    /// A dial was not answered.
    pub fn missed(&mut self, key: &ClientKey, result: DialResult, now: Now) {
        self.manual = None;
        if self.came_meanwhile && result != DialResult::Stranger {
            self.tries.not_before = now.boot + STARTING + offset(key) % STARTING;
            return;
        }
        let pause = if result == DialResult::Stranger { STRANGER } else { self.pause(key) };
        self.tries.failures = self.tries.failures.saturating_add(1);
        self.tries.not_before = now.boot + pause;
    }

    /// The next pause after a failed dial, in seconds.
    pub fn pause(&self, key: &ClientKey) -> u64 {
        pause(key, self.tries.failures, 30)
    }

    /// The next pause after a failed run, in seconds.
    pub fn retry_pause(&self, key: &ClientKey) -> u64 {
        pause(key, self.memory.failed_runs, RETRY)
    }

    /// Dials in the period that this moment is in.
    pub fn dials(&self, now: i64) -> u32 {
        if period_begin(&self.plan.policy, now) == self.tries.period { self.tries.dials } else { 0 }
    }

    /// When the next period begins.
    pub fn next_period(&self, key: &ClientKey, now: Now) -> i64 {
        // A moment after its beginning, each client at its own.
        next_begin(&self.plan.policy, now.wall).saturating_add((offset(key) % 60) as i64)
    }
}

/// A pause that doubles from `first` seconds to two hours, between half and all of it, by the client's own number: so many
/// that failed together do not come back together.
fn pause(key: &ClientKey, failures: u32, first: u64) -> u64 {
    let doubled = (first << failures.min(16)).min(7_200);
    let own = offset(key).rotate_left(7 * (failures % 9)) % (doubled / 2 + 1);
    doubled / 2 + own
}

/// Its network group has fallen silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dark {
    Yes,
    No,
}

/// A client's own number: ids are random, so their bytes are as good as a hash.
pub fn offset(key: &ClientKey) -> u64 {
    let mut head = [0; 8];
    head.copy_from_slice(&key[..8]);
    u64::from_le_bytes(head)
}
