//! What SNAPSHOT and SNAPSHOT:PATH mean.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use backhaul_agent::remote::Listed;
use backhaul_archive::browse::nearest;
use backhaul_object::ObjectId;
use backhaul_object::snapshot::Origin;
use backhaul_store::catalog::SnapshotRow;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::failure::Failure;

/// What can be chosen.
pub trait Candidate {
    /// The snapshot's id.
    fn id(&self) -> ObjectId;
    /// When it was made, seconds since 1970.
    fn time(&self) -> u64;
    /// The paths that its run saved, where they are known.
    fn paths(&self) -> &[Vec<u8>] {
        &[]
    }
}

impl Candidate for Listed {
    fn id(&self) -> ObjectId {
        self.id
    }
    fn time(&self) -> u64 {
        self.server_time
    }
    fn paths(&self) -> &[Vec<u8>] {
        &self.manifest.paths
    }
}

impl Candidate for SnapshotRow {
    fn id(&self) -> ObjectId {
        self.id
    }
    fn time(&self) -> u64 {
        self.server_time
    }
}

/// Fewest hexadecimal digits of an id.
const PREFIX_MIN: usize = 4;

/// Splits `SNAPSHOT[:PATH]`. A time has colons, too: the path begins at the first `:/`, or, when there is
/// none and the whole is no time, at the first colon.
pub fn split(text: &OsStr) -> (String, Option<&[u8]>) {
    let bytes = text.as_bytes();
    let is_time = text.to_str().is_some_and(|text| parse_time(text, 0).is_some());
    let rooted = bytes.windows(2).position(|pair| pair == b":/");
    let at = match rooted {
        None if is_time => None,
        None => bytes.iter().position(|byte| *byte == b':'),
        rooted => rooted,
    };
    let (snapshot, path) = match at {
        Some(at) => (&bytes[..at], Some(&bytes[at + 1..])),
        None => (bytes, None),
    };
    (String::from_utf8_lossy(snapshot).into_owned(), path)
}

/// The newest whose run saw to a path: it saved that, or a folder that it is in; failing that, something in it. Without a
/// path, the newest of files: streams are named.
fn newest<'s, S: Candidate>(snapshots: &'s [S], path: Option<&[u8]>) -> Option<&'s S> {
    let names = |path: &[u8]| -> Vec<Vec<u8>> {
        path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect()
    };
    let path = names(path.unwrap_or_default());
    let saw = |snapshot: &&S| snapshot.paths().iter().any(|saved| path.starts_with(&names(saved)));
    let led = |snapshot: &&S| snapshot.paths().iter().any(|saved| names(saved).starts_with(&path));
    let any = |fits: &dyn Fn(&&S) -> bool| snapshots.iter().rev().find(fits);
    let of_files = || any(&|snapshot| Origin::of(snapshot.paths()) == Origin::Files).or(snapshots.last());
    if path.is_empty() {
        return of_files();
    }
    any(&saw).or_else(|| any(&led)).or_else(of_files)
}

/// Finds the snapshot that a text means; `snapshots` are oldest first, `now` is seconds since 1970.
pub fn choose<'s, S: Candidate>(text: &str, snapshots: &'s [S], now: u64) -> Result<&'s S, Failure> {
    choose_for(text, None, snapshots, now)
}

/// The same; where a text fits many, for what is at a path.
pub fn choose_for<'s, S: Candidate>(
    text: &str,
    path: Option<&[u8]>,
    snapshots: &'s [S],
    now: u64,
) -> Result<&'s S, Failure> {
    let Some(newest_of_all) = newest(snapshots, path) else {
        return Err(Failure::new("there is no snapshot yet").hint("`backhaul backup` makes one"));
    };
    if text == "latest" {
        return Ok(newest_of_all);
    }
    if let Some(at) = parse_time(text, now) {
        let until = snapshots.iter().rposition(|snapshot| snapshot.time() <= at).map_or(0, |last| last + 1);
        let found = newest(&snapshots[..until], path);
        let oldest = snapshots.first().map_or(0, Candidate::time);
        let hint = format!("the oldest is of {}", crate::output::time(oldest));
        return found
            .ok_or_else(|| Failure::new(format!("there is no snapshot from before {text}")).hint(hint));
    }
    let hex = text.len() >= PREFIX_MIN && text.bytes().all(|b| b.is_ascii_hexdigit());
    let lower = text.to_ascii_lowercase();
    let found: Vec<&S> = match hex {
        true => snapshots.iter().filter(|snapshot| snapshot.id().to_string().starts_with(&lower)).collect(),
        false => Vec::new(),
    };
    match found[..] {
        [one] => Ok(one),
        [] => Err(Failure::new(format!("there is no snapshot {text:?}")).hint(near(text, snapshots))),
        _ => Err(Failure::new(format!("{text:?} fits {} snapshots", found.len())).hint("give more digits")),
    }
}

/// What may have been meant.
fn near<S: Candidate>(text: &str, snapshots: &[S]) -> String {
    let ids = snapshots.iter().rev().map(|snapshot| snapshot.id().to_string());
    let ids = ids.filter_map(|id| id.get(..text.len().max(PREFIX_MIN)).map(str::to_owned));
    let names: Vec<String> = std::iter::once("latest".to_owned()).chain(ids).collect();
    let near = nearest(text.as_bytes(), names.iter().map(String::as_bytes));
    let near: Vec<String> = near.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let what = "say latest, 4 or more digits of an id, a day (2026-11-23), or an age (3d ago); `backhaul snapshots` lists all";
    if near.is_empty() { what.to_owned() } else { format!("did you mean {}? Else {what}", near.join(" or ")) }
}

/// `2026-11-23` (its end), `2026-11-23T04:00`, `3d ago`; local time.
pub fn parse_time(text: &str, now: u64) -> Option<u64> {
    let local = |at: DateTime| {
        let zoned = at.to_zoned(TimeZone::system()).ok()?;
        u64::try_from(zoned.timestamp().as_second()).ok()
    };
    if let Some(age) = text.strip_suffix(" ago") {
        let (number, unit) = age.trim().split_at(age.trim().len().checked_sub(1)?);
        let seconds = match unit {
            "m" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        return Some(now.saturating_sub(number.trim().parse::<u64>().ok()?.saturating_mul(seconds)));
    }
    if !text.contains('-') {
        return None;
    }
    if let Ok(at) = text.parse::<DateTime>()
        && text.contains('T')
    {
        return local(at);
    }
    local(text.parse::<Date>().ok()?.at(23, 59, 59, 0))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn paths_are_told_from_times() {
        let cases: [(&str, &str, Option<&str>); 5] = [
            ("latest", "latest", None),
            ("latest:/etc/a:b", "latest", Some("/etc/a:b")),
            ("latest:etc", "latest", Some("etc")),
            ("2026-11-23T04:00", "2026-11-23T04:00", None),
            ("2026-11-23T04:00:/etc", "2026-11-23T04:00", Some("/etc")),
        ];
        for (text, snapshot, path) in cases {
            assert_eq!(split(OsStr::new(text)), (snapshot.to_owned(), path.map(str::as_bytes)), "{text}");
        }
        assert_eq!(split(OsStr::from_bytes(b"latest:/\xff")).1, Some(&b"/\xff"[..]));
    }

    struct Made(u8, u64, Vec<Vec<u8>>);

    impl Candidate for Made {
        fn id(&self) -> ObjectId {
            ObjectId([self.0; 32])
        }
        fn time(&self) -> u64 {
            self.1
        }
        fn paths(&self) -> &[Vec<u8>] {
            &self.2
        }
    }

    #[test]
    fn latest_of_a_path_is_the_newest_whose_run_saw_to_it() {
        let made = |id, paths: &[&str]| {
            Made(id, u64::from(id) * 100, paths.iter().map(|path| path.as_bytes().to_vec()).collect())
        };
        let all = [
            made(1, &["/home", "/etc"]),
            made(2, &["/etc"]),
            made(3, &["/home/ana/x"]),
            made(4, &["dump.sql"]),
        ];
        let cases: [(&str, Option<&str>, u8); 9] = [
            ("latest", None, 3),
            ("latest", Some("/"), 3),
            ("latest", Some("/home/ana"), 1),
            ("latest", Some("home/ana/x/y"), 3),
            ("latest", Some("/etc/fstab"), 2),
            ("latest", Some("/homes"), 3),
            ("latest", Some("/dump.sql"), 4),
            ("0303", Some("/etc"), 3),
            ("1m ago", Some("/etc"), 1),
        ];
        for (text, path, id) in cases {
            let found = choose_for(text, path.map(str::as_bytes), &all, 210).unwrap();
            assert_eq!(found.0, id, "{text} {path:?}");
        }
        let streams = [made(1, &["a.sql"]), made(2, &["b.sql"])];
        assert_eq!(choose_for("latest", None, &streams, 0).unwrap().0, 2, "there is nothing else");
        let only = [made(5, &["/home/ana/x"])];
        assert_eq!(choose_for("latest", Some(b"/home"), &only, 0).unwrap().0, 5, "something in it is there");
    }

    #[test]
    fn what_is_mistyped_is_answered_with_what_is_near() {
        let all = [Made(0xab, 1, vec![]), Made(0xcd, 2, vec![])];
        for (text, near) in [("latets", "did you mean latest?"), ("abbbab", "did you mean ababab?")] {
            let said = format!("{:?}", choose(text, &all, 0).err().unwrap());
            assert!(said.contains(near), "{said}");
        }
        let said = format!("{:?}", choose("ffffff", &all, 0).err().unwrap());
        assert!(!said.contains("did you mean"), "{said}");
    }

    #[test]
    fn ages_and_days_are_times_and_ids_are_not() {
        assert_eq!(parse_time("3d ago", 300_000), Some(300_000 - 259_200));
        assert_eq!(parse_time("2h ago", 10_000), Some(2_800));
        let day = parse_time("2026-11-23", 0).unwrap();
        assert_eq!(parse_time("2026-11-23T23:59:59", 0), Some(day));
        for id in ["deadbeef", "20261123", "latest", "1x ago"] {
            assert_eq!(parse_time(id, 0), None, "{id}");
        }
    }
}
