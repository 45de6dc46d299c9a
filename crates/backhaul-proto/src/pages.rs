//! A snapshot list as it arrives, page by page: bounded, whatever a server sends.

use prost::Message;

use crate::{LIST_BYTES_MAX, LIST_ROWS_MAX, SessionError, wire};

/// The lists that were asked for, and what has arrived of the first.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    /// Lists that have not ended.
    asked: usize,
    rows: Vec<wire::SnapshotRow>,
    bytes: usize,
}

impl Pages {
    /// One more list is asked for.
    pub(crate) fn ask(&mut self) {
        self.asked += 1;
    }

    /// Takes a page; the whole list, once it is there.
    ///
    /// # Errors
    /// Nobody asked, the page brings nothing, or the list is longer than any true one.
    pub(crate) fn take(
        &mut self,
        page: wire::Snapshots,
    ) -> Result<Option<Vec<wire::SnapshotRow>>, SessionError> {
        if self.asked == 0 {
            return Err(SessionError::Protocol("a list of snapshots that nobody asked for"));
        }
        if page.more && page.rows.is_empty() {
            return Err(SessionError::Protocol("a page of a list of snapshots has nothing in it"));
        }
        self.bytes += page.encoded_len();
        self.rows.extend(page.rows);
        if self.rows.len() > LIST_ROWS_MAX || self.bytes > LIST_BYTES_MAX {
            return Err(SessionError::Protocol("the list of snapshots has no end"));
        }
        if page.more {
            return Ok(None);
        }
        (self.asked, self.bytes) = (self.asked - 1, 0);
        Ok(Some(std::mem::take(&mut self.rows)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn page(rows: usize, body: usize, more: bool) -> wire::Snapshots {
        let row = wire::SnapshotRow { body: vec![0; body].into(), ..Default::default() };
        wire::Snapshots { rows: vec![row; rows], more }
    }

    /// Pages that are taken before there are too many.
    fn endured(rows: usize, body: usize) -> usize {
        let mut pages = Pages::default();
        pages.ask();
        (0..10_000_000).find(|_| pages.take(page(rows, body, true)).is_err()).unwrap()
    }

    #[test]
    fn lists_are_whole_and_apart() {
        let mut pages = Pages::default();
        pages.ask();
        pages.ask();
        assert!(pages.take(page(2, 1, true)).unwrap().is_none());
        assert_eq!(pages.take(page(1, 1, false)).unwrap().unwrap().len(), 3);
        assert_eq!(pages.take(page(0, 0, false)).unwrap().unwrap().len(), 0, "a client without snapshots");
        assert!(pages.take(page(1, 1, false)).is_err(), "nobody asked for a third");
    }

    #[test]
    fn a_list_without_end_is_given_up_by_count_and_by_bytes_and_an_empty_page_at_once() {
        assert_eq!(endured(1_000, 0), LIST_ROWS_MAX / 1_000);
        assert!((200..=256).contains(&endured(1, 1 << 20)));
        assert_eq!(endured(0, 0), 0);
    }
}
