//! Peers that misuse what they are let in for: the others are served, and nothing is theirs that was not before.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use backhaul_agent::home::AgentHome;
use backhaul_net::Identity;
use backhaul_net::endpoint::{dial_agent, dial_server};
use backhaul_net::transport::Use;
use backhaul_proto::end;
use backhaul_proto::wire::{self, frame::Body};
use backhaul_tests::{Daemon, Home, TestServer, trees, wait_until};
use tokio::time::timeout;

use crate::peer::{Peer, SOON, hello, queued, refused, welcomed};

/// Whoever asks gets one of so many slots.
fn slots(slots: usize) -> String {
    format!("{}[admission]\nslots = {slots}\n", TestServer::due_policy())
}

fn tree(dir: &Path) -> PathBuf {
    trees::everything(dir)
}

/// Another client backs up as if nothing were amiss.
fn is_served(home: &Home) {
    let start = Instant::now();
    tokio::task::block_in_place(|| home.run(&["backup"]).ok());
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn hellos_without_end_are_answered_with_a_time_to_come_back() {
    let (server, dir) = (TestServer::with_policy(&slots(2)), tempfile::tempdir().unwrap());
    let tree = tree(dir.path());
    let (bad, good) = (server.client("bad", &[&tree]), server.client("good", &[&tree]));
    let (start, mut welcomes) = (Instant::now(), 0);
    // The second purpose has no patience of its own: one more hello is forgiven in two seconds.
    for intent in [wire::Intent::Attend, wire::Intent::Backup] {
        let end = loop {
            let (_, answer) = hello(&bad, intent, wire::Hello::default()).await;
            match answer {
                Some(Body::End(end)) => break end,
                _ => welcomes += 1,
            }
            assert!(welcomes <= 61 + start.elapsed().as_secs() / 2, "{welcomes} in {:?}", start.elapsed());
        };
        assert_eq!((end.code, end.text.as_str()), (end::BUSY, "this client says hello too often"));
        assert!(end.after >= 60, "{end:?}");
        is_served(&good);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_client_are_bounded_whether_they_say_who_they_are_or_not() {
    let (server, dir) = (TestServer::with_policy(&slots(2)), tempfile::tempdir().unwrap());
    let tree = tree(dir.path());
    let (bad, good) = (server.client("bad", &[&tree]), server.client("good", &[&tree]));
    let (mut open, mut turned_away) = (Vec::new(), 0);
    for _ in 0..50 {
        let (peer, answer) = hello(&bad, wire::Intent::Browse, wire::Hello::default()).await;
        match answer {
            Some(Body::Welcome(_)) => open.push(peer),
            answer => {
                let end = refused(answer);
                assert!(end.code == end::BUSY && end.after > 0, "{end:?}");
                turned_away += 1;
            }
        }
    }
    assert!(open.len() <= 12 && turned_away >= 38, "{} stay open", open.len());
    is_served(&good);
    drop(open);
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.extend(Peer::try_dial(&bad).await);
    }
    is_served(&good);
    let mut still = 0;
    for peer in &mut silent {
        // Whoever is over the bound is told so at once; the others are waited for.
        still += usize::from(timeout(Duration::from_millis(20), peer.reader.next()).await.is_err());
    }
    assert!(still <= 12, "{still} that say nothing stay open");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_session_that_says_nothing_holds_one_slot_and_nobody_else() {
    let (server, dir) = (TestServer::with_policy(&slots(2)), tempfile::tempdir().unwrap());
    let tree = tree(dir.path());
    let (bad, good) = (server.client("bad", &[&tree]), server.client("good", &[&tree]));
    let (mut silent, answer) = hello(&bad, wire::Intent::Backup, wire::Hello::default()).await;
    assert!(welcomed(answer).grant.is_some());
    is_served(&good);
    // Nor does it help to ask again: one client has one run.
    let (_second, answer) = hello(&bad, wire::Intent::Backup, wire::Hello::default()).await;
    assert!(welcomed(answer).grant.is_some());
    assert_eq!(silent.hear().await, None, "the older one is ended");
    is_served(&good);
    // Its own machine's backup takes the place of the one that says nothing.
    is_served(&bad);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_streams_and_reports_without_end_cost_only_those_who_send_them() {
    let (server, dir) = (TestServer::with_policy(&slots(2)), tempfile::tempdir().unwrap());
    let tree = tree(dir.path());
    let (bad, good) = (server.client("bad", &[&tree]), server.client("good", &[&tree]));
    let (peer, answer) = hello(&bad, wire::Intent::Backup, wire::Hello::default()).await;
    assert!(welcomed(answer).grant.is_some());
    let mut streams = Vec::new();
    while let Ok(Ok(mut stream)) = timeout(Duration::from_millis(500), peer.streams.open()).await {
        stream.send_failure(true, "nothing of the kind").await.ok();
        streams.push(stream);
        assert!(streams.len() <= 32, "streams are opened without end");
    }
    is_served(&good);

    let (mut linked, answer) = hello(&bad, wire::Intent::Attend, wire::Hello::default()).await;
    welcomed(answer);
    let mut sent = 0;
    while sent < 20_000 && linked.send(Body::Report(wire::Report::default())).await.is_ok() {
        sent += 1;
    }
    let end = loop {
        match linked.hear().await {
            Some(Body::End(end)) => break Some(end),
            Some(_) => {}
            None => break None,
        }
    };
    if let Some(end) = end {
        assert!(end.code == end::BUSY && end.after > 0, "{end:?}");
    }
    assert!(sent < 20_000 || linked.hear().await.is_none());
    is_served(&good);
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_and_claims_that_are_made_up_give_no_place_and_no_rights() {
    let (server, dir) = (TestServer::with_policy(&slots(1)), tempfile::tempdir().unwrap());
    let tree = tree(dir.path());
    let ([holder, honest, bad], backup) =
        (["holder", "honest", "bad"].map(|name| server.client(name, &[&tree])), wire::Intent::Backup);
    let timer = || wire::Hello { trigger: wire::Trigger::Timer.into(), ..Default::default() };
    let (_holds, answer) = hello(&holder, backup, timer()).await;
    welcomed(answer);
    let (_waits, answer) = hello(&honest, backup, timer()).await;
    let first = queued(answer);
    assert_eq!(first.position, 0, "{first:?}");
    // A later second: who waits for longer is first.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let old = [0_i64.to_le_bytes().to_vec(), vec![0; 16]].concat();
    for ticket in [old, first.ticket.to_vec(), vec![7; 500]] {
        let (_, answer) = hello(&bad, backup, wire::Hello { ticket: ticket.into(), ..timer() }).await;
        assert_eq!(queued(answer).position, 1, "behind whoever waits honestly");
    }
    for trigger in [wire::Trigger::Resume, wire::Trigger::Dialled, wire::Trigger::Nudge] {
        let claim = wire::Hello { trigger: trigger.into(), ..Default::default() };
        let (_, answer) = hello(&bad, backup, claim).await;
        assert_eq!(queued(answer).position, 1, "{trigger:?} is only said");
    }
    // Only an operator's certificate reads for another client.
    let claim = wire::Hello { client: "honest".to_owned(), ..Default::default() };
    let (_, answer) = hello(&bad, wire::Intent::Browse, claim).await;
    assert_eq!(welcomed(answer).client, "bad");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_other_roles_do_not_get_in() {
    let (server, dir) = (TestServer::with_policy(&slots(2)), tempfile::tempdir().unwrap());
    let tree = tree(dir.path());
    let bad = server.client("bad", &[&tree]);
    let agent = AgentHome::at(bad.path());
    let address = agent.config().unwrap().servers[0].clone();
    let own = server.home.path().join("server/tls");
    for identity in [agent.listener().unwrap(), Identity::load(&own, "dialler").unwrap()] {
        if let Ok(link) = dial_server(&address, &identity, Use::Work).await {
            let answer = Peer::over(link).hello(wire::Intent::Backup, wire::Hello::default()).await;
            assert_eq!(answer, None, "turned away before a word is heard");
        }
    }
    let operator = Identity::load(&own, "operator").unwrap();
    let link = dial_server(&address, &operator, Use::Work).await.unwrap();
    let claim = wire::Hello { client: "bad".to_owned(), ..Default::default() };
    let answer = Peer::over(link).hello(wire::Intent::Backup, claim).await;
    assert_eq!(refused(answer).code, end::REVOKED, "an operator does not back up");
    is_served(&bad);
}

/// An agent that listens, with more lines in its config.
fn listening(server: &TestServer, config: &str, dir: &Path) -> (Home, String, Daemon) {
    let (home, address) = server.listener("desk", &[&tree(dir)]);
    let path = home.path().join("agent/config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{config}{text}")).unwrap();
    let agent = home.start(&["-v", "agent", "run", "--listen", &address]);
    (home, address, agent)
}

/// Dials an agent as its server does, many times at once: how many dials are answered.
async fn dial_often(server: &TestServer, address: &str, times: usize) -> usize {
    let tls = server.home.path().join("server/tls");
    let dials: Vec<_> = (0..times)
        .map(|_| {
            let (identity, address) = (Identity::load(&tls, "dialler").unwrap(), address.to_owned());
            tokio::spawn(async move { dial_agent(&address, &identity, "desk").await.is_ok() })
        })
        .collect();
    let mut answered = 0;
    for dial in dials {
        answered += usize::from(dial.await.unwrap());
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dials_without_end_is_answered_ten_times_a_minute() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (_home, address, agent) = listening(&server, "", dir.path());
    let answered = dial_often(&server, &address, 30).await;
    assert!((1..=10).contains(&answered), "{answered} are answered");
    agent.says("dials in a minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_ignores_dials_from_where_its_server_is_not() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (home, address, agent) = listening(&server, "allow_from = [\"10.0.0.0/8\"]\n", dir.path());
    assert_eq!(dial_often(&server, &address, 3).await, 0);
    agent.terminate();
    let path = home.path().join("agent/config.toml");
    let text = std::fs::read_to_string(&path).unwrap().replace("10.0.0.0/8", "127.0.0.0/8");
    std::fs::write(&path, text).unwrap();
    let _agent = home.start(&["agent", "run", "--listen", &address]);
    let mut answered = 0;
    wait_until("it answers", || {
        answered += tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(dial_often(&server, &address, 1))
        });
        answered > 0
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dials_and_says_nothing_does_not_keep_an_agent_from_its_backup() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (_home, address, agent) = listening(&server, "", dir.path());
    let identity = Identity::load(&server.home.path().join("server/tls"), "dialler").unwrap();
    let _silent = dial_agent(&address, &identity, "desk").await.unwrap();
    agent.says("it is there, and says nothing");
    let run = tokio::task::block_in_place(|| server.home.json(&["client", "run", "desk", "--wait"]));
    assert_eq!(run[0]["state"].as_str(), Some("done"), "{run}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_keeps_the_servers_books_from_being_written_does_not_keep_it_from_answering() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let tree = tree(dir.path());
    let [busy, late, good] = ["busy", "late", "good"].map(|name| server.client(name, &[&tree]));
    let mut open = Vec::new();
    for _ in 0..10 {
        let (peer, answer) = hello(&busy, wire::Intent::Browse, wire::Hello::default()).await;
        welcomed(answer);
        open.push(peer);
    }
    let books = rusqlite::Connection::open(server.home.path().join("server/fleet.sqlite")).unwrap();
    books.execute_batch("BEGIN IMMEDIATE").unwrap();
    let held = Instant::now();
    // That it was here is to be written down.
    let waits =
        tokio::spawn(async move { hello(&late, wire::Intent::Attend, wire::Hello::default()).await.1 });
    tokio::time::sleep(Duration::from_millis(500)).await;
    // More than it has threads have something to say about their end.
    drop(open);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    Peer::dial(&good).await;
    let answered = start.elapsed();
    assert!(held.elapsed() < Duration::from_secs(9), "nobody waits for longer: this says nothing");
    assert!(answered < Duration::from_secs(2), "{answered:?}");
    books.execute_batch("COMMIT").unwrap();
    welcomed(waits.await.unwrap());
    is_served(&good);
}
