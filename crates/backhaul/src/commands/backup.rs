//! `backup`: push now.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backhaul_agent::home::{AgentHome, Config};
use backhaul_agent::remote::{Cost, Limits};
use backhaul_agent::run::{Passage, RunReport, RunRequest, push, rehearse};
use backhaul_agent::sources::Sources;
use backhaul_agent::stills::Still;
use backhaul_archive::backup::BackupProgress;
use backhaul_archive::backup::excludes::read_paths;
use backhaul_proto::wire::Queued;
use backhaul_schedule::policy::units;
use serde_json::json;

use super::{Context, Done, absolute};
use crate::cli::{BackupArgs, StillArg};
use crate::failure::{Failure, code};
use crate::output::{self, Progress};
use crate::reader::own_server;

mod stream;

/// Errors named on a terminal; `--json` names all.
const NAMED_MAX: usize = 50;

pub async fn run(context: &Context, args: BackupArgs) -> Done {
    let home = AgentHome::at(&context.home);
    let config = home.config()?;
    let asked = match args.limit_upload.as_deref() {
        None => None,
        Some(text) => Some(
            units::size(text)
                .ok_or_else(|| Failure::usage(format!("--limit-upload {text:?}: say 500kB, 2MB or 1MiB")))?,
        ),
    };
    let (asked, quiet) = (asked.and_then(NonZeroU64::new), context.global.quiet);
    let wait = move |queued: &Queued| {
        if !quiet {
            let eta = units::about(i64::try_from(queued.eta).unwrap_or(i64::MAX));
            output::complain(&format!("{}; {} before it, about {eta}", queued.why, queued.position));
        }
    };
    let mut paths = absolute(&args.paths)?;
    for file in &args.files_from {
        paths.extend(absolute(&listed(file)?)?);
    }
    let limits = Limits { asked, cost: Cost::Free };
    let passage =
        Passage { limits, waiting: Some(Arc::new(wait)), ways: context.ways.clone(), ..Passage::default() };
    let config = Config { backup: wanted(config.backup, &args), ..config };
    let stream = stream::open(&args)?;
    if stream.is_some() {
        paths = vec![PathBuf::from(&args.stdin_filename)];
    }
    let request = RunRequest { paths, tags: args.tag, stream, ..RunRequest::of(&config, passage)? };
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

/// What the config says, and the command line after it.
fn wanted(mut sources: Sources, args: &BackupArgs) -> Sources {
    sources.exclude.extend(args.exclude.iter().cloned());
    sources.iexclude.extend(args.iexclude.iter().cloned());
    sources.exclude_file.extend(args.exclude_file.iter().cloned());
    sources.exclude_if_present.extend(args.exclude_if_present.iter().cloned());
    sources.exclude_caches = (sources.exclude_caches || args.exclude_caches) && !args.include_caches;
    sources.exclude_nodump &= !args.include_nodump;
    sources.default_excludes &= !args.no_default_excludes;
    sources.one_file_system |= args.one_file_system;
    if let Some(still) = args.still {
        sources.still = match still {
            StillArg::Auto => Still::Auto,
            StillArg::Require => Still::Require,
            StillArg::Off => Still::Off,
        };
    }
    if args.exclude_larger_than.is_some() {
        sources.exclude_larger_than.clone_from(&args.exclude_larger_than);
    }
    sources
}

/// The paths that a file lists.
fn listed(file: &Path) -> Result<Vec<PathBuf>, Failure> {
    let read = match file.as_os_str() == "-" {
        true => read_paths(std::io::stdin().lock()),
        false => std::fs::File::open(file).and_then(read_paths),
    };
    let failed = |error: std::io::Error| Failure::new(format!("--files-from {}: {error}", file.display()));
    match read.map_err(failed)? {
        paths if paths.is_empty() => {
            Err(Failure::usage(format!("--files-from {}: it lists nothing", file.display())))
        }
        paths => Ok(paths),
    }
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

/// The result, for programs.
fn document(report: &RunReport) -> serde_json::Value {
    let figures = &report.figures;
    let errors: Vec<_> = figures
        .errors
        .iter()
        .map(|(path, error)| json!({ "path": path.to_string_lossy(), "error": error }))
        .collect();
    let counts = |counts: &[(String, u64)]| {
        let pairs = counts.iter().map(|(kind, count)| (kind.clone(), json!(count)));
        pairs.collect::<serde_json::Map<String, serde_json::Value>>()
    };
    json!({
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
        "not_kept": counts(&figures.not_kept),
        "left_out": counts(&figures.left_out),
        "stills": report.stills,
        "warnings": report.warnings,
        "errors": errors,
    })
}

/// The result, for people or programs.
pub fn tell(context: &Context, report: &RunReport) {
    let figures = &report.figures;
    if context.global.json {
        output::json(&document(report));
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
    report.warnings.iter().for_each(|warning| output::complain(&format!("warning: {warning}")));
    let (new, changed, unmodified) = (figures.files_new, figures.files_changed, figures.files_unmodified);
    match report.snapshot.map(|id| id.to_string()) {
        Some(id) => output::line(&format!("snapshot {} of {}", &id[..12], report.client)),
        None => output::line("dry run: nothing was sent"),
    }
    output::line(&format!("  files    {new} new, {changed} changed, {unmodified} unmodified"));
    let (scanned, read) = (output::bytes(figures.bytes_scanned), output::bytes(figures.bytes_read));
    let (sent, stored) = (output::bytes(figures.bytes_sent), output::bytes(report.bytes_stored));
    output::line(&format!("  bytes    {scanned} seen, {read} read, {sent} sent, {stored} stored"));
    if !report.stills.is_empty() {
        output::line(&format!("  stills   {}", report.stills.join(", ")));
    }
    for (word, counts) in [("not kept", &figures.not_kept), ("left out", &figures.left_out)] {
        let kinds: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        if !kinds.is_empty() {
            output::line(&format!("  {word} {}", kinds.join(", ")));
        }
    }
    let seconds = report.duration_ms as f64 / 1_000.0;
    output::line(&format!("  time     {seconds:.1} s"));
}
