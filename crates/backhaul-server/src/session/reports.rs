//! What the ingest of a session tells: it is written down, and the peer hears of it.

use backhaul_proto::wire;
use bytes::Bytes;

use super::ingest::Report;
use super::{Conversation, Desk, Ending};
use crate::clock;

impl Conversation {
    /// A snapshot, or what did not come to one.
    pub(super) fn write_down<D: Desk>(&mut self, report: &Report, desk: &D) {
        match report {
            Report::Committed(made) => {
                self.outcome.committed = Some(made.origin);
                tokio::task::block_in_place(|| desk.committed(&self.client, made));
            }
            Report::Unfinished(added) => {
                tokio::task::block_in_place(|| desk.unfinished(&self.client, *added));
            }
            Report::Durable(_) | Report::Failed(_) => {}
        }
    }

    pub(super) fn on_report<D: Desk>(&mut self, report: Report, desk: &D) -> Result<(), Ending> {
        self.write_down(&report, desk);
        match report {
            Report::Durable(objects) => {
                self.manners.moved(clock::boot_ms());
                desk.goes_on(&self.client);
                self.session.durable(objects);
            }
            Report::Failed(ending) => return Err(ending),
            Report::Committed(made) => {
                let row = made.row;
                self.session.committed(wire::Committed {
                    snapshot: Bytes::copy_from_slice(row.id.as_bytes()),
                    sequence: row.sequence,
                    server_time: row.server_time,
                    bytes_stored: row.bytes_stored,
                    objects_new: row.objects_new,
                    due_in: desk.due_after_success(&self.client),
                });
            }
            Report::Unfinished(_) => {}
        }
        Ok(())
    }
}
