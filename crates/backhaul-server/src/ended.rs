//! What the end of a session means for its client's run.

use std::sync::Arc;

use backhaul_object::ids::ClientId;
use backhaul_object::snapshot::Origin;
use backhaul_proto::end;
use backhaul_schedule::fleet::{NotNow, Outcome as Ended, Session};
use backhaul_schedule::{Event, rollout};

use crate::clock;
use crate::daemon::{Inner, lock};
use crate::error::ServerError;
use crate::fleet::LinkState;
use crate::session::{Ending, EndingKind, Outcome};

impl Inner {
    pub(crate) fn ended(self: &Arc<Self>, client: ClientId, session: Session, outcome: &Outcome) {
        let runs = self.with_dispatch(|dispatch| dispatch.runs_on(client, session)).unwrap_or(true);
        if !runs && outcome.committed.is_some() {
            // Another session has taken its place meanwhile: the snapshot is there all the same.
            self.with_dispatch(|dispatch| dispatch.forget(client));
            self.complain(self.learn(client).map_err(|ending| ServerError::Session(ending.text)));
        }
        let why = outcome.ending.as_ref().map_or("", |ending| &ending.text);
        let ended = self.came_to(client, outcome);
        // The next one may wait for its place already: only after this one has left is its run written down.
        if runs || self.hub.writes(client, session) {
            ended.iter().for_each(|ended| self.write_down(client, ended, why));
        }
        let Some(ended) = ended.filter(|_| runs) else {
            return self.tell(Event::LinkLost(client.0, session));
        };
        self.note_end(client, &ended);
        self.tell(Event::Ended(client.0, session, ended));
        self.ask_again(client);
        self.tell_linked(client);
    }

    /// How a run has ended; none when it may go on over another connection.
    fn came_to(&self, client: ClientId, outcome: &Outcome) -> Option<Ended> {
        let lost = Ending::lost("it ended without a snapshot");
        Some(match (outcome.committed, outcome.ending.clone().unwrap_or(lost)) {
            (Some(Origin::Stream), _) => Ended::Aside,
            (Some(Origin::Files), _) => {
                let took = lock(&self.begun).get(&client).map_or(1, |begun| begun.elapsed().as_secs());
                Ended::Succeeded { at: clock::now() as i64, took }
            }
            // The agent drops its stale state and comes back in the same run.
            (None, Ending { kind: EndingKind::Lost, .. } | Ending { code: end::STALE, .. }) => return None,
            (None, Ending { kind: EndingKind::NotNow, text, retry, .. }) => {
                Ended::NotNow(NotNow { reason: text, until: clock::now() as i64 + retry.after as i64 })
            }
            (None, Ending { kind: EndingKind::CutShort, .. }) => Ended::CutShort,
            (None, Ending { code, text, .. }) => Ended::Failed { code, why: text },
        })
    }

    /// Writes down how a run ended that made no snapshot.
    fn write_down(&self, client: ClientId, ended: &Ended, why: &str) {
        let (fleet, now) = (lock(&self.fleet), clock::now());
        self.complain(match ended {
            Ended::Failed { .. } => fleet.fail_open(Some(client), why, now),
            Ended::CutShort => fleet.interrupt_open(client, why, now),
            Ended::NotNow(_) => fleet.fail_queued(client, &format!("not now: {why}"), now),
            Ended::Succeeded { .. } | Ended::Aside => Ok(()),
        });
    }

    /// Notes that nothing of a client's run goes on, and what it says about the version of the policies.
    fn note_end(&self, client: ClientId, ended: &Ended) {
        let verdict = match ended {
            Ended::Failed { code, .. } => Some(rollout::Outcome::Failed { code: *code }),
            Ended::Succeeded { .. } => Some(rollout::Outcome::Succeeded),
            Ended::NotNow(_) | Ended::CutShort | Ended::Aside => None,
        };
        let row = lock(&self.fleet).client_by_id(client).ok().flatten();
        let version = row.map_or(0, |client| client.terms_version);
        lock(&self.begun).remove(&client);
        self.with_dispatch(|dispatch| {
            dispatch.note_run(client, LinkState::None);
            if let Some(verdict) = verdict {
                dispatch.versions().finished(client, version, verdict, clock::now() as i64);
            }
        });
    }
}
