//! Where the scheduler is told and obeyed: events in, actions carried out, state written down.

use std::sync::Arc;

use backhaul_object::ids::ClientId;
use backhaul_schedule::fleet::{Alert as Found, AlertKind as Kind, Serving, Session, Subject, What};
use backhaul_schedule::rollout::RolloutEvent;
use backhaul_schedule::{Action, Event};

use crate::alerts::{Alert, AlertKind};
use crate::clock::{self, Stopwatch};
use crate::daemon::{Inner, lock};
use crate::dispatch::Dispatch;
use crate::error::ServerError;
use crate::fleet::LinkState;
use crate::gate::id;
use crate::hub::Said;
use crate::session::Ending;
use crate::{policies, pull};

/// Free bytes below which nothing new is started; of a small disk, a twentieth.
const FREE_MIN: u64 = 512 << 20;

impl Inner {
    /// True when this server schedules.
    pub(crate) fn decides(&self) -> bool {
        self.dispatch.is_some()
    }

    pub(crate) fn with_dispatch<T>(&self, with: impl FnOnce(&mut Dispatch) -> T) -> Option<T> {
        self.dispatch.as_ref().map(|dispatch| with(&mut lock(dispatch)))
    }

    /// Tells the scheduler what happened, and does what it says.
    pub(crate) fn tell(self: &Arc<Self>, event: Event) {
        let actions = self.with_dispatch(|dispatch| dispatch.tell(event));
        self.act(actions.unwrap_or_default());
    }

    fn act(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Dial(key) => self.dial(id(key), pull::run(Arc::clone(self), id(key))),
                Action::Knock(key, nudge) => {
                    self.dial(id(key), pull::knock(Arc::clone(self), id(key), nudge))
                }
                Action::CancelDial(key) => {
                    if let Some(dial) = lock(&self.dials).remove(&id(key)) {
                        dial.abort();
                    }
                }
                Action::Grant(_, session) => self.hub.say(session, Said::Granted),
                Action::Wait(_, session, place) => self.hub.say(session, Said::Queued(place)),
                Action::Defer(_, session, deferral) => self.hub.say(session, Said::Deferred(deferral)),
                Action::Nudge(_, session, nudge) => self.hub.say(session, Said::Nudge(nudge)),
                Action::Close(_, session, reason) => self.hub.close(session, reason),
                Action::Expire(key) => {
                    let why = "its connection was lost, and it did not come back in time";
                    let failed = lock(&self.fleet).fail_open(Some(id(key)), why, clock::now());
                    self.complain(failed);
                    self.with_dispatch(|dispatch| dispatch.note_run(id(key), LinkState::None));
                }
                Action::Alert(alert) => self.alert(&alert),
            }
        }
    }

    fn dial(&self, client: ClientId, dial: impl Future<Output = ()> + Send + 'static) {
        let task = tokio::spawn(dial);
        let older = lock(&self.dials).insert(client, task.abort_handle());
        // A dial that has become a session is not ended by the next one's coming.
        drop(older);
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
            Subject::Client(key) => (Some(id(*key)), None),
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

    fn clear(&self, kind: AlertKind, client: Option<ClientId>, group: Option<&str>) {
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
        let refreshed = self.with_dispatch(|dispatch| {
            let actions = dispatch.refresh(&lock(&self.fleet), &|client| self.newest(client));
            lock(&self.rates).set(&dispatch.policies().admission);
            actions
        });
        match refreshed {
            Some(Ok(actions)) => self.act(actions),
            Some(Err(error)) => self.complain(Err(error)),
            None => {}
        }
        self.hub.clients().into_iter().for_each(|client| self.tell_linked(client));
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
            (dispatch.keep(&mut lock(&self.fleet)), news)
        });
        let Some((kept, news)) = kept else { return };
        self.complain(kept);
        for (event, text) in news {
            tracing::info!("{text}");
            if matches!(event, RolloutEvent::Halted { .. }) {
                let kind = AlertKind::RolloutHalted;
                self.raise(&Alert { kind, client: None, group: None, text, obstacle: String::new() });
            }
        }
    }

    fn watch_disk(self: &Arc<Self>) {
        let Ok(disk) = rustix::fs::statvfs(self.vault.vault.dir()) else { return };
        let (free, size) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        let full = free < FREE_MIN.min(size / 20);
        let was = self.with_dispatch(|dispatch| dispatch.note_disk(full));
        match (was, full) {
            (Some(false), true) => {
                self.tell(Event::Serving(Serving::Full));
                let text = format!("the server's disk has {} MiB left: no backup is started", free >> 20);
                let kind = AlertKind::StorageFull;
                self.raise(&Alert { kind, client: None, group: None, text, obstacle: String::new() });
            }
            (Some(true), false) => {
                self.tell(Event::Serving(Serving::Open));
                self.clear(AlertKind::StorageFull, None, None);
            }
            _ => {}
        }
    }

    /// A client's agent keeps to a version of the terms, or cannot.
    pub(crate) fn applied(&self, client: ClientId, version: u64, result: Result<(), u32>) {
        self.with_dispatch(|dispatch| dispatch.versions().applied(client, version, result));
        if result.is_ok() {
            let noted = lock(&self.fleet).terms_applied(client, version);
            self.complain(noted);
        }
    }

    pub(crate) fn note_trigger(&self, client: ClientId, trigger: &'static str) {
        lock(&self.triggers).insert(client, trigger);
    }

    /// Writes a run down before it begins.
    pub(crate) fn begin_run(&self, client: ClientId, initiator: &str, link: LinkState) -> Result<(), Ending> {
        let trigger = lock(&self.triggers).get(&client).copied().unwrap_or_default();
        lock(&self.fleet).open_run(client, initiator, trigger, clock::now()).map_err(Ending::from)?;
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
        let (version, policies) = dispatch.versions().of(client);
        if version != row.terms_version {
            let terms = policies::terms(version, &policies::policy_of(policies, &row).agent);
            self.hub.say(session, Said::Terms(terms));
        }
    }

    /// When a client's newest snapshot was made.
    fn newest(&self, client: ClientId) -> Option<u64> {
        let rows = self.vault.vault.snapshots(Some(client)).unwrap_or_default();
        rows.iter().map(|row| row.server_time).max()
    }
}
