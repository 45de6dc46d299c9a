//! `backup`: push now.

use std::num::NonZeroU64;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backhaul_agent::home::AgentHome;
use backhaul_agent::remote::Limits;
use backhaul_agent::run::{Passage, RunReport, RunRequest, push, rehearse};
use backhaul_archive::backup::BackupProgress;
use backhaul_archive::find::Pattern;
use backhaul_proto::wire::Queued;
use backhaul_schedule::policy::units;
use serde_json::json;

use super::{Context, Done, absolute};
use crate::cli::BackupArgs;
use crate::failure::{Failure, code};
use crate::output::{self, Progress};
use crate::reader::own_server;

/// Errors named on a terminal; `--json` names all.
const NAMED_MAX: usize = 50;

pub async fn run(context: &Context, args: BackupArgs) -> Done {
    let home = AgentHome::at(&context.home);
    let config = home.config()?;
    let per_s = match args.limit_upload.as_deref() {
        None => home.terms().1.limit_upload,
        Some(text) => Some(
            units::size(text)
                .ok_or_else(|| Failure::usage(format!("--limit-upload {text:?}: say 500kB, 2MB or 1MiB")))?,
        ),
    };
    let (per_s, quiet) = (per_s.and_then(NonZeroU64::new), context.global.quiet);
    let wait = move |queued: &Queued| {
        if !quiet {
            let eta = units::about(i64::try_from(queued.eta).unwrap_or(i64::MAX));
            output::complain(&format!("{}; {} before it, about {eta}", queued.why, queued.position));
        }
    };
    let request = RunRequest {
        paths: absolute(&args.paths)?,
        exclude: args.exclude.iter().map(|text| Pattern::new(text.as_bytes())).collect(),
        tags: args.tag,
        one_file_system: args.one_file_system,
        progress: Arc::default(),
        passage: Passage {
            limits: Limits { per_s, cap: None },
            waiting: Some(Arc::new(wait)),
            ..Passage::default()
        },
    };
    let server = own_server(&context.home).await?;
    let servers = server.as_ref().map_or(config.servers, |server| vec![server.address().to_string()]);
    let shown = Progress::start(&context.global, describe(&request.progress));
    let result = match args.dry_run {
        true => rehearse(&home, &servers, &request).await,
        false => push(&home, &servers, &request).await,
    };
    drop(shown);
    if let Some(server) = server {
        server.stop().await;
    }
    let report = result.map_err(|error| Failure::from(error).while_doing("backing up"))?;
    tell(context, &report);
    Ok(ExitCode::from(if report.figures.errors.is_empty() { 0 } else { code::PARTIAL }))
}

/// What the progress line says.
pub fn describe(progress: &Arc<BackupProgress>) -> impl Fn() -> String + Send + 'static {
    let progress = Arc::clone(progress);
    move || {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (scanned, sent) =
            (output::bytes(get(&progress.bytes_scanned)), output::bytes(get(&progress.bytes_sent)));
        let errors = match get(&progress.errors) {
            0 => String::new(),
            n => format!(", {n} errors"),
        };
        format!("{} files, {scanned} seen, {sent} sent{errors}", get(&progress.files))
    }
}

/// The result, for people or programs.
pub fn tell(context: &Context, report: &RunReport) {
    let figures = &report.figures;
    if context.global.json {
        let errors: Vec<_> = figures
            .errors
            .iter()
            .map(|(path, error)| json!({ "path": path.to_string_lossy(), "error": error }))
            .collect();
        let not_kept: serde_json::Map<String, serde_json::Value> =
            figures.not_kept.iter().map(|(kind, count)| (kind.clone(), json!(count))).collect();
        output::json(&json!({
            "snapshot": report.snapshot.map(|id| id.to_string()),
            "root": report.root.map(|id| id.to_string()),
            "client": report.client,
            "files": report.totals.files,
            "dirs": report.totals.dirs,
            "files_new": figures.files_new,
            "files_changed": figures.files_changed,
            "files_unmodified": figures.files_unmodified,
            "bytes_scanned": figures.bytes_scanned,
            "bytes_read": figures.bytes_read,
            "bytes_sent": figures.bytes_sent,
            "bytes_stored": report.bytes_stored,
            "objects_new": report.objects_new,
            "objects_known": figures.objects_known,
            "duration_ms": report.duration_ms,
            "not_kept": not_kept,
            "errors": errors,
        }));
    }
    for (path, why) in figures.errors.iter().take(NAMED_MAX) {
        output::complain(&format!("not read: {}: {why}", path.display()));
    }
    if figures.errors.len() > NAMED_MAX {
        output::complain(&format!("and {} more; --json names all", figures.errors.len() - NAMED_MAX));
    }
    if context.global.json {
        return;
    }
    let (new, changed, unmodified) = (figures.files_new, figures.files_changed, figures.files_unmodified);
    match report.snapshot.map(|id| id.to_string()) {
        Some(id) => output::line(&format!("snapshot {} of {}", &id[..12], report.client)),
        None => output::line("dry run: nothing was sent"),
    }
    output::line(&format!("  files    {new} new, {changed} changed, {unmodified} unmodified"));
    let (scanned, read) = (output::bytes(figures.bytes_scanned), output::bytes(figures.bytes_read));
    let (sent, stored) = (output::bytes(figures.bytes_sent), output::bytes(report.bytes_stored));
    output::line(&format!("  bytes    {scanned} seen, {read} read, {sent} sent, {stored} stored"));
    if !figures.not_kept.is_empty() {
        let kinds: Vec<String> =
            figures.not_kept.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        output::line(&format!("  not kept {}", kinds.join(", ")));
    }
    let seconds = report.duration_ms as f64 / 1_000.0;
    output::line(&format!("  time     {seconds:.1} s"));
}
