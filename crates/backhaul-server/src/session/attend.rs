//! A session that waits: the client says how it stands, hears when it is due, and is nudged. It may last for days, so it
//! holds no keys, no list of what the client owns, and no threads.

use backhaul_proto::server::Request;
use backhaul_proto::{PROTOCOL, end, wire};
use backhaul_schedule::fleet::{Cause, Nudge};
use bytes::Bytes;

use super::{Desk, Ending, Outcome, SOFTWARE, Start, farewell, send_queued};
use crate::clock;
use crate::fleet::Client;
use crate::hub::Said;

/// Frames of an attending agent: so many at once, and then one in so many milliseconds. More is an attack.
const FRAMES: u64 = 60;
const FRAME_EVERY_MS: u64 = 1_000;

pub(super) async fn attend<D: Desk>(mut start: Box<Start>, desk: &D) -> Outcome {
    let Start { client, session, writer, frames, .. } = &mut *start;
    let mut said = desk.attend(client);
    session.attend(welcome(client, desk));
    let mut forgiven = 0;
    let ending = loop {
        if let Err(error) = Box::pin(send_queued(session, writer)).await {
            break Some(Ending::from(error));
        }
        tokio::select! {
            said = said.hear() => match said {
                Said::Nudge(said) => session.nudge(nudge(&said)),
                Said::Verdict(verdict) => session.verdict(verdict),
                Said::Terms(terms) => session.terms(terms),
                Said::Granted | Said::Queued(_) | Said::Deferred(_) => {}
            },
            frame = frames.next() => match frame {
                Ok(None) => break Some(Ending::lost("the peer went away")),
                Err(error) => break Some(error.into()),
                Ok(Some(frame)) => {
                    forgiven = forgiven.max(clock::boot_ms()) + FRAME_EVERY_MS;
                    if forgiven > clock::boot_ms() + FRAMES * FRAME_EVERY_MS {
                        break Some(Ending::busy("this client says too much".to_owned(), 600));
                    }
                    match session.handle(frame) {
                        Ok(Request::Bye(_)) => break None,
                        Ok(request) => tokio::task::block_in_place(|| desk.heard(client, &request)),
                        Err(error) => break Some(Ending::new(error.to_end().code, error.to_string())),
                    }
                }
            },
        }
    };
    if let Some(ending) = ending.as_ref().filter(|ending| ending.code != end::DONE) {
        session.end(ending.code, &ending.text, ending.retry.clone());
    }
    Box::pin(farewell(session, writer)).await;
    Outcome { committed: None, ending }
}

fn welcome<D: Desk>(client: &Client, desk: &D) -> wire::Welcome {
    wire::Welcome {
        protocol: PROTOCOL,
        software: SOFTWARE.to_owned(),
        server_time: clock::now(),
        client: client.name.clone(),
        client_id: Bytes::copy_from_slice(client.id.as_bytes()),
        verdict: Some(desk.verdict(client)),
        terms: Some(desk.terms(client)),
        observed: desk.observed().to_string(),
        ..Default::default()
    }
}

/// A nudge as it travels.
pub(super) fn nudge(nudge: &Nudge) -> wire::Nudge {
    let cause = match nudge.cause {
        Cause::Due => wire::Cause::Due,
        Cause::Overdue => wire::Cause::Overdue,
        Cause::Manual => wire::Cause::Manual,
    };
    wire::Nudge { id: nudge.id, cause: cause.into(), ttl: nudge.ttl }
}
