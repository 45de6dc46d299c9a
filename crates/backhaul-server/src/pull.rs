//! Dials that the server makes: for a run, or to nudge.

use std::sync::Arc;

use backhaul_net::endpoint::dial_agent;
use backhaul_net::{Link, NetError};
use backhaul_object::ids::ClientId;
use backhaul_schedule::Event;
use backhaul_schedule::fleet::Nudge;
use backhaul_schedule::reach::DialResult;

use crate::clock;
use crate::daemon::{Inner, aside, lock};
use crate::error::ServerError;
use crate::fleet::Client;
use crate::gate::Purpose;

/// A run that the server starts: dials the agent, then it is a session like any other.
pub(crate) async fn run(inner: Arc<Inner>, client: ClientId) {
    let (link, client) = match reach(&inner, client).await {
        Ok(reached) => reached,
        Err((result, why)) => {
            inner.answered(client);
            aside(|| inner.complain(lock(&inner.fleet).fail_queued(client, &why, clock::now())));
            return inner.tell(Event::Dialled(client.0, result, None));
        }
    };
    if !inner.answered(client.id) {
        return link.close("you have come by yourself");
    }
    let session = inner.hub.open(link.hangup());
    inner.tell(Event::Dialled(client.id.0, DialResult::Answered, Some(session)));
    if inner.with_dispatch(|dispatch| dispatch.runs_on(client.id, session)) != Some(true) {
        inner.hub.leave(session);
        return link.close("you have come by yourself");
    }
    inner.serve(link, session, Purpose::Pull).await;
}

/// A short dial to say that a push is wanted.
pub(crate) async fn knock(inner: Arc<Inner>, client: ClientId, nudge: Nudge) {
    match reach(&inner, client).await {
        Err((result, _)) => {
            inner.answered(client);
            inner.tell(Event::Dialled(client.0, result, None));
        }
        Ok((link, client)) => {
            if !inner.answered(client.id) {
                return link.close("you have come by yourself");
            }
            let session = inner.hub.open(link.hangup());
            inner.tell(Event::Dialled(client.id.0, DialResult::Answered, None));
            inner.serve(link, session, Purpose::Knock(nudge)).await;
        }
    }
}

/// Dials a client where it is known to listen: where somebody said, and where it says itself.
pub(crate) async fn reach(inner: &Inner, id: ClientId) -> Result<(Link, Client), (DialResult, String)> {
    let found = aside(|| lock(&inner.fleet).client_by_id(id));
    let client = match found {
        Ok(Some(client)) => client,
        Ok(None) => return Err((DialResult::Silent, "the client was removed".to_owned())),
        Err(error) => return Err((DialResult::Silent, error.to_string())),
    };
    let mut failure = (DialResult::Silent, no_address(&client).to_string());
    for address in
        client.address.iter().chain(client.reported.iter().filter(|it| Some(*it) != client.address.as_ref()))
    {
        match dial_agent(address, &inner.dialler, &client.name).await {
            Ok(link) => return Ok((link, client)),
            Err(error) => {
                tracing::info!(client = %client.name, "not reached: {error}");
                failure = (judge(&error), error.to_string());
            }
        }
    }
    Err(failure)
}

fn no_address(client: &Client) -> ServerError {
    ServerError::NoAddress(client.name.clone())
}

/// What a failed dial says about the client.
fn judge(error: &NetError) -> DialResult {
    match error {
        NetError::WrongRole { .. } | NetError::WrongAuthority { .. } => DialResult::Stranger,
        NetError::Rejected { .. } | NetError::Clock { .. } => DialResult::Refused,
        _ => DialResult::Silent,
    }
}
