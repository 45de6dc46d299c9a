//! What the server has said goes to whoever asked.

use std::sync::atomic::Ordering;

use backhaul_proto::agent::Event;
use backhaul_proto::wire;

use super::super::Answered;
use super::Driver;

impl Driver {
    pub(super) fn on_event(&mut self, event: Event) {
        // Whoever asked may have stopped waiting.
        match event {
            Event::Welcome(welcome) => {
                // Before anybody can send anything.
                let _ = self.shared.bounds.set(self.limits.with(&welcome.terms.unwrap_or_default()));
                if let (Some(adopting), Some(terms)) = (&self.adopting, &welcome.terms)
                    && let Some(applied) = adopting(terms)
                {
                    self.session.applied(applied);
                }
                if let Some(answer) = self.answer.take() {
                    let _ = answer.send(Answered::Welcome(welcome));
                }
            }
            Event::Queued(queued) => {
                if let Some(waiting) = &self.waiting {
                    waiting(&queued);
                }
            }
            Event::Nudged(nudge) => self.on_nudge(nudge),
            Event::Answers(batch, answers) => {
                if let Some(reply) = self.asked.remove(&batch) {
                    let _ = reply.send(answers);
                }
            }
            Event::Signatures(batch, kin) => {
                if let Some(reply) = self.signing.remove(&batch) {
                    let _ = reply.send(kin);
                }
            }
            Event::Arranged(order) => {
                if let Some(reply) = self.arranging.pop_front() {
                    let _ = reply.send(order);
                }
            }
            Event::Durable(objects) => self.shared.durable.store(objects, Ordering::SeqCst),
            Event::Committed(committed) => {
                if let Some(reply) = self.committed.take() {
                    let _ = reply.send(committed);
                }
            }
            Event::Snapshots(rows) => {
                if !self.lists.is_empty() {
                    let _ = self.lists.remove(0).0.send(rows);
                }
            }
            Event::News(news) => {
                if let Some(ordered) = &self.ordered {
                    let _ = ordered.send(news);
                }
            }
            Event::Stats(stats) => {
                if !self.stats.is_empty() {
                    let _ = self.stats.remove(0).send(stats);
                }
            }
        }
    }

    /// The server dialled for nothing but this: it is answered, and the session ends.
    fn on_nudge(&mut self, nudge: wire::Nudge) {
        let unwilling = self.not_now.take().filter(|_| nudge.cause() != wire::Cause::Manual);
        let answer = match &unwilling {
            Some(_) => wire::NudgeAnswer::NotNow,
            None => wire::NudgeAnswer::Accepted,
        };
        self.session.reply(wire::NudgeReply { id: nudge.id, answer: answer.into(), not_now: unwilling });
        self.closing = true;
        if let Some(waiting) = self.answer.take() {
            let _ = waiting.send(Answered::Nudged(nudge));
        }
    }
}
