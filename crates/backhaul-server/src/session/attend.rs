//! A session that waits: the client says how it stands, hears when it is due, and is nudged. It may last for days, so it
//! holds no keys, no list of what the client owns, and no threads.

use backhaul_proto::server::Request;
use backhaul_proto::{PROTOCOL, end, wire};
use backhaul_schedule::fleet::{Cause, Nudge};
use bytes::Bytes;

use super::manners::Manners;
use super::{Desk, Ending, EndingKind, Outcome, SOFTWARE, Start, farewell, send_queued};
use crate::clock;
use crate::fleet::Client;
use crate::hub::Said;

pub(super) async fn attend<D: Desk>(mut start: Box<Start>, desk: &D) -> Outcome {
    let Start { client, session, writer, frames, .. } = &mut *start;
    let mut said = desk.attend(client);
    session.attend(welcome(client, desk));
    let mut manners = Manners::new(clock::boot_ms());
    let ending = loop {
        if let Err(error) = Box::pin(send_queued(session, writer)).await {
            break Some(Ending::from(error));
        }
        tokio::select! {
            said = said.hear() => match said {
                Said::Nudge(said) => session.nudge(nudge(&said)),
                Said::Verdict(verdict) => session.verdict(verdict),
                Said::Terms(terms) => session.terms(terms),
                Said::Errand(token) => session.errand(token),
                Said::Granted | Said::Queued(_) | Said::Deferred(_) => {}
            },
            frame = frames.next() => match frame {
                Ok(None) => break Some(Ending::lost("the peer went away")),
                Err(error) => break Some(error.into()),
                Ok(Some(frame)) => {
                    if let Err(ending) = manners.word(clock::boot_ms()) {
                        break Some(ending);
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
        if ending.kind == EndingKind::Decided {
            tracing::warn!(client = %client.name, code = ending.code, "link ended: {}", ending.text);
        }
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
