//! What the agent senses of its machine: network, sleep, clock, power, cost.
//!
//! - [`network`]: the way to the server, and whether it is one that was seen before;
//! - [`netlink`]: the kernel's hints that something changed;
//! - [`settle`]: when to look and when to tell;
//! - [`sleep`]: gaps in time;
//! - [`power`], [`metered`]: what a backup would cost the user.
//!
//! Invariants:
//! - only changes are told, and after things are quiet what was told last is how things are;
//! - a receiver that is slow loses nothing but what is no longer true;
//! - without netlink and without D-Bus everything works, later.

pub(crate) mod bus;
pub mod metered;
pub mod netlink;
pub mod network;
pub mod power;
pub mod settle;
pub mod sleep;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender, error::TrySendError};
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::clock::{self, Clocks};
use crate::gates::Conditions;
use bus::Bus;
use metered::Metered;
use netlink::Hints;
use network::{Looker, Network, Roots};
use power::Power;
use settle::{Event, Pace, Settle, Step};
use sleep::{Lapse, SleepWatch};

/// Something is different.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The way to the server, after it has stayed for a while; none without a route.
    Network(Option<Network>),
    /// The machine was asleep, or this process was stopped: connections are suspect.
    Woke {
        /// For so many ms.
        asleep_ms: u64,
    },
    /// The wall clock was set.
    WallJumped {
        /// By so many seconds.
        by_s: i64,
    },
    /// The machine was plugged in or out, or its battery is another percent full.
    Power(Power),
    /// The connection costs something else.
    Metered(Metered),
}

/// Where to look, and how often.
#[derive(Debug, Clone)]
pub struct Senses {
    /// The kernel's files.
    pub roots: Roots,
    /// The sensors of power.
    pub power: PathBuf,
    /// When the network is looked at and told.
    pub pace: Pace,
    /// Between two looks at clocks and power, in ms.
    pub tick_ms: u64,
    /// A tick that is late by more was missed by a process that had been stopped, in ms.
    pub late_ms: u64,
    /// Between two questions what the connection costs, in ms; a network that is told asks too.
    pub metered_ms: u64,
}

impl Default for Senses {
    fn default() -> Self {
        Self {
            roots: Roots::default(),
            power: PathBuf::from("/sys/class/power_supply"),
            pace: Pace::default(),
            tick_ms: 5_000,
            late_ms: 30_000,
            metered_ms: 60_000,
        }
    }
}

/// The addresses of the server as they are known now. Must not block: names are resolved elsewhere.
pub type Towards = dyn Fn() -> Vec<SocketAddr> + Send + Sync;

/// Signals that wait for the receiver: so many, then only the last of each kind.
const QUEUE: usize = 16;

/// Senses until it is dropped.
#[derive(Debug)]
pub struct Signals {
    conditions: Arc<Mutex<Conditions>>,
    task: AbortHandle,
}

impl Signals {
    /// Looks once, and then tells what changes. Needs a runtime.
    pub fn start(server: Arc<Towards>, senses: Senses) -> (Self, Receiver<Signal>) {
        let clocks = clock::clocks();
        // Listening comes before the look: what changes between them is heard.
        let hints = Hints::listen();
        let mut looker = Looker::new(senses.roots.clone());
        let towards = server();
        let network = looker.look(&towards).network;
        let first = Conditions {
            metered: metered::by_kind(network.as_ref().map(|network| network.kind)),
            power: power::read(&senses.power),
            network: network.clone(),
            ..Conditions::default()
        };
        let conditions = Arc::new(Mutex::new(first));
        let (tell, told) = mpsc::channel(QUEUE);
        let watcher = Watcher {
            settle: Settle::new(clocks.boot_ms, network, senses.pace),
            sleep: SleepWatch::new(clocks, senses.tick_ms, senses.late_ms),
            next_metered: 0,
            towards,
            outbox: Outbox::default(),
            bus: Bus::default(),
            conditions: Arc::clone(&conditions),
            looker,
            server,
            senses,
        };
        let task = tokio::spawn(watcher.run(hints, tell)).abort_handle();
        (Self { conditions, task }, told)
    }

    /// How things are, as last looked at. Pauses are not sensed.
    pub fn now(&self) -> Conditions {
        let conditions = self.conditions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Conditions { boot_ms: clock::clocks().boot_ms, ..conditions }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What has not been told yet.
#[derive(Debug, Default)]
struct Outbox {
    asleep_ms: Option<u64>,
    wall_by_s: Option<i64>,
    power: Option<Power>,
    metered: Option<Metered>,
    network: Option<Option<Network>>,
}

impl Outbox {
    /// Hands over as much as the receiver has room for: costs before the network that they belong to.
    fn flush(&mut self, tell: &Sender<Signal>) {
        hand(tell, &mut self.asleep_ms, |asleep_ms| Signal::Woke { asleep_ms });
        hand(tell, &mut self.wall_by_s, |by_s| Signal::WallJumped { by_s });
        hand(tell, &mut self.power, Signal::Power);
        hand(tell, &mut self.metered, Signal::Metered);
        hand(tell, &mut self.network, Signal::Network);
    }
}

fn hand<T: Clone>(tell: &Sender<Signal>, waiting: &mut Option<T>, signal: impl Fn(T) -> Signal) {
    if let Some(value) = waiting.take()
        && let Err(TrySendError::Full(_)) = tell.try_send(signal(value.clone()))
    {
        *waiting = Some(value);
    }
}

struct Watcher {
    server: Arc<Towards>,
    /// Its addresses at the last tick.
    towards: Vec<SocketAddr>,
    senses: Senses,
    looker: Looker,
    settle: Settle,
    sleep: SleepWatch,
    bus: Bus,
    /// When to ask for the cost again, in ms since the machine started.
    next_metered: u64,
    outbox: Outbox,
    conditions: Arc<Mutex<Conditions>>,
}

impl Watcher {
    async fn run(mut self, hints: Hints, tell: Sender<Signal>) {
        let mut tick = tokio::time::interval(Duration::from_millis(self.senses.tick_ms.max(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !tell.is_closed() {
            // Timers stand still while the machine sleeps: the tick finds what is overdue.
            let wait = self.settle.deadline().saturating_sub(clock::clocks().boot_ms);
            tokio::select! {
                _ = tick.tick() => {
                    self.sense_power();
                    self.sense_names();
                }
                () = tokio::time::sleep(Duration::from_millis(wait)) => {}
                () = hints.heard() => self.settle.handle(clock::clocks().boot_ms, Event::Hint),
            }
            let clocks = clock::clocks();
            self.sense_time(clocks);
            let moved = self.sense_network(clocks.boot_ms);
            if moved || clocks.boot_ms >= self.next_metered {
                self.sense_cost().await;
                self.next_metered = clocks.boot_ms.saturating_add(self.senses.metered_ms);
            }
            self.outbox.flush(&tell);
        }
    }

    fn sense_time(&mut self, clocks: Clocks) {
        for lapse in self.sleep.read(clocks) {
            match lapse {
                Lapse::Woke { asleep_ms } => {
                    let before = self.outbox.asleep_ms.unwrap_or_default();
                    self.outbox.asleep_ms = Some(before.saturating_add(asleep_ms));
                    self.settle.handle(clocks.boot_ms, Event::Resumed);
                    self.sense_power();
                }
                Lapse::WallJumped { by_s } => {
                    let before = self.outbox.wall_by_s.unwrap_or_default();
                    self.outbox.wall_by_s = Some(before.saturating_add(by_s));
                }
            }
        }
    }

    /// Looks if it is time to; returns whether another network is to be told.
    fn sense_network(&mut self, now: u64) -> bool {
        let mut moved = false;
        while let Some(step) = self.settle.poll(now) {
            match step {
                Step::Look => {
                    let sight = self.looker.look(&(self.server)());
                    self.update(|conditions| conditions.network.clone_from(&sight.network));
                    self.settle.handle(now, Event::Look(sight.network));
                    if sight.again {
                        self.settle.handle(now, Event::Hint);
                    }
                }
                Step::Report(network) => {
                    self.outbox.network = Some(network);
                    moved = true;
                }
            }
        }
        moved
    }

    /// The server has other addresses: the way to it may be another too.
    fn sense_names(&mut self) {
        let towards = (self.server)();
        if towards != self.towards {
            self.towards = towards;
            self.settle.handle(clock::clocks().boot_ms, Event::Hint);
        }
    }

    fn sense_power(&mut self) {
        let power = power::read(&self.senses.power);
        if self.update(|conditions| std::mem::replace(&mut conditions.power, power)) != power {
            self.outbox.power = Some(power);
        }
    }

    async fn sense_cost(&mut self) {
        let kind = self.update(|conditions| conditions.network.as_ref().map(|network| network.kind));
        let metered = metered::ask(&mut self.bus, kind).await;
        if self.update(|conditions| std::mem::replace(&mut conditions.metered, metered)) != metered {
            self.outbox.metered = Some(metered);
        }
    }

    fn update<T>(&self, change: impl FnOnce(&mut Conditions) -> T) -> T {
        change(&mut self.conditions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
