//! A session as what objects are given to and read from.

use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use backhaul_archive::backup::Patches;
use backhaul_object::seal::Unpacker;
use backhaul_object::source::{Answers, ObjectSink, ObjectSource, Query, Signatures, Spot, TransferError};
use backhaul_object::{Compressed, FormatError, Object, ObjectId, Reference};
use backhaul_proto::{ARRANGE_MAX, READ_MAX};

use super::{Command, Remote};

impl ObjectSink for Remote {
    fn ask(&self, queries: Vec<Query>) -> Result<Answers, TransferError> {
        let (send, receive) = channel();
        self.commands.send(Command::Ask(queries, send)).map_err(|_| self.shared.error())?;
        Ok(receive)
    }

    fn sign(&self, spots: Vec<Spot>) -> Signatures {
        let (send, receive) = channel();
        // Whoever waits hears that nobody answers. After a cut the server may be one that does not know the question.
        if self.welcome.parameters.patches == Patches::Helped {
            let _ = self.commands.send(Command::Sign(spots, send));
        }
        receive
    }

    fn put(&self, object: Compressed) -> Result<u64, TransferError> {
        self.outbound.blocking_send(object).map_err(|_| self.shared.error())?;
        Ok(self.sent.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn durable(&self) -> u64 {
        self.shared.durable.load(Ordering::SeqCst)
    }

    fn failure(&self) -> Option<TransferError> {
        self.shared.failure().map(|failure| failure.error)
    }
}

impl ObjectSource for Remote {
    fn read(&self, ids: &[ObjectId]) -> Result<Vec<Object>, TransferError> {
        self.read_parts(&ids.iter().map(|id| Reference::whole(*id)).collect::<Vec<_>>())
    }

    fn read_parts(&self, wanted: &[Reference]) -> Result<Vec<Object>, TransferError> {
        let mut objects = Vec::with_capacity(wanted.len());
        let mut unpacker = Unpacker::new().map_err(|error| TransferError::Lost(error.to_string()))?;
        for wanted in wanted.chunks(READ_MAX) {
            let found = self.command(|reply| Command::Read(wanted.to_vec(), reply))??;
            for (Reference { id, .. }, object) in wanted.iter().zip(found) {
                let damaged = |why| TransferError::Damaged { id: *id, why };
                if object.header.id != *id {
                    return Err(damaged(FormatError::Mismatch("id")));
                }
                objects.push(object.open(&self.welcome.parameters.id_key, &mut unpacker).map_err(damaged)?);
            }
        }
        Ok(objects)
    }

    fn arrange(&self, ids: &[ObjectId]) -> Result<Vec<usize>, TransferError> {
        if !self.welcome.arranges {
            return Ok((0..ids.len()).collect());
        }
        let mut order = Vec::with_capacity(ids.len());
        for ids in ids.chunks(ARRANGE_MAX) {
            let before = order.len();
            let places = self.command(|reply| Command::Arrange(ids.to_vec(), reply))?;
            order.extend(places.into_iter().map(|place| before + place));
        }
        Ok(order)
    }
}
