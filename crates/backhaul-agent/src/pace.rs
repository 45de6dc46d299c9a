//! How often a standing link must be heard of, by what was learned of the networks that this machine was in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use backhaul_net::transport::KEEP_ALIVE;
use backhaul_schedule::policy::AgentTerms;

use crate::signals::network::{Fingerprint, Network};

/// Where no address is translated, no router forgets a link after half a minute. Firewalls that follow flows keep one for
/// two minutes (RFC 4787, section 4.3; `nf_conntrack_udp_timeout_stream`), and a packet may be late.
const UNTRANSLATED: Duration = Duration::from_secs(100);
/// Networks that are remembered; after that it begins anew.
const NETWORKS: usize = 64;

/// Whether a machine's address is changed on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Passage {
    /// The server sees the address that the machine has.
    Plain,
    /// It sees another.
    Translated,
}

/// The address of this machine at the two ends of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossing {
    /// The one from which its packets leave.
    pub own: IpAddr,
    /// The one from which they arrive.
    pub seen: IpAddr,
}

impl Crossing {
    fn passage(self) -> Passage {
        if self.own == self.seen { Passage::Plain } else { Passage::Translated }
    }
}

/// What was learned.
#[derive(Debug, Default)]
pub struct Pace(HashMap<Fingerprint, Passage>);

impl Pace {
    /// Learns of a network by a link that was dialled in it. One that translates sometimes, translates. A change of
    /// network counts only when it has settled: a link that leaves from another address is in the next one already, and
    /// says nothing of this.
    pub fn learn(&mut self, network: &Network, crossing: Crossing) {
        if crossing.own != network.source {
            return;
        }
        let (fingerprint, passage) = (network.fingerprint, crossing.passage());
        if self.0.len() >= NETWORKS && !self.0.contains_key(&fingerprint) {
            self.0.clear();
        }
        let known = self.0.entry(fingerprint).or_insert(passage);
        if passage == Passage::Translated {
            *known = passage;
        }
    }

    /// The time between two packets of a link that begins in `network`, if that is known: what the terms say, or as
    /// long as it is safe.
    pub fn of(&self, terms: &AgentTerms, network: Option<Fingerprint>) -> Duration {
        match (terms.keepalive, network.and_then(|network| self.0.get(&network))) {
            (Some(keepalive), _) => Duration::from_secs(keepalive.clamp(5, 120).unsigned_abs()),
            (None, Some(Passage::Plain)) => UNTRANSLATED,
            (None, _) => KEEP_ALIVE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::network::InterfaceKind;

    const HERE: Fingerprint = Fingerprint([1; 8]);
    const THERE: Fingerprint = Fingerprint([2; 8]);

    const OWN: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 5));
    const ROUTER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));
    const PLAIN: Crossing = Crossing { own: OWN, seen: OWN };
    const TRANSLATED: Crossing = Crossing { own: OWN, seen: ROUTER };

    fn of(fingerprint: Fingerprint) -> Network {
        Network { fingerprint, source: OWN, kind: InterfaceKind::Ethernet }
    }

    fn asks(keepalive: Option<i64>) -> AgentTerms {
        AgentTerms { keepalive, ..AgentTerms::default() }
    }

    #[test]
    fn an_unknown_network_may_translate() {
        let pace = Pace::default();
        assert_eq!(pace.of(&asks(None), None), KEEP_ALIVE);
        assert_eq!(pace.of(&asks(None), Some(HERE)), KEEP_ALIVE);
    }

    #[test]
    fn a_plain_network_is_quiet_and_no_other() {
        let mut pace = Pace::default();
        pace.learn(&of(HERE), PLAIN);
        assert_eq!(pace.of(&asks(None), Some(HERE)), UNTRANSLATED);
        assert_eq!(pace.of(&asks(None), Some(THERE)), KEEP_ALIVE);
        assert_eq!(pace.of(&asks(None), None), KEEP_ALIVE);
    }

    #[test]
    fn one_that_translates_sometimes_translates() {
        let mut pace = Pace::default();
        pace.learn(&of(HERE), PLAIN);
        pace.learn(&of(HERE), TRANSLATED);
        pace.learn(&of(HERE), PLAIN);
        assert_eq!(pace.of(&asks(None), Some(HERE)), KEEP_ALIVE);
    }

    #[test]
    fn a_link_that_is_in_the_next_network_already_says_nothing_of_this_one() {
        let (mut pace, there) = (Pace::default(), IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7)));
        pace.learn(&of(HERE), Crossing { own: there, seen: there });
        assert_eq!(pace.of(&asks(None), Some(HERE)), KEEP_ALIVE);
        pace.learn(&of(HERE), PLAIN);
        pace.learn(&of(HERE), Crossing { own: there, seen: ROUTER });
        assert_eq!(pace.of(&asks(None), Some(HERE)), UNTRANSLATED);
    }

    #[test]
    fn the_policy_has_the_last_word() {
        let mut pace = Pace::default();
        pace.learn(&of(HERE), PLAIN);
        assert_eq!(pace.of(&asks(Some(20)), Some(HERE)), Duration::from_secs(20));
        assert_eq!(pace.of(&asks(Some(90)), Some(THERE)), Duration::from_secs(90));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut pace = Pace::default();
        for n in 0..=u8::MAX {
            pace.learn(&of(Fingerprint([n; 8])), PLAIN);
        }
        assert!(pace.0.len() <= NETWORKS);
        assert_eq!(pace.of(&asks(None), Some(Fingerprint([u8::MAX; 8]))), UNTRANSLATED);
    }
}
