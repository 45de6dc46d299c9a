//! A list of lost paths: in memory as far as it is short, in a file as far as it goes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{LongList, LostPath, LostPaths};

/// A list in the making.
pub(super) struct Listed {
    found: LostPaths,
    most: usize,
    most_in_file: u64,
    at: Option<PathBuf>,
    out: Option<BufWriter<File>>,
}

impl Listed {
    /// At most so many are kept in memory; when there are more, all go to the long list, which has an end, too.
    pub(super) fn new(long: LongList<'_>, most: usize, most_in_file: u64) -> Self {
        let at = match long {
            LongList::File(at) => Some(at.to_path_buf()),
            LongList::None => None,
        };
        Self { found: LostPaths::default(), most, most_in_file, at, out: None }
    }

    pub(super) fn add(&mut self, lost: LostPath) {
        self.found.count += 1;
        if !self.found.clients.contains(&lost.client) {
            self.found.clients.insert(lost.client.clone());
        }
        if self.found.paths.len() < self.most {
            return self.found.paths.push(lost);
        }
        if self.found.count == self.most as u64 + 1
            && let Some(at) = &self.at
        {
            self.out = self.begin(at).inspect_err(|error| complain(at, error)).ok();
        }
        if self.found.count <= self.most_in_file
            && let (Some(out), Some(at)) = (&mut self.out, &self.at)
            && let Err(error) = write(out, &lost)
        {
            complain(at, &error);
            self.out = None;
        }
    }

    /// The list; what was left of an earlier one goes.
    pub(super) fn finish(mut self) -> LostPaths {
        let done = match (self.out.take(), &self.at) {
            (Some(out), Some(at)) => {
                let more = self.found.count.saturating_sub(self.most_in_file);
                close(out, more, at).inspect_err(|error| complain(at, error)).is_ok()
            }
            _ => false,
        };
        if done {
            self.found.list = self.at.take();
        } else if let Some(at) = &self.at {
            let _ = fs::remove_file(at);
        }
        std::mem::take(&mut self.found)
    }

    fn begin(&self, at: &Path) -> io::Result<BufWriter<File>> {
        let mut options = OpenOptions::new();
        // Names are people's own.
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(in_the_making(at))?;
        let mut out = BufWriter::new(file);
        self.found.paths.iter().try_for_each(|lost| write(&mut out, lost))?;
        Ok(out)
    }
}

impl Drop for Listed {
    /// Whatever ended it: half a list is none, and the disk may be full.
    fn drop(&mut self) {
        self.out = None;
        if let Some(at) = &self.at {
            let _ = fs::remove_file(in_the_making(at));
        }
    }
}

fn in_the_making(at: &Path) -> PathBuf {
    at.with_extension("new")
}

fn close(mut out: BufWriter<File>, more: u64, at: &Path) -> io::Result<()> {
    if more > 0 {
        writeln!(out, "{}", json!({ "more": more }))?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(in_the_making(at), at)
}

/// Whoever wants to know what is lost is told as much as can be.
fn complain(at: &Path, error: &io::Error) {
    tracing::error!("the list of all lost paths, {}, cannot be written: {error}", at.display());
}

/// One path, as a document.
pub(crate) fn describe(lost: &LostPath) -> serde_json::Value {
    let mut document = json!({
        "client": lost.client, "snapshot": lost.snapshot.to_string(), "path": String::from_utf8_lossy(&lost.path),
    });
    if std::str::from_utf8(&lost.path).is_err() {
        let hex: String = lost.path.iter().map(|byte| format!("{byte:02x}")).collect();
        document["path_hex"] = json!(hex);
    }
    document
}

fn write(out: &mut impl Write, lost: &LostPath) -> io::Result<()> {
    writeln!(out, "{}", describe(lost))
}

#[cfg(test)]
mod tests {
    use backhaul_object::ids::ObjectId;

    use super::*;

    fn lost(n: u64) -> LostPath {
        LostPath { snapshot: ObjectId([7; 32]), client: "ana".to_owned(), path: format!("/file {n}").into() }
    }

    fn listed(at: &Path, count: u64) -> LostPaths {
        let mut list = Listed::new(LongList::File(at), 10, 10_000);
        (0..count).for_each(|n| list.add(lost(n)));
        list.finish()
    }

    #[test]
    fn a_list_that_is_long_is_all_in_a_file_and_a_short_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("lost.jsonl");
        for count in [11, 10_000] {
            let found = listed(&at, count);
            assert_eq!((found.count, found.paths.len(), found.list.as_deref()), (count, 10, Some(&*at)));
            let lines = fs::read_to_string(&at).unwrap();
            let all: Vec<String> = (0..count).map(|n| describe(&lost(n)).to_string()).collect();
            assert_eq!(lines.lines().collect::<Vec<_>>(), all);
        }
        let found = listed(&at, 10);
        assert_eq!((found.count, found.paths.len(), found.list), (10, 10, None));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "an old list says what is not so any more");
    }

    #[test]
    fn a_list_without_end_has_one_that_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("lost.jsonl");
        assert_eq!(listed(&at, 10_007).count, 10_007);
        let lines = fs::read_to_string(&at).unwrap();
        assert_eq!((lines.lines().count(), lines.lines().last()), (10_001, Some(r#"{"more":7}"#)));
    }

    #[test]
    fn where_no_list_can_be_written_they_are_counted() {
        let found = listed(Path::new("/proc/none/lost.jsonl"), 12);
        assert_eq!((found.count, found.paths.len(), found.list), (12, 10, None));
        let clients: Vec<String> = found.clients.into_iter().collect();
        assert_eq!(clients, ["ana"]);
    }

    #[test]
    fn whatever_ends_a_list_leaves_no_half_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("lost.jsonl");
        let mut list = Listed::new(LongList::File(&at), 1, 9);
        (0..5).for_each(|n| list.add(lost(n)));
        assert!(in_the_making(&at).exists());
        drop(list);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_is_no_text_is_said_byte_by_byte() {
        let document = describe(&LostPath { path: b"/\xff".to_vec(), ..lost(1) });
        assert_eq!(
            (document["path"].as_str(), document["path_hex"].as_str()),
            (Some("/\u{fffd}"), Some("2fff"))
        );
    }
}
