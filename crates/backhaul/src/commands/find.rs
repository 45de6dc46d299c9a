//! `find`: names in one snapshot or in all, by pattern, size and time.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::process::ExitCode;

use backhaul_agent::clock;
use backhaul_agent::remote::Listed;
use backhaul_archive::browse::Tree;
use backhaul_archive::find::{Pattern, find};
use backhaul_object::entry::Entry;
use backhaul_schedule::policy::units;
use serde_json::{Value, json};

use super::browse::describe;
use super::{Context, Done};
use crate::cli::FindArgs;
use crate::failure::Failure;
use crate::output;
use crate::reader::Reader;
use crate::selector::{self, parse_time};

/// What is looked for.
struct Wanted {
    pattern: Pattern,
    sizes: std::ops::RangeInclusive<u64>,
    times: std::ops::RangeInclusive<i64>,
}

impl Wanted {
    fn new(args: &FindArgs, now: u64) -> Result<Self, Failure> {
        let size = |text: &Option<String>, none| match text {
            None => Ok(none),
            Some(text) => units::size(text)
                .ok_or_else(|| Failure::usage(format!("{text:?} is no size: say 500kB, 2MB or 1GiB"))),
        };
        let time = |text: &Option<String>, none| match text {
            None => Ok(none),
            Some(text) => parse_time(text, now)
                .and_then(|at| i64::try_from(at).ok())
                .ok_or_else(|| Failure::usage(format!("{text:?} is no time: say 2026-11-23 or 3d ago"))),
        };
        Ok(Self {
            pattern: Pattern::new(args.pattern.as_bytes()),
            sizes: size(&args.larger_than, 0)?..=size(&args.smaller_than, u64::MAX)?,
            times: time(&args.newer, i64::MIN)?..=time(&args.older, i64::MAX)?,
        })
    }

    fn fits(&self, entry: &Entry) -> bool {
        self.sizes.contains(&entry.totals().bytes) && self.times.contains(&entry.metadata.mtime_s)
    }
}

pub async fn run(context: &Context, args: &FindArgs) -> Done {
    let wanted = Wanted::new(args, clock::now())?;
    let reader = Reader::open(&context.home, args.read.client.as_deref(), &context.ways).await?;
    let found = tokio::task::block_in_place(|| search(context, &reader, args, &wanted));
    reader.close().await;
    let found = found?;
    if context.global.json {
        output::json(&found.rows);
    } else if found.names == 0 && !context.global.quiet {
        output::complain(&nothing(args));
    }
    Ok(ExitCode::SUCCESS)
}

/// What was found.
#[derive(Default)]
struct Found {
    names: u64,
    /// For programs.
    rows: Vec<Value>,
}

/// Whoever finds nothing may have meant another pattern, or another snapshot.
fn nothing(args: &FindArgs) -> String {
    let pattern = &args.pattern;
    let part = match pattern.contains(['*', '?', '[', '/']) {
        true => String::new(),
        false => format!("; a pattern is for whole names: '*{pattern}*' finds parts"),
    };
    let all = if args.all { "" } else { "; --all looks into every snapshot" };
    format!("nothing fits '{pattern}'{part}{all}")
}

fn search(context: &Context, reader: &Reader, args: &FindArgs, wanted: &Wanted) -> Result<Found, Failure> {
    let (snapshot, under) = selector::split(OsStr::new(&args.snapshot));
    let snapshots: Vec<Listed> = match args.all {
        true => reader.snapshots()?.into_iter().rev().collect(),
        false => vec![reader.choose(&snapshot, under)?],
    };
    let (mut found, mut seen) = (Found::default(), HashSet::new());
    for snapshot in snapshots {
        let tree = Tree::new(&reader.remote, snapshot.manifest.root);
        find(&tree, under.unwrap_or(b"/"), &wanted.pattern, &mut |path, entry| {
            let metadata = &entry.metadata;
            let version = (metadata.mtime_s, metadata.mtime_ns, entry.totals().bytes);
            let is_new = !args.all || wanted.fits(entry) && seen.insert((path.to_vec(), version));
            if !is_new || !wanted.fits(entry) {
                return Ok(());
            }
            found.names += 1;
            let (id, text) = (snapshot.id.to_string(), String::from_utf8_lossy(path));
            match (context.global.json, args.all) {
                (true, _) => {
                    let mut row = describe(path, entry);
                    row["snapshot"] = json!(id);
                    found.rows.push(row);
                }
                (false, true) => output::line(&format!(
                    "{}  {}  {:>12}  {text}",
                    &id[..12],
                    output::time(metadata.mtime_s),
                    entry.totals().bytes
                )),
                (false, false) => output::line(&text),
            }
            Ok(())
        })?;
    }
    Ok(found)
}
