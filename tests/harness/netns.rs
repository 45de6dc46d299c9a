//! Networks of our own in namespaces: laptops that roam, leave and come back, routers, NAT. Needs root and `ip`.
//!
//! Nothing is made outside the namespaces, and they are removed with their owner, also when a test panics.
//! What a killed test left is removed by the next one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

mod places;

pub use places::{Home, Link, Office};

/// Where `ip netns` keeps its handles.
const HANDLES: &str = "/var/run/netns";

/// How names of namespaces begin. The process id follows, and a number.
const PREFIX: &str = "bh-";

/// Says on standard error, past the capture of tests, that a test does not run.
pub fn skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Runs a tool: what it printed, or what it complained of.
fn tool(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    Err(format!("{program} {}: {} {}", args.join(" "), output.status, text(&output.stderr)))
}

/// Some namespaces and the links between them.
pub struct Net {
    prefix: String,
    names: Mutex<Vec<String>>,
}

impl Net {
    /// An empty net. None, said aloud, where this machine does not let us make one.
    pub fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            skipped("a network namespace needs root and ip: not root");
            return None;
        }
        remove_orphans();
        let (pid, number) = (std::process::id(), MADE.fetch_add(1, Ordering::SeqCst));
        let net = Self { prefix: format!("{PREFIX}{pid}-{number}-"), names: Mutex::new(Vec::new()) };
        match net.probe() {
            Ok(_) => Some(net),
            Err(error) => {
                skipped(&format!("a network namespace needs root and ip: {error}"));
                None
            }
        }
    }

    fn probe(&self) -> Result<String, String> {
        let probe = self.try_namespace("probe")?;
        let veth = ["link", "add", "name", "one", "type", "veth", "peer", "name", "other"];
        tool("ip", &[&["-n", probe.name()], &veth[..]].concat())
    }

    fn try_namespace(&self, name: &str) -> Result<Namespace, String> {
        let name = format!("{}{name}", self.prefix);
        tool("ip", &["netns", "add", &name])?;
        self.names.lock().unwrap().push(name.clone());
        Ok(Namespace { name })
    }

    /// A new namespace with nothing but its loopback.
    pub fn namespace(&self, name: &str) -> Namespace {
        let namespace = self.try_namespace(name).unwrap();
        namespace.up("lo");
        namespace
    }

    /// A cable between two namespaces, up at both ends.
    pub fn veth(&self, one: End<'_>, other: End<'_>) {
        let peer = ["type", "veth", "peer", "name", other.link, "netns", other.namespace.name()];
        one.namespace.ip(&[&["link", "add", "name", one.link], &peer[..]].concat());
        for end in [one, other] {
            if let Some(address) = end.address {
                end.namespace.add_address(end.link, address);
            }
            end.namespace.up(end.link);
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if let Ok(names) = self.names.get_mut() {
            names.drain(..).for_each(|name| remove(&name));
        }
    }
}

/// Removes a namespace, and the processes that were started in it: they would keep it.
fn remove(name: &str) {
    for pid in pids(name) {
        let _ = kill_process(pid, Signal::KILL);
    }
    if let Err(error) = tool("ip", &["netns", "delete", name]) {
        let _ = writeln!(std::io::stderr(), "{error}");
    }
}

/// Processes in a namespace, apart from this one.
fn pids(name: &str) -> Vec<Pid> {
    let listed = tool("ip", &["netns", "pids", name]).unwrap_or_default();
    let others = listed.lines().filter_map(|line| line.trim().parse().ok());
    others.filter(|pid| *pid != std::process::id().cast_signed()).filter_map(Pid::from_raw).collect()
}

/// Removes the namespaces of tests that are no more.
fn remove_orphans() {
    for entry in fs::read_dir(HANDLES).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()) {
            // Another test may be at it as well.
            let _ = tool("ip", &["netns", "delete", &name]);
        }
    }
}

/// One end of a cable.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    namespace: &'a Namespace,
    link: &'a str,
    address: Option<&'a str>,
}

/// A machine, as far as its network goes. Its owner is the [`Net`].
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// The name that `ip netns` knows.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An end with an address and the length of its prefix, such as `10.77.0.1/24`.
    pub fn end<'a>(&'a self, link: &'a str, address: &'a str) -> End<'a> {
        End { namespace: self, link, address: Some(address) }
    }

    /// An end without an address, for a bridge.
    pub fn port<'a>(&'a self, link: &'a str) -> End<'a> {
        End { namespace: self, link, address: None }
    }

    /// A command that will run inside, as the process that is started. It must be started by root, and sees
    /// a `/sys` of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Does something inside: the sockets that it opens and the processes that it starts stay inside, also
    /// when it is done. It runs in a thread of its own; threads that existed before stay outside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let handle = File::open(Path::new(HANDLES).join(&self.name)).unwrap();
        let enter_and_work = || {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(enter_and_work).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A socket inside, for any thread.
    pub fn udp(&self, address: SocketAddr) -> UdpSocket {
        self.inside(|| UdpSocket::bind(address)).unwrap()
    }

    /// Runs `ip` on this namespace, for what there is no method for. It must succeed.
    pub fn ip(&self, args: &[&str]) -> String {
        tool("ip", &[&["-n", &self.name], args].concat()).unwrap()
    }

    /// Sets one of the namespace's own switches, such as `net/ipv4/ip_forward`.
    pub fn sysctl(&self, switch: &str, value: &str) {
        self.inside(|| fs::write(Path::new("/proc/sys").join(switch), value)).unwrap();
    }

    /// Plugs a link in. Routes through it do not come back by themselves, other than to its own network.
    pub fn up(&self, link: &str) {
        self.ip(&["link", "set", "dev", link, "up"]);
    }

    /// Pulls a link out: it keeps its addresses and loses its routes.
    pub fn down(&self, link: &str) {
        self.ip(&["link", "set", "dev", link, "down"]);
    }

    /// Adds an address with the length of its prefix.
    pub fn add_address(&self, link: &str, address: &str) {
        self.ip(&["address", "add", address, "dev", link]);
    }

    /// Takes an address away, and the routes that need it.
    pub fn delete_address(&self, link: &str, address: &str) {
        self.ip(&["address", "delete", address, "dev", link]);
    }

    /// Replaces an address: as when a lease runs out. A default route that needed the old one is gone.
    pub fn change_address(&self, link: &str, old: &str, new: &str) {
        self.delete_address(link, old);
        self.add_address(link, new);
    }

    /// Makes this the default route, in place of any other.
    pub fn default_route(&self, via: &str, link: &str) {
        self.ip(&["route", "replace", "default", "via", via, "dev", link]);
    }

    /// Takes the default route away, if there is one.
    pub fn no_default_route(&self) {
        if !self.ip(&["route", "show", "default"]).is_empty() {
            self.ip(&["route", "delete", "default"]);
        }
    }

    /// Hands packets on between its links from now on.
    pub fn forward(&self) {
        self.sysctl("net/ipv4/ip_forward", "1");
    }

    /// A switch: all that is plugged into its ports is one network.
    pub fn bridge(&self, name: &str, ports: &[&str]) {
        self.ip(&["link", "add", "name", name, "type", "bridge"]);
        for port in ports {
            self.ip(&["link", "set", "dev", port, "up", "master", name]);
        }
        self.up(name);
    }

    /// Packets to an address or a network vanish on their way through here, and nobody is told. Senders in
    /// this same namespace get an error instead.
    pub fn blackhole(&self, to: &str) {
        self.ip(&["route", "add", "blackhole", to]);
    }

    /// They pass again.
    pub fn mend(&self, to: &str) {
        self.ip(&["route", "delete", "blackhole", to]);
    }

    /// Becomes a NAT as in a home: all inside appear as this router, each flow at a port of chance, and
    /// nobody outside reaches them first. None, said aloud, where `nft` cannot do it.
    #[must_use]
    pub fn nat(&self, inside: &str, outside: &str) -> Option<()> {
        let rules = [
            "add table ip home",
            "add chain ip home post { type nat hook postrouting priority 100 ; }",
            &format!("add rule ip home post iifname {inside} oifname {outside} masquerade fully-random"),
            "add chain ip home forward { type filter hook forward priority 0 ; }",
            &format!(
                "add rule ip home forward iifname {outside} ct state != {{ established, related }} drop"
            ),
            "add chain ip home input { type filter hook input priority 0 ; }",
            &format!("add rule ip home input iifname {outside} ct state != {{ established, related }} drop"),
        ];
        if let Err(error) = self.inside(|| tool("nft", &[&rules.join("\n")])) {
            skipped(&format!("NAT needs nft: {error}"));
            return None;
        }
        self.forward();
        Some(())
    }

    /// A NAT forgets a flow after so long without a packet, in whole seconds.
    pub fn nat_forgets_after(&self, silence: Duration) {
        let seconds = silence.as_secs().max(1).to_string();
        for switch in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
            self.sysctl(&format!("net/netfilter/{switch}"), &seconds);
        }
    }

    /// A NAT forgets all flows now, by `conntrack` where there is one. If not, its link to the outside goes
    /// down and up, which makes it forget them too; then `gateway` becomes its default route, if there is one.
    pub fn nat_forgets(&self, outside: &str, gateway: Option<&str>) {
        if self.inside(|| tool("conntrack", &["--flush"])).is_err() {
            self.restart_link(outside, gateway);
        }
    }

    fn restart_link(&self, link: &str, gateway: Option<&str>) {
        self.down(link);
        // The kernel forgets in its own time.
        let start = Instant::now();
        let remembers = || {
            let table = self.inside(|| fs::read_to_string("/proc/net/nf_conntrack"));
            table.map_or(start.elapsed() < Duration::from_millis(100), |table| table.contains("udp"))
        };
        while remembers() && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.up(link);
        if let Some(gateway) = gateway {
            self.default_route(gateway, link);
        }
    }
}

/// Stops a process where it is, as a laptop that sleeps or a machine that hangs. It has stopped on return.
pub fn freeze(pid: u32) {
    signal(pid, Signal::STOP);
    let start = Instant::now();
    while state(pid) != Some('T') {
        assert!(start.elapsed() < Duration::from_secs(5), "process {pid} does not stop");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Lets a frozen process go on.
pub fn thaw(pid: u32) {
    signal(pid, Signal::CONT);
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// The letter of its state, after the name in brackets.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[cfg(test)]
mod tests;
