//! A restore that an operator orders from another client's agent, in the sessions of both.

use backhaul_proto::errand::News;
use backhaul_proto::{end, wire};

use super::{Conversation, Desk, Ending};
use crate::clock;

impl Conversation {
    pub(super) fn on_order<D: Desk>(&mut self, order: wire::RestoreOrder, desk: &D) -> Result<(), Ending> {
        if !self.operator || self.ordered.is_some() {
            let why = "only an operator orders a restore, and one at a time";
            return Err(Ending::new(end::PROTOCOL, why));
        }
        self.ordered = Some(tokio::task::block_in_place(|| desk.order(&self.client, order)));
        Ok(())
    }

    pub(super) fn on_news(&mut self, news: News) -> Result<(), Ending> {
        self.manners.word(clock::boot_ms())?;
        let errand = self.errand.as_ref();
        let errand = errand.ok_or_else(|| Ending::new(end::PROTOCOL, "no restore was ordered from it"))?;
        // Whoever ordered it may have gone: that ends this session elsewhere.
        let _ = errand.send(news);
        Ok(())
    }
}
