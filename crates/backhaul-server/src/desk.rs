//! Where the scheduler is told and obeyed: events in, actions carried out, state written down.

use std::collections::HashMap;
use std::sync::Arc;

use backhaul_object::ids::ClientId;
use backhaul_schedule::fleet::{Alert as Found, AlertKind as Kind, CloseReason, Session, Subject, What};
use backhaul_schedule::rollout::RolloutEvent;
use backhaul_schedule::{Action, Event};

use crate::alerts::{Alert, AlertKind};
use crate::clock::{self, Stopwatch};
use crate::daemon::{Inner, aside, lock};
use crate::dispatch::Dispatch;
use crate::error::ServerError;
use crate::fleet::{Client, LinkState, PAUSED, Which};
use crate::hub::Said;
use crate::keep::braking;
use crate::protection;
use crate::pull;
use crate::session::Ending;

/// What makes a run begin that goes on after its connection was lost.
pub(crate) const RESUMED: &str = "resume";
/// Free bytes below which nothing new is started; of a small disk, a twentieth.
const FREE_MIN: u64 = 512 << 20;

impl Inner {
    /// True when this server schedules.
    pub(crate) fn decides(&self) -> bool {
        self.dispatch.is_some()
    }

    pub(crate) fn with_dispatch<T>(&self, with: impl FnOnce(&mut Dispatch) -> T) -> Option<T> {
        self.dispatch.as_ref().map(|dispatch| aside(|| with(&mut lock(dispatch))))
    }

    /// Tells the scheduler what happened, and does what it says.
    pub(crate) fn tell(self: &Arc<Self>, event: Event) {
        aside(|| {
            let actions = self.with_dispatch(|dispatch| dispatch.tell(event));
            self.act(actions.unwrap_or_default());
        });
    }

    pub(crate) fn act(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial(key) => self.dial(ClientId(key), pull::run(Arc::clone(self), ClientId(key))),
                Action::Knock(key, nudge) => {
                    self.dial(ClientId(key), pull::knock(Arc::clone(self), ClientId(key), nudge))
                }
                Action::CancelDial(key) => {
                    if let Some(dial) = lock(&self.dials).remove(&ClientId(key)) {
                        dial.abort();
                    }
                }
                Action::Grant(_, session) => self.hub.say(session, Said::Granted),
                Action::Wait(_, session, place) => self.hub.say(session, Said::Queued(place)),
                Action::Defer(_, session, deferral) => self.hub.say(session, Said::Deferred(deferral)),
                Action::Nudge(_, session, nudge) => self.hub.say(session, Said::Nudge(nudge)),
                Action::Close(key, session, reason) => {
                    match reason {
                        CloseReason::Stalled => {
                            self.abandon(ClientId(key), "nothing was heard of it for ten minutes");
                        }
                        CloseReason::Paused { .. } => self.interrupt(ClientId(key), PAUSED),
                        CloseReason::Superseded => {}
                    }
                    self.hub.close(session, reason);
                }
                Action::Expire(key) => {
                    self.abandon(ClientId(key), "its connection was lost, and it did not come back in time");
                }
                Action::Alert(alert) => self.alert(&alert),
            }
        }
    }

    fn dial(&self, client: ClientId, dial: impl Future<Output = ()> + Send + 'static) {
        // The lock is held until the task is known: it is not cancelled before it is there.
        let mut dials = lock(&self.dials);
        dials.insert(client, tokio::spawn(dial).abort_handle());
    }

    /// A dial was answered and becomes a session: from now on it is not cancelled. False if it was already.
    pub(crate) fn answered(&self, client: ClientId) -> bool {
        lock(&self.dials).remove(&client).is_some()
    }

    /// Tells people what the scheduler has found.
    fn alert(&self, said: &Found) {
        let kind = match said.kind {
            Kind::Overdue => AlertKind::Overdue,
            Kind::Failing => AlertKind::Failing,
            Kind::GroupSilent => AlertKind::GroupSilent,
            Kind::Lost => AlertKind::Lost,
        };
        let (client, group) = match &said.subject {
            Subject::Client(key) => (Some(ClientId(*key)), None),
            Subject::Group(group) => (None, Some(group.name().to_owned())),
        };
        let alert = Alert { kind, client, group, text: said.text.clone(), obstacle: String::new() };
        match said.what {
            What::Raised => self.raise(&alert),
            What::Reminder => {
                let reminded = lock(&self.fleet).remind(&alert).map(drop);
                self.complain(reminded);
            }
            What::Cleared => self.clear(kind, client, alert.group.as_deref()),
        }
        self.courier.iter().for_each(|courier| courier.wake());
    }

    pub(crate) fn raise(&self, alert: &Alert) {
        let raised = lock(&self.fleet).raise(alert, clock::now()).map(drop);
        self.complain(raised);
        self.courier.iter().for_each(|courier| courier.wake());
    }

    pub(crate) fn clear(&self, kind: AlertKind, client: Option<ClientId>, group: Option<&str>) {
        let cleared = lock(&self.fleet).clear(kind, client, group, clock::now()).map(drop);
        self.complain(cleared);
        self.courier.iter().for_each(|courier| courier.wake());
    }

    /// Logs what could not be written down.
    pub(crate) fn complain(&self, result: Result<(), ServerError>) {
        if let Err(error) = result {
            tracing::error!("fleet: {error}");
        }
    }

    /// What is due by time, and what others have changed.
    pub(crate) fn look(self: &Arc<Self>) {
        let changed = lock(&self.fleet).has_changed();
        match changed {
            Ok(true) => self.refresh(),
            Ok(false) => {}
            Err(error) => self.complain(Err(error)),
        }
        if !self.decides() {
            return;
        }
        let moved =
            self.with_dispatch(|dispatch| dispatch.versions().go_on(&lock(&self.fleet), clock::now() as i64));
        match moved {
            Some(Ok(true)) => self.refresh(),
            Some(Err(error)) => self.complain(Err(error)),
            _ => {}
        }
        self.watch_disk();
        let actions = self.with_dispatch(Dispatch::tick);
        self.act(actions.unwrap_or_default());
        self.keep();
    }

    /// Reads everything again.
    pub(crate) fn refresh(self: &Arc<Self>) {
        match self.is_welcome() {
            Ok(is_welcome) => self.hub.dismiss(is_welcome),
            Err(error) => self.complain(Err(error)),
        }
        let newest = self.newest_of(None);
        let refreshed = self.with_dispatch(|dispatch| {
            let fleet = lock(&self.fleet);
            let (mut actions, read) = dispatch.refresh(&fleet, &|client| newest.get(&client).copied());
            let asked = dispatch.take_requests(&fleet);
            lock(&self.rates).set(&dispatch.policies().admission);
            let result = match (read, asked) {
                (Err(error), _) | (Ok(()), Err(error)) => Err(error),
                (Ok(()), Ok(asked)) => {
                    actions.extend(asked);
                    Ok(())
                }
            };
            (actions, result)
        });
        let Some((actions, result)) = refreshed else { return };
        if result.is_err() {
            lock(&self.fleet).look_again();
        }
        self.complain(result);
        self.act(actions);
        self.hub.clients().into_iter().for_each(|client| self.tell_linked(client));
    }

    /// What was asked for while a client's run or dial went on is told again.
    pub(crate) fn ask_again(self: &Arc<Self>, client: ClientId) {
        let actions = self.with_dispatch(|dispatch| dispatch.ask_again(&lock(&self.fleet), client));
        self.act(actions.unwrap_or_default());
    }

    /// One client is here: is anything about it new?
    pub(crate) fn learn(self: &Arc<Self>, client: ClientId) -> Result<(), Ending> {
        let learned = self.with_dispatch(|dispatch| {
            let fleet = lock(&self.fleet);
            let Some(client) = fleet.client_by_id(client)? else { return Ok(Vec::new()) };
            dispatch.learn(&fleet, &client, &|client| self.newest(client))
        });
        self.act(learned.unwrap_or(Ok(Vec::new())).map_err(|error: ServerError| Ending::from(error))?);
        Ok(())
    }

    /// Writes down what has changed.
    pub(crate) fn keep(&self) {
        let kept = self.with_dispatch(|dispatch| {
            let news = dispatch.versions().take_news();
            (dispatch.unkept(), dispatch.versions().keep(&lock(&self.fleet)), news)
        });
        let Some((unkept, kept, news)) = kept else { return };
        self.complain(kept);
        // Nobody waits for the scheduler while it is written down what it has said.
        self.complain(unkept.keep(&mut lock(&self.fleet)));
        for (event, text) in news {
            tracing::info!("{text}");
            let kind = AlertKind::RolloutHalted;
            self.clear(kind, None, None);
            if matches!(event, RolloutEvent::Halted { .. }) {
                self.raise(&Alert { kind, client: None, group: None, text, obstacle: String::new() });
            }
        }
    }

    fn watch_disk(self: &Arc<Self>) {
        let Ok(disk) = rustix::fs::statvfs(self.vault.vault.dir()) else { return };
        let (free, size) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        let low = FREE_MIN.min(size / 20);
        let noted = self.with_dispatch(|dispatch| {
            // Once full, it takes twice as much to be believed again.
            let full = free < if dispatch.is_disk_full() { 2 * low } else { low };
            (dispatch.note_disk(full), full)
        });
        let Some((Some(actions), full)) = noted else { return };
        let kind = AlertKind::StorageFull;
        if full {
            let text = format!("the server's disk has {} MiB left: no backup is started", free >> 20);
            self.raise(&Alert { kind, client: None, group: None, text, obstacle: String::new() });
        } else {
            self.clear(kind, None, None);
        }
        self.act(actions);
    }

    /// A client's agent keeps to a version of the terms, or cannot.
    pub(crate) fn applied(&self, client: &Client, version: u64, result: Result<(), u32>) {
        self.with_dispatch(|dispatch| dispatch.versions().applied(client.id, version, result));
        if result.is_ok() && client.terms_version != version {
            let noted = lock(&self.fleet).terms_applied(client.id, version);
            self.complain(noted);
        }
    }

    pub(crate) fn note_trigger(&self, client: ClientId, trigger: &'static str) {
        lock(&self.triggers).insert(client, trigger);
    }

    /// Writes a run down before it begins.
    pub(crate) fn begin_run(&self, client: ClientId, initiator: &str, link: LinkState) -> Result<(), Ending> {
        let trigger = lock(&self.triggers).get(&client).copied().unwrap_or_default();
        if trigger != RESUMED {
            // Another process, or the next try of the same: the one before is over, though nobody heard how it ended.
            aside(|| self.abandon(client, "the next run was begun, and it was not heard how this one ended"));
        }
        aside(|| lock(&self.fleet).open_run(client, initiator, trigger, clock::now()))
            .map_err(Ending::from)?;
        lock(&self.begun).entry(client).or_insert_with(Stopwatch::start);
        self.with_dispatch(|dispatch| dispatch.note_run(client, link));
        Ok(())
    }

    /// Says to a linked client when it is due now, and what its policy asks of its agent.
    pub(crate) fn tell_linked(&self, client: ClientId) {
        let session = self.with_dispatch(|dispatch| dispatch.linked_on(client)).flatten();
        if let Some(session) = session {
            self.tell_verdict(client, session);
        }
    }

    pub(crate) fn tell_verdict(&self, client: ClientId, session: Session) {
        let row = lock(&self.fleet).client_by_id(client).ok().flatten();
        let (Some(row), Some(dispatch)) = (row, &self.dispatch) else { return };
        let mut dispatch = lock(dispatch);
        self.hub.say(session, Said::Verdict(dispatch.verdict(client)));
        if let Some(terms) = dispatch.new_terms(&row) {
            self.hub.say(session, Said::Terms(terms));
        }
    }

    /// When the newest snapshot of a client's files was made.
    fn newest(&self, client: ClientId) -> Option<u64> {
        self.newest_of(Some(client)).get(&client).copied()
    }

    /// The same of one client or of all.
    fn newest_of(&self, client: Option<ClientId>) -> HashMap<ClientId, u64> {
        let rows = self.vault.vault.visible(client).unwrap_or_default();
        protection::newest(rows, |row| {
            let manifest = self.vault.get(row.ordinal).ok()?;
            protection::origin(&manifest, &self.vault.id_key)
        })
    }

    /// A run will not go on: that is written down, and nothing of it is left here.
    pub(crate) fn abandon(&self, client: ClientId, why: &str) {
        self.complain(lock(&self.fleet).fail_open(Some(client), why, clock::now()));
        self.leave_run(client);
    }

    /// The same of one that somebody has ended.
    fn interrupt(&self, client: ClientId, why: &str) {
        self.complain(lock(&self.fleet).interrupt_open(client, why, clock::now()));
        self.leave_run(client);
    }

    fn leave_run(&self, client: ClientId) {
        lock(&self.begun).remove(&client);
        self.with_dispatch(|dispatch| dispatch.note_run(client, LinkState::None));
    }

    /// What a new server knows better than alerts of before: nothing is dark yet, and the disk is looked at anew.
    pub(crate) fn clear_stale_alerts(&self) {
        let open = lock(&self.fleet).alerts(Which::Open, usize::MAX >> 1).unwrap_or_default();
        for alert in open.into_iter().map(|row| row.alert) {
            if matches!(alert.kind, AlertKind::GroupSilent | AlertKind::StorageFull) {
                self.clear(alert.kind, alert.client, alert.group.as_deref());
            }
        }
    }

    /// Judges runs that nobody has: who was killed, or is recovered, knows of their snapshots only.
    pub(crate) fn judge_missed(&self) {
        self.complain(braking::catch_up(&mut lock(&self.fleet), &self.vault, clock::now()));
    }
}
