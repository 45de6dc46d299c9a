//! Ready places: an office that a laptop roams in, and a home behind NAT.

use std::net::{IpAddr, Ipv4Addr};

use super::{Namespace, Net};

/// Where the server is, in every place.
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// A link of the laptop in the office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The laptop is 10.77.1.2.
    Wifi,
    /// The laptop is 10.77.2.2.
    Cable,
}

impl Link {
    /// The laptop's name for it, and the router's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Wifi => "wifi",
            Self::Cable => "cable",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Wifi => Self::Cable,
            Self::Cable => Self::Wifi,
        }
    }

    /// The laptop's address on it.
    pub fn address(self) -> IpAddr {
        match self {
            Self::Wifi => Ipv4Addr::new(10, 77, 1, 2).into(),
            Self::Cable => Ipv4Addr::new(10, 77, 2, 2).into(),
        }
    }

    fn gateway(self) -> &'static str {
        match self {
            Self::Wifi => "10.77.1.1",
            Self::Cable => "10.77.2.1",
        }
    }
}

/// A server at 10.77.0.1, a router, and a laptop that is on Wi-Fi or on a cable. Each reaches the other.
pub struct Office {
    /// Has 10.77.0.1, and a default route to the router.
    pub server: Namespace,
    /// Has 10.77.0.254 on `lan`, 10.77.1.1 on `wifi` and 10.77.2.1 on `cable`.
    pub router: Namespace,
    /// Has one link up at first: Wi-Fi.
    pub laptop: Namespace,
    link: Link,
    net: Net,
}

impl Office {
    /// The office with the laptop on Wi-Fi. None, said aloud, where namespaces cannot be made.
    pub fn new() -> Option<Self> {
        let net = Net::new()?;
        let (server, router) = (net.namespace("server"), net.namespace("router"));
        let laptop = net.namespace("laptop");
        net.veth(server.end("lan", "10.77.0.1/24"), router.end("lan", "10.77.0.254/24"));
        net.veth(laptop.end("wifi", "10.77.1.2/24"), router.end("wifi", "10.77.1.1/24"));
        net.veth(laptop.end("cable", "10.77.2.2/24"), router.end("cable", "10.77.2.1/24"));
        router.forward();
        server.default_route("10.77.0.254", "lan");
        laptop.down("cable");
        let office = Self { server, router, laptop, link: Link::Wifi, net };
        office.join();
        Some(office)
    }

    /// The net, for more machines.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The server's address.
    pub fn server_ip(&self) -> IpAddr {
        SERVER.into()
    }

    /// The link in use, or used last.
    pub fn link(&self) -> Link {
        self.link
    }

    /// The laptop changes links: the one goes, the other comes, and the default route with it.
    pub fn roam(&mut self) {
        self.leave();
        self.link = self.link.other();
        self.join();
    }

    /// The laptop prefers its other link and keeps the first: it still has the old address.
    pub fn roam_softly(&mut self) {
        self.link = self.link.other();
        self.join();
    }

    /// The laptop has no network at all.
    pub fn leave(&self) {
        self.laptop.down("wifi");
        self.laptop.down("cable");
    }

    /// The laptop is back on the link that it used last.
    pub fn join(&self) {
        self.laptop.up(self.link.name());
        self.laptop.default_route(self.link.gateway(), self.link.name());
    }

    /// The router loses whatever is for the server, and tells nobody.
    pub fn lose(&self) {
        self.router.blackhole("10.77.0.1/32");
    }

    /// It does so no more.
    pub fn mend(&self) {
        self.router.mend("10.77.0.1/32");
    }
}

/// A server at 10.77.0.1, and a laptop at home behind a NAT that the server sees as 10.77.0.254.
pub struct Home {
    /// Has 10.77.0.1, and no route to the home.
    pub server: Namespace,
    /// Has 192.168.9.1 on `home` and 10.77.0.254 on `outside`.
    pub router: Namespace,
    /// Has 192.168.9.2 on `wifi`.
    pub laptop: Namespace,
    outside: Ipv4Addr,
    net: Net,
}

impl Home {
    /// The home with the laptop in it. None, said aloud, where namespaces or NAT cannot be made.
    pub fn new() -> Option<Self> {
        let net = Net::new()?;
        let (server, router) = (net.namespace("server"), net.namespace("router"));
        let laptop = net.namespace("laptop");
        net.veth(server.end("lan", "10.77.0.1/24"), router.end("outside", "10.77.0.254/24"));
        net.veth(laptop.end("wifi", "192.168.9.2/24"), router.end("home", "192.168.9.1/24"));
        router.nat("home", "outside")?;
        let home = Self { server, router, laptop, outside: Ipv4Addr::new(10, 77, 0, 254), net };
        home.join();
        Some(home)
    }

    /// The net, for more machines.
    pub fn net(&self) -> &Net {
        &self.net
    }

    /// The server's address.
    pub fn server_ip(&self) -> IpAddr {
        SERVER.into()
    }

    /// Where the server sees the laptop.
    pub fn outside_ip(&self) -> IpAddr {
        self.outside.into()
    }

    /// The NAT forgets its flows: each appears from another port when the laptop sends, and nothing reaches
    /// the laptop before.
    pub fn rebind(&self) {
        self.router.nat_forgets("outside", None);
    }

    /// The provider gives the router another address.
    pub fn readdress(&mut self) {
        let new = match self.outside.octets() {
            [a, b, c, 254] => Ipv4Addr::new(a, b, c, 253),
            [a, b, c, _] => Ipv4Addr::new(a, b, c, 254),
        };
        self.router.change_address("outside", &format!("{}/24", self.outside), &format!("{new}/24"));
        self.outside = new;
    }

    /// The laptop has no network at all.
    pub fn leave(&self) {
        self.laptop.down("wifi");
    }

    /// The laptop is back.
    pub fn join(&self) {
        self.laptop.up("wifi");
        self.laptop.default_route("192.168.9.1", "wifi");
    }

    /// The router loses whatever is for the server, and tells nobody.
    pub fn lose(&self) {
        self.router.blackhole("10.77.0.1/32");
    }

    /// It does so no more.
    pub fn mend(&self) {
        self.router.mend("10.77.0.1/32");
    }
}
