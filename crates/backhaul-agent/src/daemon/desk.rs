//! The machine that decides, and its hands.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use backhaul_net::transport::KEEP_ALIVE;
use backhaul_proto::wire;
use tokio::sync::mpsc;

use super::link::{self, Heard, Said, Tell, Wanted};
use super::{AgentDaemon, Outlook, Standing, end_of, lock, not_now};
use crate::attend::{Attendant, Gate, Happening, NudgeReply, Order, Trigger};
use crate::clock;
use crate::error::AgentError;
use crate::gates::{self, Urgency, Verdict};
use crate::inhibit;
use crate::introduce;
use crate::pace::{Crossing, Pace};
use crate::priority::Priority;
use crate::run::{self, RunRequest};
use crate::signals::Signal;
use crate::signals::network::Network;

/// The machine that decides, with hands.
pub(super) struct Desk {
    daemon: Arc<AgentDaemon>,
    attendant: Attendant,
    outlook: Arc<Outlook>,
    tell: mpsc::UnboundedSender<Said>,
    /// The number of the newest link: what happens to older ones is of no interest.
    link: u64,
    pace: Pace,
    /// The time between two packets of that link, and the network that it was dialled in.
    keep_alive: Duration,
    dialled_in: Option<Network>,
    gates: (Gate, Gate),
}

impl Desk {
    pub(super) fn new(
        daemon: Arc<AgentDaemon>,
        outlook: Arc<Outlook>,
        tell: mpsc::UnboundedSender<Said>,
    ) -> Self {
        let (_, terms) = daemon.home.terms();
        if terms.yields {
            Priority::Low.apply();
        }
        let attendant = Attendant::new(terms, RandomState::new().build_hasher().finish());
        let (pace, gates) = (Pace::default(), (Gate::Open, Gate::Open));
        Self {
            daemon,
            attendant,
            outlook,
            tell,
            link: 0,
            pace,
            keep_alive: KEEP_ALIVE,
            dialled_in: None,
            gates,
        }
    }

    /// When it wants to hear of the time.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.attendant.deadline()
    }

    pub(super) fn on_signal(&mut self, signal: Signal) {
        match signal {
            Signal::Network(network) => {
                self.happen(Happening::Network(network.map(|network| network.fingerprint)));
                self.report();
            }
            Signal::Woke { asleep_ms } => {
                tracing::info!("slept for {} s", asleep_ms / 1_000);
                self.happen(Happening::Woke);
            }
            Signal::Power(power) => {
                self.happen(Happening::Power(power.supply));
                self.report();
            }
            Signal::Metered(_) => self.report(),
            Signal::WallJumped { by_s } => {
                tracing::info!("the clock was set by {by_s} s");
                self.happen(Happening::Tick);
            }
        }
    }

    pub(super) fn on_said(&mut self, said: Said) {
        match said.heard {
            Heard::Happened(happening) if said.link.is_none_or(|link| link == self.link) => {
                self.happen(happening);
            }
            Heard::Happened(happening) => tracing::debug!("of an older link: {happening:?}"),
            Heard::Crossed(crossing) if said.link == Some(self.link) => self.on_crossing(crossing),
            Heard::Crossed(_) => {}
            Heard::Errand(token) => {
                tokio::spawn(Arc::clone(&self.daemon).come_for(token));
            }
            Heard::Lateness(lateness) => *lock(&self.outlook.lateness) = lateness,
            Heard::Terms(version, terms) => {
                tracing::info!("keeps to policy version {version}");
                if terms.yields {
                    Priority::Low.apply();
                }
                self.happen(Happening::Terms(Box::new(terms)));
            }
        }
    }

    fn report(&self) {
        let report = introduce::report(&self.outlook.conditions(), self.daemon.port());
        self.want(Wanted::Report(report));
    }

    fn want(&self, wanted: Wanted) {
        if let Some(standing) = &*lock(&self.daemon.standing) {
            // A link that has gone has said so, or is about to.
            let _ = standing.wanted.send(wanted);
        }
    }

    fn gate(&self, urgency: Urgency) -> Gate {
        let (terms, now) = (self.attendant.terms(), clock::now() as i64);
        if self.daemon.settings.config().paths.is_empty() {
            return Gate::Shut { reason: "no paths to back up are configured".to_owned(), until: None };
        }
        match gates::decide(terms, &self.outlook.conditions(), *lock(&self.outlook.lateness), urgency, now) {
            Verdict::Open => Gate::Open,
            Verdict::Shut { reason, until } => Gate::Shut { reason: reason.to_string(), until },
        }
    }

    /// Tells the machine what happened, and does what it orders.
    pub(super) fn happen(&mut self, happening: Happening) {
        let gates = (self.gate(Urgency::Automatic), self.gate(Urgency::Manual));
        let now = clock::clocks().boot_ms;
        let mut orders = Vec::new();
        if gates != self.gates {
            self.gates = gates.clone();
            orders.extend(self.attendant.handle(now, Happening::Gates(gates.0, gates.1)));
        }
        orders.extend(self.attendant.handle(now, happening));
        for order in orders {
            tracing::debug!("order: {order:?}");
            self.carry_out(order);
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Dial => self.dial(),
            Order::Hang => self.want(Wanted::Hang),
            Order::Migrate => self.migrate(),
            Order::Push { trigger, ticket } => self.push(trigger, ticket),
            Order::Reply { id, reply } => self.want(Wanted::Reply(reply_of(id, reply))),
            Order::Unwilling { reason, until } => self.want(Wanted::NotNow(not_now(reason, until))),
        }
    }

    fn dial(&mut self) {
        let home = &self.daemon.home;
        let hello = introduce::hello(home, wire::Trigger::Timer);
        let not_now = match &self.gates.0 {
            Gate::Open => None,
            Gate::Shut { reason, until } => Some(not_now(reason.clone(), *until)),
        };
        let report = Some(introduce::report(&self.outlook.conditions(), self.daemon.port()));
        let hello = wire::Hello { report, not_now, ..hello };
        let keep_alive = self.fitting();
        (self.keep_alive, self.dialled_in) = (keep_alive, self.network());
        tracing::info!("dials the server for a link with a packet in {} s", keep_alive.as_secs());
        let (wanted, wishes) = mpsc::unbounded_channel();
        self.link += 1;
        let tell = Tell::new(self.link, self.tell.clone());
        let servers = self.daemon.settings.config().servers;
        let task = tokio::spawn(link::run(home.clone(), servers, hello, keep_alive, wishes, tell));
        // The one before hears that nobody wants anything of it any more, and says goodbye.
        *lock(&self.daemon.standing) = Some(Standing { wanted, task });
    }

    /// The time between two packets of a link in this network.
    fn fitting(&self) -> Duration {
        self.pace.of(self.attendant.terms(), self.network().map(|network| network.fingerprint))
    }

    fn network(&self) -> Option<Network> {
        self.outlook.signals.now().network
    }

    /// A link keeps the pace it was dialled with: one that could be quieter, or must not be so quiet, is dialled again.
    fn on_crossing(&mut self, crossing: Crossing) {
        if let Some(network) = &self.dialled_in {
            self.pace.learn(network, crossing);
        }
        if self.attendant.is_linked() && self.fitting() != self.keep_alive {
            self.dial();
        }
    }

    fn migrate(&mut self) {
        if self.fitting() < self.keep_alive {
            self.dial();
        } else {
            self.want(Wanted::Migrate);
        }
        for path in self.daemon.ways.open() {
            tokio::spawn(async move { link::migrate(&path).await });
        }
    }

    fn push(&self, trigger: Trigger, ticket: Vec<u8>) {
        let trigger = match trigger {
            Trigger::Join => wire::Trigger::Join,
            Trigger::Timer => wire::Trigger::Timer,
            Trigger::Nudge => wire::Trigger::Nudge,
        };
        let (daemon, tell, conditions) =
            (Arc::clone(&self.daemon), self.tell.clone(), self.outlook.conditions());
        tokio::spawn(async move {
            let _turn = daemon.turn.lock().await;
            let passage = daemon.passage((trigger, ticket), None, &conditions, &tell);
            let config = daemon.settings.config();
            let awake = inhibit::during_run(&conditions).await;
            let kept = Arc::clone(&passage.kept);
            let outcome = match RunRequest::of(&config, passage) {
                Ok(request) => run::push(&daemon.home, &config.servers, &request).await,
                Err(error) => Err(error),
            };
            drop(awake);
            match &outcome {
                Err(AgentError::Deferred { why, .. }) => tracing::info!("{why}"),
                _ => (daemon.told)(&outcome),
            }
            // The daemon may be gone.
            let over = Happening::Ended(end_of(&outcome, &kept));
            let _ = tell.send(Said { link: None, heard: Heard::Happened(over) });
        });
    }
}

fn reply_of(id: u64, reply: NudgeReply) -> wire::NudgeReply {
    let (answer, not_now) = match reply {
        NudgeReply::Accepted => (wire::NudgeAnswer::Accepted, None),
        NudgeReply::Running => (wire::NudgeAnswer::Running, None),
        NudgeReply::NotNow { reason, until } => (wire::NudgeAnswer::NotNow, Some(not_now(reason, until))),
    };
    wire::NudgeReply { id, answer: answer.into(), not_now }
}
