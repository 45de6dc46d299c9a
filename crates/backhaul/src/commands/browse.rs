//! `snapshots`, `ls`.

use std::ffi::OsStr;
use std::process::ExitCode;

use backhaul_archive::browse::Tree;
use backhaul_object::entry::{Body, Entry, Special};
use backhaul_object::snapshot::Origin;
use backhaul_proto::wire::Mark;
use serde_json::{Value, json};

use super::{Context, Done};
use crate::cli::ReadArgs;
use crate::output;
use crate::reader::Reader;
use crate::selector;
use backhaul_agent::remote::Which;

pub async fn snapshots(context: &Context, read: &ReadArgs, which: Which) -> Done {
    let reader = Reader::open(&context.home, read.client.as_deref(), &context.ways).await?;
    let all = reader.list(which);
    reader.close().await;
    let all = all?;
    let paths = |raw: &[Vec<u8>]| {
        raw.iter().map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>()
    };
    if context.global.json {
        let one = |s: &backhaul_agent::remote::Listed| {
            json!({
                "id": s.id.to_string(), "client": s.client, "time": output::rfc3339(s.server_time),
                "paths": paths(&s.manifest.paths), "stream": s.manifest.origin() == Origin::Stream, "tags": s.manifest.tags, "files": s.manifest.totals.files,
                "bytes": s.manifest.totals.bytes, "bytes_stored": s.bytes_stored,
                "status": if s.manifest.errors > 0 { "partial" } else { "complete" }, "pinned": s.mark == Mark::Pinned,
                "forgotten": s.mark == Mark::Forgotten,
                "root": s.manifest.root.to_string(), "errors": s.manifest.errors,
            })
        };
        output::json(&all.iter().map(one).collect::<Vec<Value>>());
        return Ok(ExitCode::SUCCESS);
    }
    let rows = all.iter().map(|s| {
        vec![
            s.id.to_string()[..12].to_owned(),
            output::time(s.server_time),
            s.manifest.totals.files.to_string(),
            output::bytes(s.manifest.totals.bytes),
            output::bytes(s.bytes_stored),
            match s.manifest.origin() {
                Origin::Files => paths(&s.manifest.paths).join(" "),
                Origin::Stream => format!("{} (stream)", paths(&s.manifest.paths).join(" ")),
            },
            s.manifest.tags.join(","),
            match s.mark {
                Mark::None => String::new(),
                Mark::Pinned => "pinned".to_owned(),
                Mark::Forgotten => "forgotten".to_owned(),
            },
        ]
    });
    let head = ["SNAPSHOT", "TIME", "FILES", "SIZE", "ADDED", "PATHS", "TAGS", "MARK"];
    output::table(&head, rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// How `ls` shows things.
#[derive(Clone, Copy)]
pub struct Listing {
    pub long: bool,
    pub recursive: bool,
}

pub async fn ls(context: &Context, what: &OsStr, listing: Listing, read: &ReadArgs) -> Done {
    let (snapshot, path) = selector::split(what);
    let reader = Reader::open(&context.home, read.client.as_deref(), &context.ways).await?;
    let listed =
        tokio::task::block_in_place(|| list(context, &reader, &snapshot, path.unwrap_or(b"/"), listing));
    reader.close().await;
    listed
}

fn list(context: &Context, reader: &Reader, snapshot: &str, path: &[u8], listing: Listing) -> Done {
    let snapshot = reader.choose(snapshot, Some(path))?;
    let tree = Tree::new(&reader.remote, snapshot.manifest.root);
    let mut rows = Vec::new();
    let mut show = |name: &[u8], entry: &Entry| match context.global.json {
        true => rows.push(describe(name, entry)),
        false => output::line(&format(name, entry, listing)),
    };
    if listing.recursive {
        tree.walk(path, &mut |full, entry| {
            show(full, entry);
            Ok(())
        })?;
    } else {
        tree.list_each(&tree.lookup(path)?, &mut |entry| {
            show(&entry.name, entry);
            Ok(())
        })?;
    }
    if context.global.json {
        output::json(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// The word and the letter for what an entry is.
pub fn kind(entry: &Entry) -> (&'static str, char) {
    match entry.body {
        Body::File { .. } => ("file", '-'),
        Body::Directory { .. } | Body::Folded(_) => ("dir", 'd'),
        Body::Symlink(_) => ("symlink", 'l'),
        Body::Special(Special::Fifo) => ("fifo", 'p'),
        Body::Special(Special::Socket) => ("socket", 's'),
        Body::Special(Special::Character(_)) => ("character device", 'c'),
        Body::Special(Special::Block(_)) => ("block device", 'b'),
    }
}

/// An entry as a document.
pub fn describe(name: &[u8], entry: &Entry) -> Value {
    let meta = &entry.metadata;
    let mut document = json!({
        "path": String::from_utf8_lossy(name), "type": kind(entry).0, "size": entry.totals().bytes,
        "mode": format!("{:04o}", meta.mode), "uid": meta.uid, "gid": meta.gid,
        "mtime": output::rfc3339(meta.mtime_s),
    });
    if std::str::from_utf8(name).is_err() {
        let hex: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        document["path_hex"] = json!(hex);
    }
    document
}

fn format(name: &[u8], entry: &Entry, listing: Listing) -> String {
    let directory = matches!(entry.body, Body::Directory { .. } | Body::Folded(_));
    let name = format!("{}{}", String::from_utf8_lossy(name), if directory { "/" } else { "" });
    if !listing.long {
        return name;
    }
    let meta = &entry.metadata;
    let bit = |n: u16, letter: char| if meta.mode >> n & 1 == 1 { letter } else { '-' };
    let mut mode: Vec<char> =
        (0..9u16).rev().zip("rwxrwxrwx".chars()).map(|(n, letter)| bit(n, letter)).collect();
    for (n, at, letter) in [(11, 2, 's'), (10, 5, 's'), (9, 8, 't')] {
        if meta.mode >> n & 1 == 1 {
            mode[at] = if mode[at] == 'x' { letter } else { letter.to_ascii_uppercase() };
        }
    }
    let mode: String = mode.into_iter().collect();
    let (kind, size, time) = (kind(entry).1, entry.totals().bytes, output::time(meta.mtime_s));
    let target = match &entry.body {
        Body::Symlink(target) => format!(" -> {}", String::from_utf8_lossy(target)),
        Body::Special(Special::Character(device) | Special::Block(device)) => {
            format!(" ({}:{})", device.major, device.minor)
        }
        _ => String::new(),
    };
    format!("{kind}{mode} {:>5} {:>5} {size:>12} {time} {name}{target}", meta.uid, meta.gid)
}
