//! What idle links cost a server, and what a herd of joins does to it: real QUIC, real certificates, one server
//! process; the clients are tasks of this one.
//!
//! `cargo run --release -p backhaul-benches --bin links -- [LINKS]` (default 2,000).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers"
)]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use backhaul_agent::home::AgentHome;
use backhaul_net::endpoint::dial_server;
use backhaul_net::link::{FrameReader, FrameWriter, Path, Streams};
use backhaul_net::transport::{KEEP_ALIVE, Use};
use backhaul_proto::agent::{AgentSession, Event};
use backhaul_proto::attend::AttendSession;
use backhaul_proto::goodbye::Goodbye;
use backhaul_proto::{SessionError, wire};
use backhaul_tests::TestServer;
use tempfile::TempDir;

/// The herd: so many, within so long.
const HERD: usize = 150;
const HERD_TIME: Duration = Duration::from_secs(10);
const SLOTS: usize = 12;
/// How long a granted client keeps its slot: long enough that the herd wants more slots than there are.
const RUN: Duration = Duration::from_secs(1);
/// How long packets are counted.
const LISTEN: Duration = Duration::from_secs(50);

struct Client {
    home: AgentHome,
    server: String,
    _dir: TempDir,
}

fn rss(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// A link that stands: its ends are kept open, and its packets counted.
struct Held {
    path: Path,
    _ends: (AttendSession, FrameWriter, FrameReader, Streams),
}

/// Datagrams of all links so far: from the clients, and from the server.
fn datagrams(held: &[Held]) -> [u64; 2] {
    let traffic = || held.iter().map(|held| held.path.traffic());
    [traffic().map(|one| one.sent).sum(), traffic().map(|one| one.received).sum()]
}

async fn attend(client: &Client) -> Held {
    let wanted = Use::Standing(KEEP_ALIVE);
    let link = dial_server(&client.server, &client.home.agent().unwrap(), wanted).await.unwrap();
    let path = link.path();
    let (mut writer, mut reader, streams) = link.split();
    let mut session = AttendSession::new(wire::Hello::default());
    writer.send(&session.poll().unwrap()).await.unwrap();
    let welcome = reader.next().await.unwrap().unwrap();
    session.handle(welcome).unwrap();
    Held { path, _ends: (session, writer, reader, streams) }
}

/// Asks for a run; returns how long it took to be granted, or the server's refusal.
async fn ask(client: &Client, running: &AtomicUsize, most: &AtomicUsize) -> Result<Duration, String> {
    let start = Instant::now();
    let link = dial_server(&client.server, &client.home.agent().unwrap(), Use::Work).await.unwrap();
    let (mut writer, mut reader, _streams) = link.split();
    let mut session = AgentSession::new(wire::Hello {
        intent: wire::Intent::Backup.into(),
        trigger: wire::Trigger::Manual.into(),
        ..Default::default()
    });
    writer.send(&session.poll().unwrap()).await.unwrap();
    loop {
        let frame = reader.next().await.map_err(|error| error.to_string())?.ok_or("it hung up")?;
        match session.handle(frame) {
            Ok(Some(Event::Welcome(_))) => break,
            Ok(_) => {}
            Err(SessionError::Ended { code, text, .. }) => return Err(format!("{code}: {text}")),
            Err(error) => return Err(error.to_string()),
        }
    }
    let granted = start.elapsed();
    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
    tokio::time::sleep(RUN).await;
    running.fetch_sub(1, Ordering::SeqCst);
    session.close(Goodbye::Failed("it was only a drill".to_owned()));
    writer.send(&session.poll().unwrap()).await.map_err(|error| error.to_string())?;
    writer.end().await;
    Ok(granted)
}

fn enrol(server: &TestServer, count: usize, runtime: &tokio::runtime::Runtime) -> Vec<Client> {
    (0..count)
        .map(|n| {
            let dir = tempfile::tempdir().unwrap();
            let home = AgentHome::at(dir.path());
            let code = server.add(&format!("client-{n}"), &["--initiator", "hybrid"]).parse().unwrap();
            let config = runtime.block_on(home.join(&code, vec!["/etc".into()])).unwrap();
            Client { home, server: config.servers[0].clone(), _dir: dir }
        })
        .collect()
}

fn main() {
    let links: usize = std::env::args().nth(1).map_or(2_000, |text| text.parse().unwrap());
    // Nobody is due: the window is shut for hours, so that links are idle.
    let server =
        TestServer::with_policy(&format!("{}[admission]\nslots = {SLOTS}\n", TestServer::quiet_policy()));
    let pid = server.pid().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let clients: Arc<Vec<Client>> = Arc::new(enrol(&server, links.max(HERD), &runtime));
    eprintln!("{} clients have joined", clients.len());
    std::thread::sleep(Duration::from_secs(3));
    let before = rss(pid);
    let mut held = Vec::new();
    let start = Instant::now();
    for client in clients.iter().take(links) {
        held.push(runtime.block_on(attend(client)));
    }
    println!("{links} links in {:.1} s, one after the other", start.elapsed().as_secs_f64());
    std::thread::sleep(Duration::from_secs(5));
    let (after, heard) = (rss(pid), datagrams(&held));
    println!("server: {:.1} MiB before, {:.1} MiB with links", mib(before), mib(after));
    println!(
        "a link costs {:.1} KiB of the server's memory",
        (after - before) as f64 / links as f64 / 1024.0
    );
    std::thread::sleep(LISTEN);
    let [up, down] = std::array::from_fn(|way| {
        (datagrams(&held)[way] - heard[way]) as f64 / links as f64 / LISTEN.as_secs_f64() * 25.0
    });
    println!("{:.2} packets a link in 25 s: {up:.2} from the client, {down:.2} from the server", up + down);

    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let herd: Vec<_> = (0..HERD)
        .map(|n| {
            let (clients, running, most) = (Arc::clone(&clients), Arc::clone(&running), Arc::clone(&most));
            runtime.spawn(async move {
                tokio::time::sleep(HERD_TIME * n as u32 / HERD as u32).await;
                ask(&clients[n], &running, &most).await
            })
        })
        .collect();
    let answers: Vec<_> = herd.into_iter().map(|task| runtime.block_on(task).unwrap()).collect();
    let refused: Vec<&String> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    let mut waits: Vec<Duration> =
        answers.iter().filter_map(|answer| answer.as_ref().ok().copied()).collect();
    let first = waits.first().copied().unwrap_or_default();
    waits.sort();
    println!(
        "{HERD} joined within {} s beside {links} links: {} refused {refused:?}",
        HERD_TIME.as_secs(),
        refused.len()
    );
    println!(
        "the first was granted after {first:.1?}; median {:.1?}, longest {:.1?}",
        waits[waits.len() / 2],
        waits[waits.len() - 1]
    );
    println!("at most {} of {SLOTS} slots were held", most.load(Ordering::SeqCst));
    assert!(most.load(Ordering::SeqCst) <= SLOTS, "more runs than slots");
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
