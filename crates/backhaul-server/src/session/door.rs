//! Before a session is let in: its hello, and the wait for a slot.

use std::time::Duration;

use backhaul_net::PeerIdentity;
use backhaul_net::link::{FrameReader, FrameWriter};
use backhaul_proto::server::{Request, ServerSession};
use backhaul_proto::{end, wire};

use super::{Asked, Desk, Ending, GOODBYE, Outcome, attend, send_queued};
use crate::fleet::Client;
use crate::hub::Said;

/// How often a waiting client hears of its place.
const PLACE_EVERY: Duration = Duration::from_secs(10);

/// Waits for the hello and admits its sender.
pub(super) async fn greet<D: Desk>(
    session: &mut ServerSession,
    frames: &mut FrameReader,
    peer: &PeerIdentity,
    desk: &D,
) -> Result<(wire::Hello, Client), Ending> {
    let gone = || Ending::lost("the peer went away before it said hello");
    let heard = tokio::time::timeout(Duration::from_secs(20), frames.next()).await;
    let frame = heard.map_err(|_| gone())??.ok_or_else(gone)?;
    let request = session.handle(frame).map_err(|e| Ending::new(e.to_end().code, e.to_string()))?;
    let Request::Hello(hello) = request else { return Err(gone()) };
    let client = tokio::task::block_in_place(|| desk.admit(peer, &hello))?;
    Ok((*hello, client))
}

/// A session before it is let in.
pub(super) struct Waiting<'s> {
    pub session: &'s mut ServerSession,
    pub writer: &'s mut FrameWriter,
    pub frames: &'s mut FrameReader,
}

/// Until the scheduler has a slot: on the open connection, with word of the place in the queue.
pub(super) async fn wait_for_grant<D: Desk>(
    waiting: Waiting<'_>,
    desk: &D,
    client: &Client,
    hello: &wire::Hello,
) -> Result<(), Ending> {
    let Waiting { session, writer, frames } = waiting;
    let mut said = match tokio::task::block_in_place(|| desk.ask(client, hello))? {
        Asked::Granted => return desk.begin(client).await,
        Asked::Nudge(nudge) => {
            session.nudge(attend::nudge(&nudge));
            send_queued(session, writer).await?;
            let arrived = tokio::time::timeout(GOODBYE, frames.next()).await;
            if let Ok(Ok(Some(frame))) = arrived
                && let Ok(Request::NudgeReply(reply)) = session.handle(frame)
            {
                desk.heard(client, &Request::NudgeReply(reply));
            }
            return Err(Ending::new(end::DONE, "nudged"));
        }
        Asked::Waits(said) => said,
    };
    let mut again = tokio::time::interval(PLACE_EVERY);
    again.tick().await;
    loop {
        let place = tokio::select! {
            said = said.hear() => match said {
                Said::Granted => return desk.begin(client).await,
                Said::Deferred(deferral) => return Err(desk.deferred(client, &deferral)),
                Said::Queued(place) => Some(place),
                _ => None,
            },
            frame = frames.next() => return Err(match frame {
                Ok(None) => Ending::lost("the peer went away"),
                Err(error) => error.into(),
                Ok(Some(_)) => Ending::new(end::AGENT, "it did not wait for its slot"),
            }),
            _ = again.tick() => desk.place(client),
        };
        if let Some(place) = place {
            session.queued(desk.queued(client, &place));
            send_queued(session, writer).await?;
        }
    }
}

/// Sends a client away, with words.
pub(super) async fn turn_away<D: Desk>(
    (session, writer): (ServerSession, FrameWriter),
    (desk, client): (&D, &Client),
    ending: Ending,
) -> Outcome {
    let outcome = Outcome { committed: None, ending: Some(ending.clone()) };
    tokio::task::block_in_place(|| desk.over(client, &outcome));
    refuse(session, writer, ending).await
}

/// Sends a peer away, with words.
pub(super) async fn refuse(mut session: ServerSession, mut writer: FrameWriter, ending: Ending) -> Outcome {
    session.end(ending.code, &ending.text, ending.retry.clone());
    farewell(&mut session, &mut writer).await;
    Outcome { committed: None, ending: Some(ending) }
}

/// Sends what is queued, and gives the peer a moment to take it.
pub(super) async fn farewell(session: &mut ServerSession, writer: &mut FrameWriter) {
    let send = async {
        if send_queued(session, writer).await.is_ok() {
            writer.end().await;
        }
    };
    let _ = tokio::time::timeout(GOODBYE, send).await;
}
