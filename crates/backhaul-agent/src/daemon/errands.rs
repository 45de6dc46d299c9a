//! Restores that the server's operator orders from this machine.

use std::sync::Arc;

use backhaul_proto::errand::News;
use backhaul_proto::wire;
use bytes::Bytes;

use super::AgentDaemon;
use crate::error::AgentError;
use crate::remote::{Opening, Remote};
use crate::{errand, introduce, run};

impl AgentDaemon {
    /// Goes to the server for what it was told of over its link.
    pub(super) async fn come_for(self: Arc<Self>, token: Bytes) {
        match self.open_errand(token).await {
            Ok(remote) => self.restore(remote).await,
            Err(error) => tracing::warn!("the server wants something restored, and is not reached: {error}"),
        }
    }

    async fn open_errand(&self, token: Bytes) -> Result<Remote, AgentError> {
        let link = run::dial(&self.settings.config().servers, &self.home.agent()?).await?;
        self.ways.note(&link)?;
        let hello = introduce::hello(&self.home, wire::Trigger::Manual);
        let hello = wire::Hello { intent: wire::Intent::Browse.into(), errand: token, ..hello };
        Remote::open(link, Opening { hello, leaving: Some(self.ways.leaving()), ..Opening::default() }).await
    }

    /// Does what a session is for.
    pub(super) async fn restore(&self, remote: Remote) {
        let Ok(_one) = self.restoring.try_lock() else {
            remote.tell(News::refusal(
                "another restore is under way on that machine: ask again when it is done",
            ));
            return remote.close().await;
        };
        errand::run(remote, &self.settings.config().restore).await;
    }
}
