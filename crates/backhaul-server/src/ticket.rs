//! Tickets: since when a client waits, in a form that only this server makes. They keep a place in the queue across
//! connections and restarts, and the server need not remember them.

use backhaul_object::ids::ClientId;

const TAG: usize = 16;

/// The key that this server's tickets are made with.
pub struct TicketKey([u8; 32]);

impl TicketKey {
    /// From 32 secret bytes.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// A ticket of a client that waits since a moment, seconds since 1970.
    pub fn issue(&self, client: ClientId, since: i64) -> Vec<u8> {
        let mut ticket = since.to_le_bytes().to_vec();
        ticket.extend_from_slice(&self.tag(client, since));
        ticket
    }

    /// Since when the client waits; none for what this server has not made, or made for another.
    pub fn read(&self, client: ClientId, ticket: &[u8]) -> Option<i64> {
        let (since, tag) = ticket.split_first_chunk::<8>()?;
        let since = i64::from_le_bytes(*since);
        // Not secret enough for a comparison in constant time: it is worth a place in a queue.
        (tag == self.tag(client, since)).then_some(since)
    }

    fn tag(&self, client: ClientId, since: i64) -> [u8; TAG] {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(client.as_bytes()).update(&since.to_le_bytes());
        let mut tag = [0; TAG];
        tag.copy_from_slice(&hasher.finalize().as_bytes()[..TAG]);
        tag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_servers_tickets_of_this_client_are_read() {
        let (key, ana, bea) = (TicketKey::new([1; 32]), ClientId([1; 16]), ClientId([2; 16]));
        let ticket = key.issue(ana, 1_000);
        assert_eq!(key.read(ana, &ticket), Some(1_000));
        assert_eq!(key.read(bea, &ticket), None);
        assert_eq!(TicketKey::new([2; 32]).read(ana, &ticket), None);
        assert_eq!((key.read(ana, &[]), key.read(ana, &ticket[..23])), (None, None));
        let mut older = ticket;
        older[0] ^= 1;
        assert_eq!(key.read(ana, &older), None);
    }
}
