//! Restores that operators order from other clients' agents: who is to come for which, and who hears of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backhaul_object::ids::ClientId;
use backhaul_proto::errand::News;
use backhaul_proto::wire;
use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::daemon::{Inner, lock};
use crate::fleet::{Client, ClientState};
use crate::gate::Purpose;
use crate::hub::Said;
use crate::keyring::random;
use crate::pull;

/// So long an agent may take to come for what it was told of.
const COMES_WITHIN: Duration = Duration::from_secs(60);

/// Shown by the agent that was told of it, once.
pub(crate) type Token = [u8; 16];

/// Something to restore.
pub struct Errand {
    /// Whose agent is to do it.
    to: ClientId,
    /// Whose snapshot it is.
    pub from: Client,
    /// What it is.
    pub order: wire::RestoreOrder,
    /// Whoever ordered it hears of it here.
    pub news: UnboundedSender<News>,
}

impl Errand {
    /// Whose objects a session reads, who hears of it, and what it is told: for a restore it is what another client has.
    pub fn split(
        errand: Option<Self>,
        client: Client,
    ) -> (Client, Option<UnboundedSender<News>>, Option<wire::RestoreOrder>) {
        match errand {
            Some(Self { from, order, news, .. }) => (from, Some(news), Some(order)),
            None => (client, None, None),
        }
    }
}

/// Those that nobody has come for yet.
#[derive(Default)]
pub(crate) struct Errands(Mutex<HashMap<Token, Errand>>);

impl Errands {
    /// Takes it out; only the client that it is for gets it.
    pub(crate) fn claim(&self, token: &[u8], client: ClientId) -> Option<Errand> {
        let token = Token::try_from(token).ok()?;
        let mut open = lock(&self.0);
        if open.get(&token)?.to == client { open.remove(&token) } else { None }
    }

    /// Nobody has come for it.
    fn give_up(&self, token: &Token, why: &str) {
        if let Some(errand) = lock(&self.0).remove(token) {
            // Whoever ordered it may have gone.
            let _ = errand.news.send(News::refusal(why));
        }
    }
}

impl Inner {
    /// Has a client's agent come for a restore, or dials it; what becomes of it is heard.
    pub(crate) fn order(
        self: &Arc<Self>,
        from: &Client,
        order: wire::RestoreOrder,
    ) -> UnboundedReceiver<News> {
        let (news, heard) = unbounded_channel();
        if let Err(why) = self.send_out(from, order, &news) {
            let _ = news.send(News::refusal(why));
        }
        heard
    }

    fn send_out(
        self: &Arc<Self>,
        from: &Client,
        order: wire::RestoreOrder,
        news: &UnboundedSender<News>,
    ) -> Result<(), String> {
        let name = order.to_client.clone();
        let found = lock(&self.fleet).client(&name).map_err(|error| error.to_string())?;
        let to = found.ok_or_else(|| format!("this server knows no client {name:?}"))?;
        if to.state == ClientState::Revoked {
            return Err(format!("client {name:?} was revoked"));
        }
        let token: Token = random().map_err(|error| error.to_string())?;
        let errand = Errand { to: to.id, from: from.clone(), order, news: news.clone() };
        lock(&self.errands.0).insert(token, errand);
        let (inner, patient) = (Arc::clone(self), Arc::clone(self));
        match self.with_dispatch(|dispatch| dispatch.linked_on(to.id)).flatten() {
            Some(session) => {
                let token = Bytes::copy_from_slice(&token);
                self.hub.say(session, Said::Errand(token));
            }
            None if self.hub.is_writing(to.id) => {
                self.errands.give_up(&token, &format!("a backup of {name} is under way: ask again after it"));
            }
            None => drop(tokio::spawn(dial(inner, to, token))),
        }
        tokio::spawn(async move {
            tokio::time::sleep(COMES_WITHIN).await;
            patient.errands.give_up(&token, &format!("the agent of {name} was told, and has not come"));
        });
        Ok(())
    }
}

async fn dial(inner: Arc<Inner>, to: Client, token: Token) {
    match pull::reach(&inner, to.id).await {
        Ok((link, _)) => {
            let session = inner.hub.open(link.hangup());
            inner.serve(link, session, Purpose::Errand(token)).await;
            inner.errands.give_up(&token, &format!("the agent of {} has hung up", to.name));
        }
        Err((_, why)) => {
            let why = format!(
                "{0} has no link to this server, and cannot be dialled: {why} (`client edit {0} --initiator hybrid` keeps a link)",
                to.name
            );
            inner.errands.give_up(&token, &why);
        }
    }
}

/// The next word of what was ordered; never, if nothing was.
pub(crate) async fn hear(heard: &mut Option<UnboundedReceiver<News>>) -> News {
    let Some(news) = heard else { return std::future::pending().await };
    match news.recv().await {
        Some(news) => news,
        None => {
            *heard = None;
            News::failure(
                "the agent has gone, and has not said what came of it; asked again, it goes on where it was",
            )
        }
    }
}

/// Until whoever ordered a restore has gone; never, if the session is for none.
pub(crate) async fn abandoned(news: Option<&UnboundedSender<News>>) {
    match news {
        Some(news) => news.closed().await,
        None => std::future::pending().await,
    }
}
