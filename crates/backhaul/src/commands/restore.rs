//! `restore`: bring files back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backhaul_archive::patterns::{Case, Patterns};
use backhaul_archive::restore::{
    Act, Overwrite, Replacing, RestoreProgress, RestoreRequest, Restored, Selection, Tell, restore,
};
use serde_json::json;

use super::{Context, Done};
use crate::cli::{OverwriteArg, RestoreArgs};
use crate::failure::{Failure, code};
use crate::output::{self, Progress};
use crate::reader::Reader;
use crate::selector;

mod elsewhere;

/// Paths named on a terminal that have something in common; `--json` names all.
const NAMED_MAX: usize = 20;

pub async fn run(context: &Context, args: RestoreArgs) -> Done {
    if let Some(client) = &args.to_client {
        return elsewhere::run(context, &args, client).await;
    }
    let (snapshot, path) = selector::split(&args.what);
    let patterns = |texts: &[String]| {
        Patterns::new(texts.iter().map(|text| (text.as_str(), Case::Sensitive)))
            .map_err(|error| Failure::usage(error.to_string()))
    };
    let mut request = RestoreRequest {
        verify: args.verify,
        dry_run: args.dry_run,
        overwrite: match args.overwrite {
            OverwriteArg::Always => Overwrite::Always,
            OverwriteArg::IfChanged => Overwrite::IfChanged,
            OverwriteArg::IfNewer => Overwrite::IfNewer,
            OverwriteArg::Never => Overwrite::Never,
        },
        replacing: if args.in_place { Replacing::InPlace } else { Replacing::InOneStep },
        select: Selection { include: patterns(&args.include)?, exclude: patterns(&args.exclude)? },
        delete: args.delete,
        tell: (context.global.verbose > 0 && !context.global.json).then(|| Arc::new(named) as Arc<Tell>),
        ..RestoreRequest::to(std::path::absolute(&args.target)?)
    };
    let reader = Reader::open(&context.home, args.read.client.as_deref(), &context.ways).await?;
    request.id_key = Some(reader.remote.welcome().parameters.id_key.clone());
    let shown = Progress::start(&context.global, describe(&request.progress));
    let done = tokio::task::block_in_place(|| {
        let snapshot = reader.choose(&snapshot, path)?;
        request.totals = Some(snapshot.manifest.totals);
        Ok::<_, Failure>((snapshot.id, restore(&reader.remote, snapshot.manifest.root, path, &request)?))
    });
    drop(shown);
    reader.close().await;
    let (id, restored) = done.map_err(|failure| {
        failure.while_doing(format!("restoring {} to {}", args.what.display(), args.target.display()))
    })?;
    tell(context, &id.to_string(), &args, &restored);
    Ok(exit_code(&restored))
}

fn exit_code(restored: &Restored) -> ExitCode {
    ExitCode::from(if restored.is_whole() { 0 } else { code::PARTIAL })
}

/// One thing that is done, or would be.
fn named(act: Act, path: &Path) {
    let word = match act {
        Act::Create => "new",
        Act::Replace => "replace",
        Act::Keep => "keep",
        Act::Delete => "delete",
    };
    output::line(&format!("{word:<8} {}", path.display()));
}

fn describe(progress: &Arc<RestoreProgress>) -> impl Fn() -> String + Send + 'static {
    let progress = Arc::clone(progress);
    move || {
        let (files, bytes) = (progress.files.load(Ordering::Relaxed), progress.bytes.load(Ordering::Relaxed));
        format!("{files} files, {} restored", output::bytes(bytes))
    }
}

/// What is not as it was. What many have in common is said of the first of them.
fn complain(word: &str, errors: &[(PathBuf, String)]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, why) in errors {
        let count = counts.entry(why).or_default();
        *count += 1;
        if *count <= NAMED_MAX {
            output::complain(&format!("{word}: {}: {why}", path.display()));
        }
    }
    for (why, count) in counts.into_iter().filter(|(_, count)| *count > NAMED_MAX) {
        output::complain(&format!("and {} more: {why} (--json names all)", count - NAMED_MAX));
    }
}

fn tell(context: &Context, id: &str, args: &RestoreArgs, restored: &Restored) {
    if context.global.json {
        let named = |amiss: &[(PathBuf, String)]| -> Vec<_> {
            let one =
                |(path, error): &(PathBuf, String)| json!({ "path": path.to_string_lossy(), "error": error });
            amiss.iter().map(one).collect()
        };
        let mut document = json!({
            "snapshot": id, "target": args.target, "files": restored.files, "dirs": restored.dirs,
            "symlinks": restored.symlinks, "special": restored.special, "bytes": restored.bytes, "skipped": restored.skipped,
            "deleted": restored.deleted,
            "dry_run": args.dry_run, "verified": args.verify && restored.errors.is_empty(),
            "errors": named(&restored.errors), "unset": named(&restored.unset),
        });
        if let Some(client) = &args.to_client {
            document["to_client"] = json!(client);
        }
        output::json(&document);
        return;
    }
    complain("not restored", &restored.errors);
    complain("restored, but", &restored.unset);
    let verb = if args.dry_run { "would restore" } else { "restored" };
    let on = args.to_client.as_ref().map(|client| format!(" on {client}")).unwrap_or_default();
    let target = format!("{}{on}", args.target.display());
    let special = match restored.special {
        0 => String::new(),
        1 => ", 1 pipe, socket or device".to_owned(),
        n => format!(", {n} pipes, sockets and devices"),
    };
    output::line(&format!(
        "{verb} {}, {}, {}{special}, {} to {target}",
        output::count(restored.files, "file"),
        output::count(restored.dirs, "folder"),
        output::count(restored.symlinks, "link"),
        output::bytes(restored.bytes)
    ));
    if restored.deleted > 0 {
        let verb = if args.dry_run { "would delete" } else { "deleted" };
        let names = output::count(restored.deleted, "name");
        output::line(&format!("  {verb} {names} that the snapshot does not have"));
    }
    if restored.files + restored.dirs + restored.symlinks + restored.special + restored.skipped == 0
        && restored.errors.is_empty()
        && !args.include.is_empty()
    {
        output::complain(
            "nothing that is there fits --include and is not excluded: `backhaul find PATTERN` looks for names",
        );
    }
    if restored.skipped > 0 {
        output::line(&format!("  {} were there already and stayed as they are", restored.skipped));
    }
    if args.verify && restored.errors.is_empty() {
        output::line("  read back and compared: equal");
    }
}
