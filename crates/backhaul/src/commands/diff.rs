//! `diff`: what differs between two snapshots.

use std::ffi::OsStr;
use std::process::ExitCode;

use backhaul_archive::browse::Tree;
use backhaul_archive::diff::{Change, diff};
use backhaul_object::entry::Entry;
use serde_json::{Value, json};

use super::browse::kind;
use super::{Context, Done};
use crate::cli::ReadArgs;
use crate::failure::Failure;
use crate::output;
use crate::reader::Reader;
use crate::selector;

pub async fn run(context: &Context, before: &str, after: &OsStr, read: &ReadArgs) -> Done {
    let (after, path) = selector::split(after);
    let reader = Reader::open(&context.home, read.client.as_deref(), &context.ways).await?;
    let compared = tokio::task::block_in_place(|| {
        let (before, after) = (reader.choose(before, path)?, reader.choose(&after, path)?);
        let tree = |root| Tree::new(&reader.remote, root);
        let (before, after) = (tree(before.manifest.root), tree(after.manifest.root));
        let (mut rows, mut count) = (Vec::new(), 0u64);
        diff(&before, &after, path.unwrap_or(b"/"), &mut |path, change, entry| {
            count += 1;
            match context.global.json {
                true => rows.push(describe(path, change, entry)),
                false => {
                    let slash = if entry.is_folder() { "/" } else { "" };
                    output::line(&format!("{} {}{slash}", letter(change), String::from_utf8_lossy(path)));
                }
            }
            Ok(())
        })?;
        Ok::<_, Failure>((rows, count))
    });
    reader.close().await;
    let (rows, count) = compared?;
    if context.global.json {
        output::json(&rows);
    } else if count == 0 && !context.global.quiet {
        output::complain("nothing differs");
    }
    Ok(ExitCode::SUCCESS)
}

fn letter(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Content => 'M',
        Change::Metadata => 'U',
        Change::Kind => 'T',
    }
}

fn describe(path: &[u8], change: Change, entry: &Entry) -> Value {
    let word = match change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Content => "content",
        Change::Metadata => "metadata",
        Change::Kind => "kind",
    };
    json!({
        "path": String::from_utf8_lossy(path), "change": word, "type": kind(entry).0,
        "size": entry.totals().bytes,
    })
}
