//! The one binary: arguments, output, exit codes, man pages.
//!
//! - [`cli`]: every command and flag, from which help, man pages and completions are made;
//! - [`commands`]: one module a command; [`failure`]: errors as sentences, hints and exit codes;
//! - [`interrupt`]: Ctrl-C and SIGTERM, for all of them;
//! - [`output`]: stdout for results, stderr for progress; [`selector`]: what SNAPSHOT:PATH means;
//! - [`reader`]: a session for reading, on a client or on the server.

mod cli;
mod commands;
mod failure;
mod interrupt;
mod output;
mod reader;
mod selector;

use std::process::ExitCode;

use clap::Parser;

/// What the main thread would have: deep trees are walked on others.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    output::start_log(&cli.global);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.enable_all().thread_stack_size(STACK).build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::Failure::new(format!("cannot start: {error}")).report(false),
    };
    let json = cli.global.json;
    commands::raise_file_limit();
    let outcome = runtime.block_on(interrupt::run(cli));
    match &outcome {
        // What it did goes on until the process ends: whatever waits for time to pass would panic without it.
        Err(failure) if failure.is_interrupted() => std::mem::forget(runtime),
        _ => runtime.shutdown_background(),
    }
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    }
}
