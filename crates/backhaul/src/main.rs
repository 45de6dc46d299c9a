//! The one binary: arguments, output, exit codes, man pages.
//!
//! - [`cli`]: every command and flag, from which help, man pages and completions are made;
//! - [`commands`]: one module a command; [`failure`]: errors as sentences, hints and exit codes;
//! - [`output`]: stdout for results, stderr for progress; [`selector`]: what SNAPSHOT:PATH means;
//! - [`reader`]: a session for reading, on a client or on the server.

mod cli;
mod commands;
mod failure;
mod output;
mod reader;
mod selector;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    output::start_log(&cli.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failure::Failure::new(format!("cannot start: {error}")).report(false),
    };
    let json = cli.global.json;
    let interrupted = failure::Failure::interrupted();
    let interrupted = match cli.command {
        cli::Command::Restore(_) => {
            interrupted.hint("what is restored stays: the same command goes on from there")
        }
        _ => interrupted,
    };
    commands::raise_file_limit();
    let outcome = runtime.block_on(async {
        if commands::ends_itself(&cli.command) {
            return commands::run(cli).await;
        }
        tokio::select! {
            outcome = commands::run(cli) => outcome,
            () = commands::interrupted() => Err(interrupted),
        }
    });
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    }
}
