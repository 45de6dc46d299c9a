//! A restore on another client's machine, by its agent.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use backhaul_archive::restore::{RestoreProgress, Restored};
use backhaul_proto::errand::News;
use backhaul_proto::wire;

use super::{describe, exit_code, tell};
use crate::cli::{OverwriteArg, RestoreArgs};
use crate::commands::{Context, Done};
use crate::failure::Failure;
use crate::output::Progress;
use crate::reader::Reader;
use crate::selector;

pub async fn run(context: &Context, args: &RestoreArgs, client: &str) -> Done {
    if !args.target.is_absolute() {
        return Err(Failure::usage(format!(
            "{} is on another machine: say the whole path",
            args.target.display()
        )));
    }
    let reader = Reader::open(&context.home, args.read.client.as_deref(), &context.ways).await?;
    let progress = Arc::new(RestoreProgress::default());
    let shown = Progress::start(&context.global, describe(&progress));
    let done = tokio::task::block_in_place(|| order(&reader, args, client, &progress));
    drop(shown);
    reader.close().await;
    let doing = || format!("restoring {} to {} on {client}", args.what.display(), args.target.display());
    let (id, result) = done.map_err(|failure| failure.while_doing(doing()))?;
    let (errors_more, unset_more) = (result.errors_more, result.unset_more);
    let mut restored = restored(result);
    let target = || args.target.clone();
    if errors_more > 0 {
        restored.errors.push((target(), format!("{errors_more} further errors are not listed")));
    }
    if unset_more > 0 {
        restored.unset.push((target(), format!("{unset_more} further parts of metadata are not listed")));
    }
    tell(context, &id, args, &restored);
    Ok(exit_code(&restored))
}

fn order(
    reader: &Reader,
    args: &RestoreArgs,
    client: &str,
    progress: &RestoreProgress,
) -> Result<(String, wire::RestoreResult), Failure> {
    let (snapshot, path) = selector::split(&args.what);
    let snapshot = reader.choose(&snapshot, path)?;
    let overwrite = match args.overwrite {
        OverwriteArg::Always => wire::Overwrite::Always,
        OverwriteArg::IfChanged => wire::Overwrite::IfChanged,
        OverwriteArg::IfNewer => wire::Overwrite::IfNewer,
        OverwriteArg::Never => wire::Overwrite::Never,
    };
    let order = wire::RestoreOrder {
        to_client: client.to_owned(),
        snapshot: snapshot.id.as_bytes().to_vec().into(),
        root: snapshot.manifest.root.as_bytes().to_vec().into(),
        path: path.map(|path| path.to_vec().into()),
        target: args.target.as_os_str().as_bytes().to_vec().into(),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        overwrite: overwrite.into(),
        delete: args.delete,
        verify: args.verify,
        dry_run: args.dry_run,
        ..Default::default()
    };
    let heard = reader.remote.order(order)?;
    loop {
        match heard.recv() {
            Ok(News::Answer(answer)) if answer.refusal.is_empty() => {}
            Ok(News::Answer(answer)) => return Err(Failure::new(answer.refusal)),
            Ok(News::Progress(wire::RestoreProgress { files, bytes })) => {
                progress.files.store(files, Ordering::Relaxed);
                progress.bytes.store(bytes, Ordering::Relaxed);
            }
            Ok(News::Result(result)) if result.failure.is_empty() => {
                return Ok((snapshot.id.to_string(), *result));
            }
            Ok(News::Result(result)) => {
                return Err(Failure::new(result.failure).hint("asked again, it goes on where it was"));
            }
            Err(_) => return Err(reader.remote.reason().into()),
        }
    }
}

fn restored(result: wire::RestoreResult) -> Restored {
    let path = |path: &[u8]| PathBuf::from(OsStr::from_bytes(path));
    let wire::RestoreResult { files, dirs, symlinks, special, bytes, skipped, deleted, errors, .. } = result;
    let (unset, errors): (Vec<_>, Vec<_>) = errors.into_iter().partition(|error| error.is_there);
    let named = |errors: Vec<wire::RestoreError>| {
        errors.into_iter().map(|error| (path(&error.path), error.why)).collect()
    };
    let (errors, unset) = (named(errors), named(unset));
    Restored { files, dirs, symlinks, special, bytes, skipped, deleted, errors, unset }
}
