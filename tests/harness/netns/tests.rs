//! Pings across the places, and what is left of them.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::*;

const SOON: Duration = Duration::from_secs(60);
const NEVER: Duration = Duration::from_millis(300);

/// A server that says to each where it sees it.
struct Echo {
    socket: Arc<UdpSocket>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start(at: &Namespace) -> Self {
        let socket = Arc::new(at.udp("0.0.0.0:4455".parse().unwrap()));
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let ended = Arc::new(AtomicBool::new(false));
        let (mine, stop) = (socket.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let Ok((_, peer)) = mine.recv_from(&mut [0; 100]) else { continue };
                let _ = mine.send_to(peer.to_string().as_bytes(), peer);
            }
        });
        Self { socket, ended, thread: Some(thread) }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        let _ = self.thread.take().unwrap().join();
    }
}

fn any() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

fn hear(socket: &UdpSocket, patience: Duration) -> Option<SocketAddr> {
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut buffer = [0; 100];
    let length = socket.recv(&mut buffer).ok()?;
    std::str::from_utf8(&buffer[..length]).unwrap().parse().ok()
}

/// Where the server sees a socket. Asks again where the first packet is lost to the search for a neighbour.
fn seen(socket: &UdpSocket, patience: Duration) -> Option<SocketAddr> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if socket.send_to(b"where am I?", "10.77.0.1:4455").is_err() {
            std::thread::sleep(Duration::from_millis(20));
        } else if let Some(seen) = hear(socket, Duration::from_millis(200)) {
            return Some(seen);
        }
    }
    None
}

fn ours() -> Vec<String> {
    let listed = tool("ip", &["netns", "list"]).unwrap();
    let prefix = format!("{PREFIX}{}-", std::process::id());
    listed.lines().filter(|line| line.starts_with(&prefix)).map(str::to_owned).collect()
}

fn sleeper(at: &Namespace) -> Child {
    at.command("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_roaming_laptop_has_another_address_and_a_lost_one_has_none() {
    let Some(mut office) = Office::new() else { return };
    let _echo = Echo::start(&office.server);
    let socket = office.laptop.udp(any());
    assert_eq!(seen(&socket, SOON).unwrap().ip(), Link::Wifi.address());
    office.roam();
    assert_eq!(seen(&socket, SOON).unwrap().ip(), Link::Cable.address());
    office.leave();
    assert!(socket.send_to(b"anybody?", "10.77.0.1:4455").is_err());
    office.join();
    assert_eq!(seen(&socket, SOON).unwrap().ip(), Link::Cable.address());
    office.roam_softly();
    assert_eq!(seen(&socket, SOON).unwrap().ip(), Link::Wifi.address());
    office.lose();
    assert_eq!(seen(&socket, NEVER), None);
    office.mend();
    assert_eq!(seen(&socket, SOON).unwrap().ip(), Link::Wifi.address());
    office.laptop.no_default_route();
    assert!(socket.send_to(b"anybody?", "10.77.0.1:4455").is_err());
}

#[test]
fn the_server_reaches_a_laptop_in_the_office_first() {
    let Some(office) = Office::new() else { return };
    let echo = Echo::start(&office.server);
    let socket = office.laptop.udp("0.0.0.0:4456".parse().unwrap());
    echo.socket.send_to(b"10.77.0.1:1", (Link::Wifi.address(), 4_456)).unwrap();
    assert_eq!(hear(&socket, SOON), Some("10.77.0.1:1".parse().unwrap()));
}

/// A home, a server in its world and a socket in it.
fn at_home() -> Option<(Home, Echo, UdpSocket)> {
    let home = Home::new()?;
    let echo = Echo::start(&home.server);
    let socket = home.laptop.udp(any());
    Some((home, echo, socket))
}

#[test]
fn a_nat_hides_the_inside_and_binds_anew() {
    let Some((mut home, echo, socket)) = at_home() else { return };
    let first = seen(&socket, SOON).unwrap();
    assert_eq!(first.ip(), home.outside_ip());
    assert_eq!(seen(&socket, SOON), Some(first));
    home.rebind();
    echo.socket.send_to(b"10.77.0.1:1", first).unwrap();
    assert_eq!(hear(&socket, NEVER), None);
    let second = seen(&socket, SOON).unwrap();
    assert_eq!(second.ip(), first.ip());
    assert_ne!(second.port(), first.port());
    home.readdress();
    let third = seen(&socket, SOON).unwrap();
    assert_eq!(third.ip(), home.outside_ip());
    assert_ne!(third.ip(), first.ip());
    home.leave();
    assert!(socket.send_to(b"anybody?", "10.77.0.1:4455").is_err());
    home.join();
    assert_eq!(seen(&socket, SOON).unwrap().ip(), home.outside_ip());
}

#[test]
fn a_nat_binds_anew_without_conntrack_too() {
    let Some((home, _echo, socket)) = at_home() else { return };
    let first = seen(&socket, SOON).unwrap();
    home.router.restart_link("outside", None);
    let second = seen(&socket, SOON).unwrap();
    assert_eq!(second.ip(), first.ip());
    assert_ne!(second.port(), first.port());
}

#[test]
fn a_nat_forgets_the_silent() {
    let Some((home, echo, socket)) = at_home() else { return };
    home.router.nat_forgets_after(Duration::from_secs(1));
    let first = seen(&socket, SOON).unwrap();
    echo.socket.send_to(b"10.77.0.1:1", first).unwrap();
    assert!(hear(&socket, SOON).is_some());
    std::thread::sleep(Duration::from_millis(2_200));
    echo.socket.send_to(b"10.77.0.1:1", first).unwrap();
    assert_eq!(hear(&socket, NEVER), None);
}

#[test]
fn a_bridge_makes_one_network() {
    let Some(net) = Net::new() else { return };
    let (switch, one, other) = (net.namespace("switch"), net.namespace("one"), net.namespace("server"));
    net.veth(one.end("lan", "10.77.0.2/24"), switch.port("one"));
    net.veth(other.end("lan", "10.77.0.1/24"), switch.port("other"));
    let _echo = Echo::start(&other);
    let socket = one.udp(any());
    assert_eq!(seen(&socket, NEVER), None);
    switch.bridge("office", &["one", "other"]);
    assert_eq!(seen(&socket, SOON).unwrap().ip(), Ipv4Addr::new(10, 77, 0, 2));
}

#[test]
fn nothing_is_left_not_even_after_a_panic() {
    let Some(office) = Office::new() else { return };
    let names = [office.server.name(), office.laptop.name()].map(str::to_owned);
    assert!(names.iter().all(|name| ours().iter().any(|line| line.starts_with(name.as_str()))));
    let mut child = sleeper(&office.laptop);
    let panicked = std::thread::spawn(move || {
        let _office = office;
        std::panic::resume_unwind(Box::new("as a failed test does"));
    });
    assert!(panicked.join().is_err());
    assert!(!names.iter().any(|name| ours().iter().any(|line| line.starts_with(name.as_str()))));
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn commands_run_inside_as_the_process_that_was_started() {
    let Some(net) = Net::new() else { return };
    let inside = net.namespace("inside");
    let id = |path: &str| fs::read_link(path).unwrap();
    let there = inside.inside(|| id("/proc/thread-self/ns/net"));
    assert_ne!(there, id("/proc/thread-self/ns/net"));
    let mut child = sleeper(&inside);
    let of_child = || fs::read_link(format!("/proc/{}/ns/net", child.id())).unwrap();
    let start = Instant::now();
    while of_child() != there && start.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(of_child(), there);
    let mut spawned = inside.inside(|| Command::new("sleep").arg("60").spawn().unwrap());
    assert_eq!(id(&format!("/proc/{}/ns/net", spawned.id())), there);
    assert!(pids(inside.name()).iter().any(|pid| pid.as_raw_pid().cast_unsigned() == spawned.id()));
    for child in [&mut child, &mut spawned] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn a_frozen_process_goes_on_when_thawed() {
    let mut child = Command::new("sleep").arg("0.2").spawn().unwrap();
    freeze(child.id());
    std::thread::sleep(Duration::from_millis(400));
    assert!(child.try_wait().unwrap().is_none());
    thaw(child.id());
    assert!(child.wait().unwrap().success());
}
