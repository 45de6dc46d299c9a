//! The kernel's news about links, addresses, routes and rules, and its list of addresses: a netlink socket.
//!
//! News are hints: what they say is not read, and they may be lost.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netdevice};
use tokio::net::UnixDatagram;

/// Groups of `linux/rtnetlink.h`, as bits: link; IPv4 address, route, rule; IPv6 address, route, rule.
const GROUPS: u32 = 1 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 18;

/// Sizes and numbers of `linux/netlink.h` and `linux/if_addr.h`.
const HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// More than the kernel puts into one message of a dump.
const DUMP_MAX: usize = 64 * 1024;

/// An address of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface's name.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// How many of its bits are those of the network.
    pub prefix: u8,
}

/// Hears of changes. To the runtime one socket that receives datagrams is like another.
#[derive(Debug)]
pub struct Hints(Option<UnixDatagram>);

impl Hints {
    /// Listens; where that is forbidden, nothing is ever heard. Needs a runtime.
    pub fn listen() -> Self {
        let socket = socket(GROUPS).map_err(io::Error::from);
        let socket = socket.and_then(|socket| UnixDatagram::from_std(socket.into()));
        let lost = |error: &io::Error| tracing::debug!("no news of the network, looks instead: {error}");
        Self(socket.inspect_err(lost).ok())
    }

    /// Waits for the next change; all that have come meanwhile are one.
    pub async fn heard(&self) {
        let Some(socket) = &self.0 else { return std::future::pending().await };
        while socket.readable().await.is_ok() {
            match drain(socket) {
                Ok(true) => return,
                Ok(false) => {}
                Err(_) => break,
            }
        }
        // A broken socket is like one that is forbidden.
        std::future::pending().await
    }
}

fn socket(groups: u32) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // Protocol zero is NETLINK_ROUTE.
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Reads until nothing is left, and says whether there was anything.
fn drain(socket: &UnixDatagram) -> io::Result<bool> {
    let (mut buffer, mut heard) = ([0u8; 8 * 1024], false);
    loop {
        match socket.try_recv(&mut buffer) {
            Ok(_) => heard = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(heard),
            // That messages were lost is a hint like any other.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => heard = true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// All addresses of this machine; none where the kernel is not to be asked.
pub fn addresses() -> Vec<Address> {
    let dumped = dump().inspect_err(|error| tracing::debug!("addresses by netlink: {error}"));
    dumped.unwrap_or_default()
}

fn dump() -> Result<Vec<Address>, Errno> {
    let socket = socket(0)?;
    let mut request = Vec::with_capacity(HEADER + ADDRESS_HEADER);
    request.extend(((HEADER + ADDRESS_HEADER) as u32).to_ne_bytes());
    request.extend(RTM_GETADDR.to_ne_bytes());
    request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.resize(HEADER + ADDRESS_HEADER, 0);
    net::send(&socket, &request, SendFlags::empty())?;
    let names = net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    let (mut found, mut buffer) = (Vec::new(), vec![0u8; DUMP_MAX]);
    loop {
        // The kernel has answered before `send` and `recv` return: nothing to wait for.
        let (_, length) = net::recv(&socket, &mut buffer[..], RecvFlags::DONTWAIT)?;
        let mut rest = &buffer[..length.min(DUMP_MAX)];
        while let Some((kind, body, after)) = message(rest) {
            match kind {
                NLMSG_DONE | NLMSG_ERROR => return Ok(found),
                RTM_NEWADDR => found.extend(address(body, &names)),
                _ => {}
            }
            rest = after;
        }
    }
}

/// The first message: its type, its body, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The first attribute likewise.
fn attribute(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
    let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
    let body = bytes.get(4..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn address(body: &[u8], names: &impl AsFd) -> Option<Address> {
    let prefix = *body.get(1)?;
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let mut rest = body.get(ADDRESS_HEADER..)?;
    let (mut own, mut peer) = (None, None);
    while let Some((kind, value, after)) = attribute(rest) {
        match kind {
            IFA_LOCAL => own = ip(value),
            IFA_ADDRESS => peer = ip(value),
            _ => {}
        }
        rest = after;
    }
    let interface = netdevice::index_to_name(names, index).ok()?;
    // On a link between two ends the other attribute is the other end.
    Some(Address { interface, address: own.or(peer)?, prefix })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::print_stderr, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    #[test]
    fn this_machine_has_a_loopback_address() {
        let found = addresses();
        if found.is_empty() {
            eprintln!("SKIPPED: netlink is not to be asked here");
            return;
        }
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(found.contains(&Address { interface: "lo".to_owned(), address, prefix: 8 }), "{found:?}");
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            // Each step eats something: a loop over it ends.
            for next in [message(&bytes), attribute(&bytes)].into_iter().flatten() {
                prop_assert!(next.2.len() < bytes.len());
            }
        }
    }
}
