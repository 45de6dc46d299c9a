//! Both halves of a session against each other, without sockets and without a clock: frames are delivered
//! in every order that two ordered streams allow.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;

use backhaul_object::Reference;
use backhaul_object::header::MEMBERS_MAX;
use backhaul_object::ids::{ObjectId, Proof};
use backhaul_object::patch;
use backhaul_object::signature::{BlockHash, Signature};
use backhaul_object::source::{Answer, Kin, Query, Spot};
use backhaul_proto::agent::{AgentSession, Event};
use backhaul_proto::server::{Request, ServerSession, Verdict};
use backhaul_proto::{SessionError, end, wire};
use proptest::prelude::*;

fn hello() -> wire::Hello {
    let intent = wire::Intent::Backup.into();
    wire::Hello { intent, software: "test".to_owned(), client_time: 1_000, ..Default::default() }
}

struct Pair {
    agent: AgentSession,
    server: ServerSession,
    to_server: VecDeque<wire::Frame>,
    to_agent: VecDeque<wire::Frame>,
    events: Vec<Event>,
}

impl Pair {
    fn new() -> Self {
        Self {
            agent: AgentSession::new(hello()),
            server: ServerSession::new(),
            to_server: VecDeque::new(),
            to_agent: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Delivers one frame in a direction; false when there is none.
    fn deliver(&mut self, to_server: bool) -> Result<bool, SessionError> {
        self.to_server.extend(std::iter::from_fn(|| self.agent.poll()));
        self.to_agent.extend(std::iter::from_fn(|| self.server.poll()));
        if to_server {
            let Some(frame) = self.to_server.pop_front() else { return Ok(false) };
            self.serve(frame)?;
        } else {
            let Some(frame) = self.to_agent.pop_front() else { return Ok(false) };
            self.events.extend(self.agent.handle(frame)?);
        }
        Ok(true)
    }

    fn serve(&mut self, frame: wire::Frame) -> Result<(), SessionError> {
        match self.server.handle(frame)? {
            Request::Hello(_) => {
                let grant = wire::Grant { session: vec![1; 16].into(), sequence: 1, ..Default::default() };
                self.server.welcome(wire::Welcome { protocol: 1, grant: Some(grant), ..Default::default() });
            }
            Request::Ask(batch, prefixes) => {
                self.server.answer(batch, &prefixes.into_iter().map(by_remainder).collect::<Vec<_>>());
            }
            Request::Prove(batch, proofs) => {
                let judge = |(id, proof): &(ObjectId, Proof)| match proof.0[0] {
                    1 => Verdict::Known(Answer::Have, id.short()),
                    _ => Verdict::Want,
                };
                self.server.answer(batch, &proofs.iter().map(judge).collect::<Vec<_>>());
            }
            // Every other one is like nothing.
            Request::Sign(batch, spots) => {
                let described = spots.iter().enumerate().step_by(2);
                self.server.signatures(batch, &described.map(kin).collect::<Vec<_>>());
            }
            // Backwards.
            Request::Arrange(ids) => self.server.arranged((0..ids.len() as u32).rev().collect()),
            Request::Commit(commit) => {
                self.server.durable(commit.objects);
                self.server.committed(wire::Committed { sequence: 1, ..Default::default() });
            }
            Request::List(_) => self.server.snapshots(
                (0..5_000)
                    .map(|n| wire::SnapshotRow {
                        sequence: n,
                        body: vec![0; 300].into(),
                        ..Default::default()
                    })
                    .collect(),
            ),
            Request::Stats => self.server.stats(wire::VaultStats::default()),
            Request::Read(_) | Request::Bye(_) | Request::Report(_) => {}
            Request::NotNow(_) | Request::NudgeReply(_) | Request::Applied(_) => panic!("it does not attend"),
            Request::Order(_) | Request::News(_) => panic!("no restore is ordered"),
        }
        Ok(())
    }

    fn settle(&mut self) {
        while self.deliver(true).unwrap() || self.deliver(false).unwrap() {}
    }
}

fn query(n: u64, honest: bool) -> Query {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&n.to_le_bytes());
    Query { id: ObjectId(id), proof: Proof([u8::from(honest); 16]) }
}

fn kin((of, spot): (usize, &Spot)) -> Kin {
    let blocks = vec![BlockHash { weak: 1, strong: 2 }; 3];
    Kin { of, base: patch::base(spot.object), signature: Signature { at: of, blocks, len: 2_100 } }
}

/// What the server holds: by the number's remainder nothing, an object, another client's, a bundle member.
fn by_remainder(prefix: u64) -> Verdict {
    // One in five of what it holds is another content with the same prefix.
    let mut id = query(prefix, true).id;
    id.0[15] = u8::from(prefix.is_multiple_of(5));
    match prefix % 4 {
        0 => Verdict::Want,
        1 => Verdict::Known(Answer::Have, id.short()),
        2 => Verdict::Prove,
        _ => Verdict::Known(
            Answer::Member { bundle: ObjectId([7; 32]), member: (prefix % 1_000) as u16 },
            id.short(),
        ),
    }
}

fn expected(n: u64, honest: bool) -> Answer {
    match by_remainder(n) {
        Verdict::Known(answer, id) if id == query(n, true).id.short() => answer,
        Verdict::Known(..) | Verdict::Want => Answer::Want,
        Verdict::Prove if honest => Answer::Have,
        Verdict::Prove => Answer::Want,
    }
}

proptest! {
    #[test]
    fn every_question_gets_its_answer_in_any_order_of_delivery(
        batches in proptest::collection::vec(proptest::collection::vec((any::<u64>(), any::<bool>()), 1..40), 1..12),
        order in proptest::collection::vec(any::<bool>(), 0..200),
    ) {
        let mut pair = Pair::new();
        pair.settle();
        let mut asked = Vec::new();
        for batch in &batches {
            let queries = batch.iter().map(|(n, honest)| query(*n, *honest)).collect();
            asked.push(pair.agent.ask(queries).unwrap());
        }
        for to_server in order {
            pair.deliver(to_server).unwrap();
        }
        pair.settle();
        for (number, batch) in asked.iter().zip(&batches) {
            let answers: Vec<Answer> = batch.iter().map(|(n, honest)| expected(*n, *honest)).collect();
            prop_assert!(pair.events.contains(&Event::Answers(*number, answers)));
        }
        let commit = wire::Commit {
            objects: 5,
            header: vec![1].into(),
            body: vec![2].into(),
            signature: vec![3].into(),
            ..Default::default()
        };
        pair.agent.commit(commit).unwrap();
        pair.settle();
        prop_assert!(pair.events.iter().any(|event| matches!(event, Event::Committed(_))));
        prop_assert!(pair.events.contains(&Event::Durable(5)));
    }

    #[test]
    fn what_is_asked_between_other_questions_is_described(
        sizes in proptest::collection::vec(1usize..40, 1..12),
        order in proptest::collection::vec(any::<bool>(), 0..200),
    ) {
        let mut pair = Pair::new();
        pair.settle();
        let spots = |n: usize| (0..n).map(|i| Spot { object: ObjectId([i as u8; 32]), member: None }).collect::<Vec<_>>();
        let mut asked = Vec::new();
        for (i, n) in sizes.iter().enumerate() {
            pair.agent.ask(vec![query(i as u64, true)]).unwrap();
            asked.push(pair.agent.sign(&spots(*n)).unwrap());
        }
        for to_server in order {
            pair.deliver(to_server).unwrap();
        }
        let commit = wire::Commit::default();
        prop_assert!(pair.agent.may_ask() && (pair.events.len() > 2 * sizes.len() || pair.agent.commit(commit).is_err()));
        pair.settle();
        for (number, n) in asked.iter().zip(&sizes) {
            let kin = spots(*n).iter().enumerate().step_by(2).map(kin).collect();
            prop_assert!(pair.events.contains(&Event::Signatures(*number, kin)));
        }
    }

    #[test]
    fn no_frame_out_of_turn_panics_or_is_accepted(picks in proptest::collection::vec(0usize..13, 1..30)) {
        let mut server = ServerSession::new();
        let mut agent = AgentSession::new(hello());
        for pick in picks {
            let body = match pick {
                0 => wire::frame::Body::Ask(wire::Ask { batch: 1, prefixes: vec![0; 7].into() }),
                1 => wire::frame::Body::Prove(wire::Prove { batch: 9, proofs: vec![0; 48].into() }),
                2 => wire::frame::Body::Commit(wire::Commit::default()),
                3 => wire::frame::Body::Answers(wire::Answers { batch: 3, codes: vec![0].into(), ..Default::default() }),
                4 => wire::frame::Body::Committed(wire::Committed::default()),
                5 => wire::frame::Body::Welcome(wire::Welcome { protocol: 9, ..Default::default() }),
                6 => wire::frame::Body::Read(wire::Read { ids: vec![vec![1; 3].into()], ..Default::default() }),
                8 => wire::frame::Body::Sign(wire::Sign { batch: 1, ids: vec![vec![1; 32].into()], members: vec![0] }),
                9 => wire::frame::Body::Signatures(wire::Signatures::default()),
                11 => wire::frame::Body::Arrange(wire::Arrange { ids: vec![1; 32].into() }),
                12 => wire::frame::Body::Arranged(wire::Arranged { order: vec![0] }),
                7 => wire::frame::Body::Durable(wire::Durable { objects: 1 }),
                _ => wire::frame::Body::List(wire::List::default()),
            };
            let frame = wire::Frame { body: Some(body) };
            prop_assert!(server.handle(frame.clone()).is_err());
            prop_assert!(agent.handle(frame).is_err());
        }
    }
}

#[test]
fn a_long_list_comes_in_frames_of_bounded_size_and_whole() {
    let mut pair = Pair::new();
    pair.settle();
    pair.agent.list(wire::List::default());
    while pair.deliver(true).unwrap() {}
    pair.to_agent.extend(std::iter::from_fn(|| pair.server.poll()));
    assert!(pair.to_agent.len() > 5);
    assert!(pair.to_agent.iter().all(|frame| prost::Message::encoded_len(frame) < 1 << 20));
    pair.settle();
    let Some(Event::Snapshots(rows)) = pair.events.last() else { panic!("{:?}", pair.events.last()) };
    assert!(rows.iter().map(|row| row.sequence).eq(0..5_000));
}

#[test]
fn limits_are_kept_on_both_sides() {
    let mut pair = Pair::new();
    assert!(pair.agent.ask(vec![query(1, true)]).is_err(), "before the welcome");
    pair.settle();
    assert!(pair.agent.ask((0..3_000).map(|n| query(n, true)).collect()).is_err(), "too many");
    let spot = Spot { object: ObjectId([1; 32]), member: None };
    assert!(pair.agent.sign(&[spot; 3_000]).is_err(), "too many");
    for n in 0..32 {
        pair.agent.ask(vec![query(n, true)]).unwrap();
        pair.agent.sign(&[spot]).unwrap();
    }
    assert!(!pair.agent.may_ask() && pair.agent.ask(vec![query(1, true)]).is_err(), "too many batches");
    assert!(pair.agent.sign(&[spot]).is_err(), "too many batches");
    assert!(pair.agent.commit(wire::Commit::default()).is_err(), "questions are open");
}

#[test]
fn what_is_read_of_bundles_arrives_as_it_was_asked_for_and_within_limits() {
    let mut pair = Pair::new();
    pair.settle();
    let whole = |n| Reference::whole(ObjectId([n; 32]));
    let mut some = whole(2);
    some.use_member(9);
    for wanted in [vec![whole(1), some.clone(), whole(3)], vec![whole(1)], vec![]] {
        pair.agent.read(&wanted);
        assert_eq!(pair.server.handle(pair.agent.poll().unwrap()).unwrap(), Request::Read(wanted));
    }
    let id = || vec![1; 32].into();
    for (ids, members) in
        [(vec![id(), id()], vec![vec![1].into()]), (vec![id()], vec![vec![1; MEMBERS_MAX / 8 + 1].into()])]
    {
        let read = wire::frame::Body::Read(wire::Read { ids, members });
        assert!(pair.server.handle(wire::Frame { body: Some(read) }).is_err());
    }
}

#[test]
fn orders_come_as_they_were_asked_for_and_are_of_what_was_asked_about() {
    let mut pair = Pair::new();
    pair.settle();
    let ids: Vec<ObjectId> = (0..5).map(|n| ObjectId([n; 32])).collect();
    pair.agent.arrange(&ids);
    pair.agent.arrange(&ids[..2]);
    pair.settle();
    let orders: Vec<_> = pair.events.iter().filter(|event| matches!(event, Event::Arranged(_))).collect();
    assert_eq!(orders, [&Event::Arranged(vec![4, 3, 2, 1, 0]), &Event::Arranged(vec![1, 0])]);
    // Nobody asked; or about others.
    let arranged = |order| wire::Frame { body: Some(wire::frame::Body::Arranged(wire::Arranged { order })) };
    assert!(pair.agent.handle(arranged(vec![0])).is_err());
    for order in [vec![], vec![0], vec![0, 0], vec![0, 2], vec![0, 1, 2]] {
        pair.agent.arrange(&ids[..2]);
        assert!(pair.agent.handle(arranged(order.clone())).is_err(), "{order:?}");
    }
}

#[test]
fn versions_that_do_not_meet_end_with_a_code() {
    let mut server = ServerSession::new();
    let hello = wire::Hello { protocol_min: 2, protocol_max: 9, ..Default::default() };
    let error = server.handle(wire::Frame { body: Some(wire::frame::Body::Hello(hello)) }).unwrap_err();
    assert_eq!(error.to_end().code, end::VERSION);
    assert!(error.to_string().contains("we speak 1, the peer 2 to 9"));
}
