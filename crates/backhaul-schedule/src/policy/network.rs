//! Network groups: machines that share a link to the server.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

/// A network group's name. Cheap to copy: there is one for every client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    name: Arc<str>,
    reach: Reach,
}

/// How the members of a group reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// By a network of the place, or one that was named.
    Local,
    /// From behind one public address.
    Remote,
}

impl Group {
    /// A group with a name that an administrator gave.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), reach: Reach::Local }
    }

    /// Clients that have not been heard of: their network is not known.
    pub fn unknown() -> Self {
        Self::named("unknown")
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True when all of it is behind one public address.
    pub fn is_remote(&self) -> bool {
        self.reach == Reach::Remote
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Addresses that begin alike, as `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

impl Prefix {
    /// Bits that are fixed.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// True when an address begins so.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, plain(address)) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                cut(self.address, self.bits) == cut(plain(address), self.bits)
            }
            _ => false,
        }
    }
}

/// An IPv4 address that a dual-stack socket shows as IPv6 is an IPv4 address.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn cut(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::from((u32::from(v4) & mask).to_be_bytes())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask))
        }
    }
}

impl FromStr for Prefix {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "say an address or a prefix, as 10.1.0.0/16";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| WRONG)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(longest);
        match bits <= longest {
            true => Ok(Self { address: cut(address, bits), bits }),
            false => Err(WRONG),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// The group of an address: the named network with the longest prefix; else, for an address of a place's own
/// network, that network; else the address itself, behind which there may be a whole household.
pub(super) fn group(named: &[(Prefix, String)], address: IpAddr) -> Group {
    let address = plain(address);
    let fitting = named.iter().filter(|(prefix, _)| prefix.contains(address));
    if let Some((_, name)) = fitting.max_by_key(|(prefix, _)| prefix.bits()) {
        return Group::named(name);
    }
    let of_place = |bits: u8| Group::named(&format!("{}/{bits}", cut(address, bits)));
    match address {
        IpAddr::V4(v4) if v4.is_private() || v4.is_loopback() || v4.is_link_local() => of_place(24),
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local() => {
            of_place(64)
        }
        IpAddr::V4(v4) => Group { name: v4.to_string().into(), reach: Reach::Remote },
        // One household has a /64 at least.
        IpAddr::V6(_) => Group { name: format!("{}/64", cut(address, 64)).into(), reach: Reach::Remote },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_longest_prefix_names_the_group() {
        let named = vec![
            ("10.0.0.0/8".parse().unwrap(), "site".to_owned()),
            ("10.1.0.0/16".parse().unwrap(), "lab".to_owned()),
        ];
        let of = |text: &str| group(&named, text.parse().unwrap());
        assert_eq!((of("10.1.2.3").name(), of("10.2.2.3").name()), ("lab", "site"));
        assert_eq!(of("::ffff:10.1.2.3").name(), "lab");
        assert_eq!((of("192.168.7.9").name(), of("192.168.7.9").is_remote()), ("192.168.7.0/24", false));
        assert_eq!((of("203.0.113.9").name(), of("203.0.113.9").is_remote()), ("203.0.113.9", true));
        assert_eq!(of("2001:db8:1:2::9").name(), "2001:db8:1:2::/64");
    }

    #[test]
    fn prefixes_that_are_none_are_refused() {
        for text in ["10.0.0.0/33", "ten", "10.0.0.0/x", "::1/129", ""] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        assert!("0.0.0.0/0".parse::<Prefix>().unwrap().contains("1.2.3.4".parse().unwrap()));
    }
}
