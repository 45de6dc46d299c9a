//! Which network the server would be reached through: what the kernel says, and the files of `/proc` and `/sys`.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use crate::signals::netlink::{self, Address};

/// What kind of device leads there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum InterfaceKind {
    /// A cable, a bridge, or whatever looks like one.
    Ethernet,
    /// Wireless LAN.
    Wifi,
    /// A modem for mobile networks.
    Wwan,
    /// A phone that shares its connection over USB.
    UsbTether,
    /// A VPN, or another link without a device of its own.
    Tunnel,
    /// This machine itself, or a device that is not known.
    Other,
}

/// A network, recognised when it is seen again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 8]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Kind of interface, prefix of the source address and gateway's hardware address, hashed.
    pub fingerprint: Fingerprint,
    /// The address of this machine that the server would see, but for NAT.
    pub source: IpAddr,
    /// What kind of device leads there.
    pub kind: InterfaceKind,
}

/// Where the kernel's files are.
#[derive(Debug, Clone)]
pub struct Roots {
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: PathBuf::from("/proc"), sys: PathBuf::from("/sys") }
    }
}

/// A gateway: its address, and its hardware address once the kernel has asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gateway {
    address: Ipv4Addr,
    mac: Option<String>,
}

/// How a source address is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Attachment {
    interface: Option<String>,
    kind: InterfaceKind,
    prefix: (IpAddr, u8),
    gateway: Option<Gateway>,
}

/// Looks, and remembers hardware addresses that the kernel forgets when nothing is sent.
#[derive(Debug)]
pub struct Looker {
    roots: Roots,
    last: Option<Attachment>,
    asked: u32,
}

/// So often is a gateway asked for its hardware address before it counts as one without.
const ASKS: u32 = 3;
/// The discard service (RFC 863): what is sent there is meant to be ignored.
const DISCARD: u16 = 9;

/// What a look came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// The way to the server, if there is one.
    pub network: Option<Network>,
    /// Something was asked for that will be there in a moment: worth another look.
    pub again: bool,
}

impl Looker {
    /// A looker that has seen nothing yet.
    pub fn new(roots: Roots) -> Self {
        Self { roots, last: None, asked: 0 }
    }

    /// Looks for the way to the first of the addresses that has one. Sends nothing to them.
    pub fn look(&mut self, server: &[SocketAddr]) -> Sight {
        let Some(source) = server.iter().find_map(source_towards) else {
            self.last = None;
            return Sight { network: None, again: false };
        };
        let sight = self.sight(source, &netlink::addresses());
        if sight.again {
            self.ask();
        }
        sight
    }

    /// The network of a source address, given the addresses of this machine.
    fn sight(&mut self, source: IpAddr, addresses: &[Address]) -> Sight {
        let mut now = attachment(&self.roots, source, addresses);
        let same = self.last.as_ref().filter(|last| {
            let address = |seen: &Attachment| seen.gateway.as_ref().map(|gateway| gateway.address);
            (&last.interface, last.kind, last.prefix) == (&now.interface, now.kind, now.prefix)
                && address(last) == address(&now)
        });
        if same.is_none() {
            self.asked = 0;
        }
        if let Some(gateway) = &mut now.gateway
            && gateway.mac.is_none()
        {
            gateway.mac = same.and_then(|last| last.gateway.as_ref()?.mac.clone());
        }
        let network = Network { fingerprint: fingerprint(&now), source, kind: now.kind };
        let again = now.gateway.as_ref().is_some_and(|gateway| gateway.mac.is_none()) && self.asked < ASKS;
        self.last = Some(now);
        Sight { network: Some(network), again }
    }

    /// An empty datagram makes the kernel ask the gateway for its hardware address: a fingerprint without it would
    /// become another one with the first packet that passes.
    fn ask(&mut self) {
        self.asked += 1;
        let gateway = self.last.as_ref().and_then(|last| last.gateway.as_ref());
        if let Some(gateway) = gateway
            && let Ok(socket) = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        {
            // A failure changes nothing: the next look finds nothing either.
            let _sent = socket.send_to(&[], (gateway.address, DISCARD));
        }
    }
}

/// The source address that the kernel would use: connecting a datagram socket sends nothing.
fn source_towards(server: &SocketAddr) -> Option<IpAddr> {
    let any = match server {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(server).ok()?;
    let source = socket.local_addr().ok()?.ip().to_canonical();
    (!source.is_unspecified()).then_some(source)
}

fn attachment(roots: &Roots, source: IpAddr, addresses: &[Address]) -> Attachment {
    let routes = routes(roots);
    let listed = addresses.iter().find(|address| address.address == source);
    let found = listed.map(|found| (found.interface.clone(), found.prefix)).or_else(|| match source {
        IpAddr::V4(source) => connected(&routes, source),
        IpAddr::V6(source) => listed_in_proc(roots, source),
    });
    let (interface, prefix) = found.unzip();
    let kind = match &interface {
        Some(name) if !source.is_loopback() => kind(roots, name),
        _ => InterfaceKind::Other,
    };
    // Only IPv4 networks are alike everywhere; the prefix of an IPv6 network is its name.
    let gateway = interface.as_ref().filter(|_| source.is_ipv4() && kind != InterfaceKind::Tunnel);
    let gateway = gateway.and_then(|name| gateway_of(roots, &routes, name));
    let prefix = masked(source, prefix.unwrap_or(128));
    Attachment { interface, kind, prefix, gateway }
}

/// The network's part of an address. What an IPv6 address has after 64 bits comes and goes for privacy's sake.
fn masked(address: IpAddr, prefix: u8) -> (IpAddr, u8) {
    match address {
        IpAddr::V4(address) => {
            let prefix = prefix.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            (IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask)), prefix)
        }
        IpAddr::V6(address) => {
            let prefix = prefix.min(64);
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            (IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask)), prefix)
        }
    }
}

fn fingerprint(attachment: &Attachment) -> Fingerprint {
    let kind = match attachment.kind {
        InterfaceKind::Ethernet => 1,
        InterfaceKind::Wifi => 2,
        InterfaceKind::Wwan => 3,
        InterfaceKind::UsbTether => 4,
        InterfaceKind::Tunnel => 5,
        InterfaceKind::Other => 6,
    };
    let mut hash = blake3::Hasher::new_derive_key("backhaul network fingerprint 1");
    hash.update(&[kind, attachment.prefix.1]);
    match attachment.prefix.0 {
        IpAddr::V4(address) => hash.update(&address.octets()),
        IpAddr::V6(address) => hash.update(&address.octets()),
    };
    if let Some(mac) = attachment.gateway.as_ref().and_then(|gateway| gateway.mac.as_ref()) {
        hash.update(mac.as_bytes());
    }
    let mut print = Fingerprint([0; 8]);
    hash.finalize_xof().fill(&mut print.0);
    print
}

/// A row of `/proc/net/route` that is up: IPv4, and the main table only.
struct Route {
    interface: String,
    network: Ipv4Addr,
    prefix: u8,
    gateway: Ipv4Addr,
    metric: u32,
}

fn routes(roots: &Roots) -> Vec<Route> {
    let text = fs::read_to_string(roots.proc.join("net/route")).unwrap_or_default();
    // The kernel prints addresses as if they were numbers of this machine.
    let address =
        |hex: &&str| u32::from_str_radix(hex, 16).ok().map(|bits| Ipv4Addr::from(bits.to_ne_bytes()));
    let row = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let up = u32::from_str_radix(columns.get(3)?, 16).ok()? & 1 == 1;
        up.then_some(Route {
            interface: (*columns.first()?).to_owned(),
            network: address(columns.get(1)?)?,
            gateway: address(columns.get(2)?)?,
            metric: columns.get(6)?.parse().ok()?,
            prefix: address(columns.get(7)?)?.to_bits().leading_ones() as u8,
        })
    };
    text.lines().filter_map(row).collect()
}

/// The interface whose own network an address is in, by the routes.
fn connected(routes: &[Route], source: Ipv4Addr) -> Option<(String, u8)> {
    let of = |route: &&Route| {
        route.gateway.is_unspecified()
            && route.prefix > 0
            && masked(IpAddr::V4(source), route.prefix).0 == IpAddr::V4(route.network)
    };
    let route = routes.iter().filter(of).max_by_key(|route| route.prefix)?;
    Some((route.interface.clone(), route.prefix))
}

fn listed_in_proc(roots: &Roots, source: Ipv6Addr) -> Option<(String, u8)> {
    let text = fs::read_to_string(roots.proc.join("net/if_inet6")).ok()?;
    text.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let address = u128::from_str_radix(columns.first()?, 16).ok().map(Ipv6Addr::from_bits)?;
        let prefix = u8::from_str_radix(columns.get(2)?, 16).ok()?;
        (address == source).then_some(((*columns.get(5)?).to_owned(), prefix))
    })
}

/// The gateway of an interface, that of its default route before all: it is the same whatever the server's address.
fn gateway_of(roots: &Roots, routes: &[Route], interface: &str) -> Option<Gateway> {
    let through =
        routes.iter().filter(|route| route.interface == interface && !route.gateway.is_unspecified());
    let address = through.min_by_key(|route| (route.prefix, route.metric, route.gateway))?.gateway;
    let text = fs::read_to_string(roots.proc.join("net/arp")).unwrap_or_default();
    let mac = text.lines().find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let complete = u32::from_str_radix(columns.get(2)?.trim_start_matches("0x"), 16).ok()? & 2 == 2;
        let its = columns.first()?.parse() == Ok(address) && *columns.get(5)? == interface;
        (complete && its).then(|| columns[3].to_ascii_lowercase())
    });
    Some(Gateway { address, mac })
}

/// The kind of an interface, by `/sys/class/net`, and by its name where that shows another name space.
fn kind(roots: &Roots, name: &str) -> InterfaceKind {
    let dir = roots.sys.join("class/net").join(name);
    if !dir.exists() {
        return kind_by_name(name);
    }
    let field = |file| fs::read_to_string(dir.join(file)).unwrap_or_default();
    let event = field("uevent");
    let device = event.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).unwrap_or_default();
    let hardware: u32 = field("type").trim().parse().unwrap_or_default();
    // Numbers of `linux/if_arp.h`.
    match (device, hardware) {
        ("wwan", _) => InterfaceKind::Wwan,
        ("wlan", _) => InterfaceKind::Wifi,
        _ if dir.join("wireless").exists() || dir.join("phy80211").exists() => InterfaceKind::Wifi,
        _ if name.starts_with("ww") => InterfaceKind::Wwan,
        ("wireguard", _) => InterfaceKind::Tunnel,
        _ if dir.join("tun_flags").exists() => InterfaceKind::Tunnel,
        (_, 1) if is_tether(&dir, field("address").trim()) => InterfaceKind::UsbTether,
        (_, 1) => InterfaceKind::Ethernet,
        (_, 512 | 768 | 769 | 776 | 778 | 823 | 65534) => InterfaceKind::Tunnel,
        _ => InterfaceKind::Other,
    }
}

/// Phones speak a protocol of their own, or make up their hardware address, which no adapter with a cable does.
fn is_tether(dir: &Path, mac: &str) -> bool {
    let driver = fs::read_link(dir.join("device/driver")).unwrap_or_default();
    let made_up =
        mac.get(..2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).is_some_and(|byte| byte & 2 == 2);
    match driver.file_name().and_then(|name| name.to_str()) {
        Some("rndis_host" | "ipheth") => true,
        Some("cdc_ether" | "cdc_ncm" | "cdc_eem") => made_up,
        _ => false,
    }
}

fn kind_by_name(name: &str) -> InterfaceKind {
    let begins = |with: &[&str]| with.iter().any(|with| name.starts_with(with));
    match name {
        "lo" => InterfaceKind::Other,
        _ if begins(&["wl"]) => InterfaceKind::Wifi,
        _ if begins(&["ww"]) => InterfaceKind::Wwan,
        _ if begins(&["tun", "tap", "wg", "ppp", "tailscale", "ipsec", "vpn"]) => InterfaceKind::Tunnel,
        _ if begins(&["usb", "rndis"]) => InterfaceKind::UsbTether,
        _ => InterfaceKind::Ethernet,
    }
}

#[cfg(test)]
mod tests;
