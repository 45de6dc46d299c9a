//! On real kernels, clocks and buses, each in a process of its own.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use super::*;
use crate::gates::Conditions;
use crate::inhibit::{Inhibitor, during_run};
use crate::signals::network::InterfaceKind;
use crate::signals::power::Supply;
use rustix::process::{Pid, Signal as Unix, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

mod managers;

/// Longer than a busy machine takes for anything here.
const PATIENT: Duration = Duration::from_secs(60);

/// Says that this process is the inner one of a test.
const INNER: &str = "BACKHAUL_TEST_INNER";

fn is_inner() -> bool {
    std::env::var_os(INNER).is_some()
}

/// This test once more, in a process of its own: `wrapper` comes before it.
fn again(test: &str, wrapper: &[&str]) -> Command {
    let own = std::env::current_exe().unwrap();
    let mut words = wrapper.iter().map(std::ffi::OsStr::new).chain([own.as_os_str()]);
    let mut command = Command::new(words.next().unwrap());
    let test = format!("signals::tests::{test}");
    command.args(words).args(["--exact", &test, "--nocapture"]).env(INNER, "1");
    command
}

fn senses() -> Senses {
    let pace = Pace { settle: 300, settle_after_resume: 300, apart: 500, ..Pace::default() };
    Senses { pace, tick_ms: 100, late_ms: 1_000, ..Senses::default() }
}

fn towards(server: &str) -> Arc<Towards> {
    let server: SocketAddr = server.parse().unwrap();
    Arc::new(move || vec![server])
}

/// The first signal that something is made of.
async fn first<T>(told: &mut Receiver<Signal>, pick: impl Fn(Signal) -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = pick(told.recv().await.unwrap()) {
                return found;
            }
        }
    };
    tokio::time::timeout(PATIENT, wait).await.unwrap()
}

async fn next_network(told: &mut Receiver<Signal>) -> Option<Network> {
    first(told, |signal| match signal {
        Signal::Network(network) => Some(network),
        _ => None,
    })
    .await
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
}

#[tokio::test]
async fn a_new_address_is_heard_at_once() {
    if !is_inner() {
        let mut may = Command::new("unshare");
        may.args(["-n", "ip", "link"]).stdout(Stdio::null()).stderr(Stdio::null());
        if !may.status().is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: no network namespaces here");
            return;
        }
        assert!(again("a_new_address_is_heard_at_once", &["unshare", "-n"]).status().unwrap().success());
        return;
    }
    ip("link set lo up");
    ip("link add cable type veth peer name other");
    ip("link set other up");
    ip("link set cable up");
    // Until the kernel is quiet.
    let hints = Hints::listen();
    while tokio::time::timeout(Duration::from_millis(300), hints.heard()).await.is_ok() {}
    let (signals, mut told) = Signals::start(towards("198.51.100.7:443"), senses());
    assert_eq!(signals.now().network, None);

    ip("addr add 192.0.2.2/24 dev cable");
    let start = Instant::now();
    tokio::time::timeout(PATIENT, hints.heard()).await.unwrap();
    eprintln!("heard of an address after {} us", start.elapsed().as_micros());
    ip("neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev cable");
    ip("route add default via 192.0.2.1");
    let start = Instant::now();
    let network = next_network(&mut told).await.unwrap();
    eprintln!("told a network after {} ms", start.elapsed().as_millis());
    assert_eq!((network.source, network.kind), ("192.0.2.2".parse().unwrap(), InterfaceKind::Ethernet));
    assert_eq!(signals.now().network, Some(network.clone()));

    // Roaming to a gateway that does not answer, and back.
    ip("addr add 203.0.113.2/24 dev cable");
    ip("route replace default via 203.0.113.1");
    let roamed = next_network(&mut told).await.unwrap();
    assert_eq!(roamed.source, "203.0.113.2".parse::<std::net::IpAddr>().unwrap());
    assert_ne!(roamed.fingerprint, network.fingerprint);
    ip("route replace default via 192.0.2.1");
    assert_eq!(next_network(&mut told).await, Some(network));
    ip("link set cable down");
    assert_eq!(next_network(&mut told).await, None);
}

/// A child that is ended with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

#[tokio::test]
async fn a_process_that_was_stopped_says_so_when_it_runs_again() {
    if is_inner() {
        let (_signals, mut told) = Signals::start(towards("127.0.0.1:9"), senses());
        eprintln!("ready");
        // On a busy machine it may have stood still for a while before.
        let asleep_ms = first(&mut told, |signal| match signal {
            Signal::Woke { asleep_ms } if asleep_ms >= 1_900 => Some(asleep_ms),
            _ => None,
        });
        eprintln!("woke {}", asleep_ms.await);
        return;
    }
    let mut inner = again("a_process_that_was_stopped_says_so_when_it_runs_again", &[]);
    let mut inner = Ended(inner.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap());
    let mut lines = BufReader::new(inner.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "ready"));
    let pid = Pid::from_raw(inner.0.id() as i32).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let stopped = Instant::now();
    kill_process(pid, Unix::STOP).unwrap();
    tokio::time::sleep(Duration::from_millis(2_000)).await;
    kill_process(pid, Unix::CONT).unwrap();
    let start = Instant::now();
    let woke = lines.find(|line| line.starts_with("woke ")).unwrap();
    eprintln!("{woke}, {} ms after it ran again", start.elapsed().as_millis());
    let asleep: u64 = woke["woke ".len()..].parse().unwrap();
    // It cannot know how much of the time since its last look it was stopped.
    assert!(u128::from(asleep) <= stopped.elapsed().as_millis() + 400, "{asleep}");
    assert!(inner.0.wait().unwrap().success());
}

#[tokio::test]
async fn a_slow_receiver_gets_what_is_true_and_a_dropped_sense_ends() {
    let power = tempfile::tempdir().unwrap();
    let battery = power.path().join("BAT0");
    std::fs::create_dir(&battery).unwrap();
    std::fs::write(battery.join("type"), "Battery").unwrap();
    std::fs::write(battery.join("status"), "Discharging").unwrap();
    let charge = |percent: u8| {
        std::fs::write(battery.join("new"), percent.to_string()).unwrap();
        std::fs::rename(battery.join("new"), battery.join("capacity")).unwrap();
    };
    charge(90);
    let senses = Senses { power: power.path().to_owned(), tick_ms: 2, ..senses() };
    let (signals, mut told) = Signals::start(towards("127.0.0.1:9"), senses);
    assert_eq!(signals.now().power.battery_percent, Some(90));
    for percent in (50..90).rev() {
        charge(percent);
        let wait = async {
            while signals.now().power.battery_percent != Some(percent) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENT, wait).await.unwrap();
    }
    let (mut heard, mut last) = (0, None);
    while last != Some(50) {
        last = first(&mut told, |signal| match signal {
            Signal::Power(power) => Some(power.battery_percent),
            _ => None,
        })
        .await;
        heard += 1;
    }
    assert!(heard <= QUEUE + 1, "{heard}");
    drop(signals);
    let end = tokio::time::timeout(PATIENT, async { while told.recv().await.is_some() {} });
    end.await.unwrap();
}

/// NetworkManager as far as it is asked.
struct Manager(u32);

#[zbus::interface(name = "org.freedesktop.NetworkManager")]
impl Manager {
    #[zbus(property)]
    fn metered(&self) -> u32 {
        self.0
    }
}

/// logind likewise: it keeps the other end of a lock.
struct Login(std::sync::mpsc::Sender<(String, std::os::unix::net::UnixStream)>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl Login {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::OwnedFd {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        self.0.send((format!("{what} {who} {why} {mode}"), ours)).unwrap();
        std::os::fd::OwnedFd::from(theirs).into()
    }
}

/// A bus of the test's own, and its address.
fn private_bus(dir: &std::path::Path) -> Option<(Ended, String)> {
    let config = dir.join("bus.conf");
    let text = format!(
        r#"<busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>"#,
        dir.join("bus").display()
    );
    std::fs::write(&config, text).unwrap();
    let daemon = Command::new("dbus-daemon")
        .args(["--nofork", "--print-address", "--config-file"])
        .arg(config)
        .stdout(Stdio::piped())
        .spawn();
    let mut daemon = Ended(daemon.ok()?);
    let mut address = String::new();
    BufReader::new(daemon.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    Some((daemon, address.trim().to_owned()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managers_on_the_bus_are_asked() {
    if !is_inner() {
        let dir = tempfile::tempdir().unwrap();
        let Some((_daemon, address)) = private_bus(dir.path()) else {
            eprintln!("SKIPPED: no dbus-daemon here");
            return;
        };
        let mut inner = again("managers_on_the_bus_are_asked", &[]);
        assert!(inner.env("DBUS_SYSTEM_BUS_ADDRESS", address).status().unwrap().success());
        return;
    }
    let phone = Some(InterfaceKind::UsbTether);
    // A bus without managers.
    assert_eq!(metered::ask(&mut Bus::default(), phone).await, Metered::Yes);
    assert!(Inhibitor::hold("a backup").await.is_none());

    let (send, locks) = std::sync::mpsc::channel();
    let path = "/org/freedesktop/NetworkManager";
    let managers = zbus::connection::Builder::system()
        .name("org.freedesktop.NetworkManager")
        .name("org.freedesktop.login1")
        .serve_at(path, Manager(2))
        .serve_at("/org/freedesktop/login1", Login(send))
        .build()
        .await
        .unwrap();
    let manager = managers.object_server().interface::<_, Manager>(path).await.unwrap();
    let mut bus = Bus::default();
    for (number, kind, expected) in [
        (2, phone, Metered::No),
        (4, phone, Metered::No),
        (0, phone, Metered::Yes),
        (1, None, Metered::Yes),
        (0, None, Metered::No),
        (3, Some(InterfaceKind::Wifi), Metered::Yes),
    ] {
        manager.get_mut().await.0 = number;
        assert_eq!(metered::ask(&mut bus, kind).await, expected, "{number} {kind:?}");
    }
    // Signals say so, too.
    let (_signals, mut told) = Signals::start(towards("127.0.0.1:9"), Senses { metered_ms: 50, ..senses() });
    assert_eq!(told.recv().await, Some(Signal::Metered(Metered::Yes)));
    manager.get_mut().await.0 = 4;
    assert_eq!(told.recv().await, Some(Signal::Metered(Metered::No)));

    let on = |supply| Conditions { power: Power { supply, battery_percent: None }, ..Conditions::default() };
    assert!(during_run(&on(Supply::Battery)).await.is_none());
    let lock = during_run(&on(Supply::Mains)).await.unwrap();
    let (asked, mut ours) = locks.recv().unwrap();
    assert_eq!(asked, "idle Backhaul a backup is under way block");
    ours.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(ours.read(&mut [0]).is_err(), "given back too early");
    drop(lock);
    ours.set_read_timeout(Some(PATIENT)).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0, "not given back");
}

#[tokio::test]
async fn a_bus_that_does_not_answer_costs_two_seconds() {
    if !is_inner() {
        let dir = tempfile::tempdir().unwrap();
        let silent = std::os::unix::net::UnixListener::bind(dir.path().join("bus")).unwrap();
        let mut inner = again("a_bus_that_does_not_answer_costs_two_seconds", &[]);
        let address = format!("unix:path={}", dir.path().join("bus").display());
        assert!(inner.env("DBUS_SYSTEM_BUS_ADDRESS", address).status().unwrap().success());
        drop(silent);
        return;
    }
    let start = Instant::now();
    assert_eq!(metered::ask(&mut Bus::default(), Some(InterfaceKind::Wwan)).await, Metered::Yes);
    // Without a bound of our own it would be 25 s.
    assert!((1_900..20_000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
}
