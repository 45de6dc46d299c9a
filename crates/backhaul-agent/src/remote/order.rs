//! Restores that are ordered from elsewhere: by an operator, and what the agent says of them.

use std::sync::mpsc::{Receiver, channel};

use backhaul_object::source::TransferError;
use backhaul_proto::errand::News;
use backhaul_proto::wire;

use super::{Command, Remote};

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a session as {}", self.welcome.client)
    }
}

impl Remote {
    /// Orders a restore from another client's agent; what becomes of it is heard until the session ends.
    ///
    /// # Errors
    /// The session is over.
    pub fn order(&self, order: wire::RestoreOrder) -> Result<Receiver<News>, TransferError> {
        let (send, receive) = channel();
        let order = Command::Order(Box::new(order), send);
        self.commands.send(order).map_err(|_| self.shared.error())?;
        Ok(receive)
    }

    /// Says what becomes of the restore that this session is for. If the session is over, nobody wants to know.
    pub fn tell(&self, news: News) {
        let _ = self.commands.send(Command::News(news));
    }
}
