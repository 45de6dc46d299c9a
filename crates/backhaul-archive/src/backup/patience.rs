//! What the assembler does while it waits for the disk or for answers: it does not hold back what others may wait for.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use super::BackupError;
use super::assemble::Assembler;

/// After so long without an answer the open bundle is closed short: the server may have another client wait for what is in it, and
/// us for what that one holds back.
const STALL: Duration = Duration::from_millis(100);
/// So it is after so long without anything from the disk.
const IDLE: Duration = Duration::from_secs(1);

impl Assembler<'_> {
    /// What comes next from walk and readers; nothing when nothing more does. What others may wait for is not held back meanwhile.
    pub(super) fn await_disk<T>(&mut self, from: &Receiver<T>) -> Option<T> {
        loop {
            match from.recv_timeout(IDLE) {
                Ok(next) => return Some(next),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    self.go_on();
                    self.close_bundle();
                }
            }
        }
    }

    /// Carries out the oldest batch when it is answered; false when there is none. Nothing is held back meanwhile either.
    pub(super) fn carry_out_oldest(&mut self) -> Result<bool, BackupError> {
        if !self.bundle.builder.is_empty() && !self.questions.is_known_within(STALL) {
            self.close_bundle();
        }
        let answered = self.questions.oldest()?;
        Ok(answered.map(|answered| self.carry_out(answered)).is_some())
    }

    /// Carries out what is answered.
    pub(super) fn go_on(&mut self) {
        while let Some(answered) = self.questions.settled() {
            self.carry_out(answered);
        }
    }
}
