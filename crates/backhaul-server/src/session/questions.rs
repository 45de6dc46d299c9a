//! What a session has asked and is not answered yet. Answers come in the order of the questions; one may wait for another session
//! ([`promises`](super::promises)).

use std::collections::VecDeque;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use backhaul_proto::end;
use backhaul_proto::server::Verdict;
use tokio::time::{sleep, timeout};

use super::answers;
use super::book::Seat;
use super::promises::{Decision, Lacking};
use super::{Conversation, Ending};
use crate::clock;

/// The vault is not looked at for one question more often than this, however fast what it waits for trickles in.
const LOOKS_APART_MS: u64 = 10;

/// The questions of one session, the oldest first.
#[derive(Default)]
pub(super) struct Questions {
    open: VecDeque<(u64, Vec<u64>)>,
    waits: Option<Waiting>,
}

/// The oldest waits, between these times in ms since boot.
struct Waiting {
    seat: Arc<Seat>,
    from: u64,
    until: u64,
}

impl Questions {
    /// Until the oldest question is to be looked at again; for ever, where none waits. May be dropped and begun anew.
    pub async fn due(&self) {
        let Some(Waiting { seat, from, until }) = &self.waits else { return pending().await };
        let left = |time: u64| Duration::from_millis(time.saturating_sub(clock::boot_ms()));
        sleep(left(*from)).await;
        // Either way it is looked at.
        let _ = timeout(left(*until), seat.rung()).await;
    }
}

/// What has become of a question.
enum Looked {
    Answered(Vec<Verdict>),
    /// It is to be looked at again, after so many ms at the latest.
    Waits(u64),
}

impl Conversation {
    pub(super) fn on_ask(&mut self, batch: u64, prefixes: Vec<u64>) -> Result<(), Ending> {
        self.manners.moved(clock::boot_ms());
        self.questions.open.push_back((batch, prefixes));
        if self.questions.waits.is_none() { self.answer_questions() } else { Ok(()) }
    }

    /// Answers what can be answered now.
    pub(super) fn answer_questions(&mut self) -> Result<(), Ending> {
        let seat = self.ingest.as_ref().map(|ingest| Arc::clone(&ingest.seat));
        let seat = seat.ok_or_else(|| Ending::new(end::PROTOCOL, "asked without a grant"))?;
        self.questions.waits = None;
        while let Some((batch, prefixes)) = self.questions.open.front() {
            match tokio::task::block_in_place(|| self.look(&seat, prefixes))? {
                Looked::Answered(verdicts) => {
                    self.session.answer(*batch, &verdicts);
                    self.questions.open.pop_front();
                }
                Looked::Waits(most) => {
                    let now = clock::boot_ms();
                    self.questions.waits =
                        Some(Waiting { seat, from: now + LOOKS_APART_MS, until: now + most });
                    break;
                }
            }
        }
        Ok(())
    }

    fn look(&self, seat: &Seat, prefixes: &[u64]) -> Result<Looked, Ending> {
        let promised = seat.promised(prefixes);
        let verdicts = answers::ask(&self.vault, &self.owned, prefixes)?;
        let wanted = (0..prefixes.len()).filter(|n| verdicts[*n] == Verdict::Want);
        let lacking =
            |n: usize| Lacking { prefix: prefixes[n], was_promised: promised.binary_search(&n).is_ok() };
        Ok(match seat.decide(&wanted.map(lacking).collect::<Vec<_>>()) {
            Decision::Answer => Looked::Answered(verdicts),
            Decision::Wait(ms) => Looked::Waits(ms),
            Decision::LookAgain => Looked::Waits(LOOKS_APART_MS),
        })
    }
}
