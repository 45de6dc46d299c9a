//! How often a standing link must be heard of, by what was learned of the networks that this machine was in.

use std::collections::HashMap;
use std::time::Duration;

use backhaul_net::transport::KEEP_ALIVE;
use backhaul_schedule::policy::AgentTerms;

use crate::signals::network::Fingerprint;

/// Where no address is translated, no router forgets a link after half a minute. Firewalls that follow flows keep one for
/// two minutes (RFC 4787, section 4.3; `nf_conntrack_udp_timeout_stream`), and a packet may be late.
const UNTRANSLATED: Duration = Duration::from_secs(100);
/// Networks that are remembered; after that it begins anew.
const NETWORKS: usize = 64;

/// Whether a machine's address is changed on its way to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// The server sees the address that the machine has.
    Plain,
    /// It sees another.
    Translated,
}

/// What was learned.
#[derive(Debug, Default)]
pub struct Pace(HashMap<Fingerprint, Passage>);

impl Pace {
    /// Learns of a network. One that translates sometimes, translates.
    pub fn learn(&mut self, network: Fingerprint, passage: Passage) {
        if self.0.len() >= NETWORKS && !self.0.contains_key(&network) {
            self.0.clear();
        }
        let known = self.0.entry(network).or_insert(passage);
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

    const HERE: Fingerprint = Fingerprint([1; 8]);
    const THERE: Fingerprint = Fingerprint([2; 8]);

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
        pace.learn(HERE, Passage::Plain);
        assert_eq!(pace.of(&asks(None), Some(HERE)), UNTRANSLATED);
        assert_eq!(pace.of(&asks(None), Some(THERE)), KEEP_ALIVE);
        assert_eq!(pace.of(&asks(None), None), KEEP_ALIVE);
    }

    #[test]
    fn one_that_translates_sometimes_translates() {
        let mut pace = Pace::default();
        pace.learn(HERE, Passage::Plain);
        pace.learn(HERE, Passage::Translated);
        pace.learn(HERE, Passage::Plain);
        assert_eq!(pace.of(&asks(None), Some(HERE)), KEEP_ALIVE);
    }

    #[test]
    fn the_policy_has_the_last_word() {
        let mut pace = Pace::default();
        pace.learn(HERE, Passage::Plain);
        assert_eq!(pace.of(&asks(Some(20)), Some(HERE)), Duration::from_secs(20));
        assert_eq!(pace.of(&asks(Some(90)), Some(THERE)), Duration::from_secs(90));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut pace = Pace::default();
        for n in 0..=u8::MAX {
            pace.learn(Fingerprint([n; 8]), Passage::Plain);
        }
        assert!(pace.0.len() <= NETWORKS);
        assert_eq!(pace.of(&asks(None), Some(Fingerprint([u8::MAX; 8]))), UNTRANSLATED);
    }
}
