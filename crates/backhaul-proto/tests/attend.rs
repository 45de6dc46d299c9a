//! Sessions that attend, wait or are nudged: both halves face to face.
#![allow(clippy::unwrap_used, reason = "tests")]

use backhaul_proto::agent::{self, AgentSession};
use backhaul_proto::attend::{self, AttendSession};
use backhaul_proto::goodbye::Goodbye;
use backhaul_proto::server::{Request, ServerSession};
use backhaul_proto::{Retry, SessionError, end, wire};

fn hello(intent: wire::Intent) -> wire::Hello {
    wire::Hello { intent: intent.into(), instance: vec![7; 16].into(), ..Default::default() }
}

/// A server that has heard the hello.
fn greeted(first: Option<wire::Frame>) -> (ServerSession, wire::Hello) {
    let mut server = ServerSession::new();
    let Ok(Request::Hello(hello)) = server.handle(first.unwrap()) else { panic!("no hello") };
    (server, *hello)
}

#[test]
fn an_attending_agent_hears_and_says_what_it_may_and_nothing_else() {
    let mut agent = AttendSession::new(hello(wire::Intent::Backup));
    let (mut server, said) = greeted(agent.poll());
    assert_eq!((said.intent(), said.instance.len()), (wire::Intent::Attend, 16));
    let verdict = wire::Verdict { due_in: 60, stay: true, ..Default::default() };
    server.attend(wire::Welcome { protocol: 1, verdict: Some(verdict), ..Default::default() });
    server.verdict(wire::Verdict { due_in: 0, ..verdict });
    server.nudge(wire::Nudge { id: 9, ..Default::default() });
    server.terms(wire::Terms { version: 3, ..Default::default() });
    let heard: Vec<attend::Event> =
        std::iter::from_fn(|| server.poll()).map(|f| agent.handle(f).unwrap()).collect();
    assert!(matches!(&heard[0], attend::Event::Welcome(welcome) if welcome.verdict == Some(verdict)));
    assert!(matches!(heard[2], attend::Event::Nudged(wire::Nudge { id: 9, .. })));
    agent.report(wire::Report::default());
    agent.not_now(wire::NotNow { reason: "on battery".to_owned(), for_seconds: 5 });
    agent.reply(wire::NudgeReply { id: 9, ..Default::default() });
    agent.applied(wire::Applied { version: 3, ..Default::default() });
    agent.close();
    let said: Vec<Request> = std::iter::from_fn(|| agent.poll()).map(|f| server.handle(f).unwrap()).collect();
    assert!(matches!(&said[1], Request::NotNow(not_now) if not_now.reason == "on battery"));
    assert!(matches!(&said[3], Request::Applied(applied) if applied.version == 3));
    assert_eq!(said[4], Request::Bye(Goodbye::Done));
    // What belongs to a backup is out of turn here.
    let ask = wire::frame::Body::Ask(wire::Ask { batch: 0, prefixes: vec![0; 8].into() });
    let refused = server.handle(wire::Frame { body: Some(ask) });
    assert!(matches!(refused, Err(SessionError::Protocol(_))), "{refused:?}");
}

#[test]
fn a_waiting_agent_hears_its_place_and_then_when_to_come_back() {
    let mut agent = AgentSession::new(hello(wire::Intent::Backup));
    let (mut server, _) = greeted(agent.poll());
    server.queued(wire::Queued { position: 4, ticket: vec![1].into(), ..Default::default() });
    server.end(end::BUSY, "come back", Retry { after: 90, ticket: vec![2].into() });
    let queued = agent.handle(server.poll().unwrap());
    assert!(matches!(queued, Ok(Some(agent::Event::Queued(queued))) if queued.position == 4));
    let Err(SessionError::Ended { code, retry, .. }) = agent.handle(server.poll().unwrap()) else { panic!() };
    assert_eq!((code, retry.after, &retry.ticket[..]), (end::BUSY, 90, &[2][..]));
}

#[test]
fn an_agent_that_was_dialled_to_be_nudged_answers_and_gets_no_session() {
    let mut agent = AgentSession::new(hello(wire::Intent::Backup));
    let (mut server, _) = greeted(agent.poll());
    server.nudge(wire::Nudge { id: 5, ..Default::default() });
    let nudged = agent.handle(server.poll().unwrap());
    assert!(matches!(nudged, Ok(Some(agent::Event::Nudged(wire::Nudge { id: 5, .. })))));
    agent.reply(wire::NudgeReply { id: 5, ..Default::default() });
    assert!(matches!(server.handle(agent.poll().unwrap()), Ok(Request::NudgeReply(_))));
    let list = wire::Frame { body: Some(wire::frame::Body::List(wire::List::default())) };
    assert!(server.handle(list).is_err());
}
