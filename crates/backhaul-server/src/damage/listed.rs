//! A list of lost paths: in memory as far as it is short, in a file as far as it goes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{LostPath, LostPaths};

/// A list in the making.
pub(super) struct Listed {
    found: LostPaths,
    most: usize,
    at: PathBuf,
    out: Option<BufWriter<File>>,
}

impl Listed {
    /// At most so many are kept in memory; when there are more, all go to a file.
    pub(super) fn new(at: &Path, most: usize) -> Self {
        Self { found: LostPaths::default(), most, at: at.to_path_buf(), out: None }
    }

    pub(super) fn add(&mut self, lost: LostPath) {
        self.found.count += 1;
        if self.found.paths.len() < self.most {
            return self.found.paths.push(lost);
        }
        if self.found.count == self.most as u64 + 1 {
            self.out = self.begin().inspect_err(|error| self.complain(error)).ok();
        }
        if let Some(out) = &mut self.out
            && let Err(error) = write(out, &lost)
        {
            self.complain(&error);
            self.out = None;
        }
    }

    /// The list; what was left of an earlier one goes.
    pub(super) fn finish(mut self) -> LostPaths {
        let done = match self.out.take() {
            Some(out) => self.close(out).inspect_err(|error| self.complain(error)).is_ok(),
            None => false,
        };
        if done {
            self.found.list = Some(self.at);
        } else {
            let _ = fs::remove_file(self.at);
        }
        self.found
    }

    fn new_file(&self) -> PathBuf {
        self.at.with_extension("new")
    }

    fn begin(&self) -> io::Result<BufWriter<File>> {
        let mut out = BufWriter::new(File::create(self.new_file())?);
        self.found.paths.iter().try_for_each(|lost| write(&mut out, lost))?;
        Ok(out)
    }

    fn close(&self, out: BufWriter<File>) -> io::Result<()> {
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(self.new_file(), &self.at)
    }

    /// Whoever wants to know what is lost is told as much as can be.
    fn complain(&self, error: &io::Error) {
        tracing::error!("the list of all lost paths, {}, cannot be written: {error}", self.at.display());
    }
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
        let mut list = Listed::new(at, 10);
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
    fn where_no_list_can_be_written_they_are_counted() {
        let found = listed(Path::new("/proc/none/lost.jsonl"), 12);
        assert_eq!((found.count, found.paths.len(), found.list), (12, 10, None));
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
