//! Results go to stdout, everything else to stderr.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::Global;

/// Before this nobody needs to see progress.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a terminal is updated, and a log file.
const TICK: Duration = Duration::from_millis(200);
const LINE: Duration = Duration::from_secs(10);

/// Logs go to stderr; RUST_LOG overrides the flags.
pub fn start_log(global: &Global) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        // What it warns of is a mount that somebody else has ended.
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(format!("{level},fuser=error")));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(colours).with_target(false).init();
}

/// A line of a result. A closed pipe (`| head`) ends the program quietly; a full disk does not.
pub fn line(text: &str) {
    let mut out = anstream::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            std::process::exit(0);
        }
        complain(&format!("backhaul: cannot write the result: {error}"));
        std::process::exit(1);
    }
}

/// A line for people, beside the result.
pub fn complain(text: &str) {
    // If stderr is gone there is nobody to tell.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// One JSON document.
pub fn json(document: &impl Serialize) {
    match serde_json::to_string_pretty(document) {
        Ok(text) => line(&text),
        Err(error) => complain(&format!("backhaul: cannot write JSON: {error}")),
    }
}

/// Rows under a heading, without lines, as other tools' output.
pub fn table(head: &[&str], rows: Vec<Vec<String>>) {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for text in table.to_string().lines() {
        line(text.trim_end());
    }
}

/// So many of something.
pub fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Bytes for people: three digits and a binary unit.
pub fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// Seconds since 1970 as local time.
pub fn time(seconds: impl TryInto<i64>) -> String {
    match jiff::Timestamp::from_second(seconds.try_into().unwrap_or(i64::MAX)) {
        Ok(at) => at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => "beyond 9999".to_owned(),
    }
}

/// The same as a name that is also a SNAPSHOT.
pub fn stamp(seconds: u64) -> String {
    time(seconds).replace(' ', "T")
}

/// Seconds since 1970 as JSON wants them.
pub fn rfc3339(seconds: impl TryInto<i64>) -> String {
    jiff::Timestamp::from_second(seconds.try_into().unwrap_or(i64::MAX))
        .map_or_else(|_| String::new(), |at| at.to_string())
}

/// A running display of what `describe` says; ends when dropped.
pub struct Progress {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Starts to show, on a terminal as one moving line, elsewhere as a line now and then; not with `-q`.
    pub fn start(global: &Global, describe: impl Fn() -> String + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        if global.quiet {
            return Self { over, thread: None };
        }
        let flag = Arc::clone(&over);
        let thread = std::thread::spawn(move || match std::io::stderr().is_terminal() {
            true => show_moving(&flag, &describe),
            false => show_lines(&flag, &describe),
        });
        Self { over, thread: Some(thread) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn show_moving(over: &AtomicBool, describe: &dyn Fn() -> String) {
    std::thread::park_timeout(PATIENCE);
    if over.load(Ordering::Relaxed) {
        return;
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}") {
        bar.set_style(style);
    }
    while !over.load(Ordering::Relaxed) {
        bar.set_message(describe());
        bar.tick();
        std::thread::park_timeout(TICK);
    }
    bar.finish_and_clear();
}

fn show_lines(over: &AtomicBool, describe: &dyn Fn() -> String) {
    while !over.load(Ordering::Relaxed) {
        std::thread::park_timeout(LINE);
        if !over.load(Ordering::Relaxed) {
            complain(&describe());
        }
    }
}
