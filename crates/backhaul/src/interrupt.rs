//! Ctrl-C and SIGTERM: the first ends a command in order, whatever it is doing, and says how it is carried on; the
//! second ends it where it is.

use std::process::ExitCode;
use std::time::Duration;

use backhaul_agent::ways::Ways;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinError;

use crate::cli::{AgentCommand, Cli, Command, ServerCommand};
use crate::commands::{self, Done};
use crate::failure::Failure;
use crate::output;

/// How long a goodbye may take, and then what else is to be put in order.
const FAREWELL: Duration = Duration::from_secs(3);

/// Waits for Ctrl-C or SIGTERM. Those that come from the call on are heard, before it is first waited, too.
pub fn interrupted() -> impl Future<Output = ()> {
    let heard = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async move {
        let (Ok(mut interrupt), Ok(mut terminate)) = heard else { return std::future::pending().await };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Runs a command, on a thread of its own: some of them block theirs for as long as they work.
pub async fn run(cli: Cli) -> Done {
    let (ways, cut_short, stays) = (Ways::default(), cut_short(&cli.command), stays(&cli.command));
    let (runtime, connections) = (Handle::current(), ways.clone());
    let mut work = tokio::task::spawn_blocking(move || runtime.block_on(commands::run(cli, connections)));
    if stays {
        return ended(work.await);
    }
    tokio::select! {
        outcome = &mut work => return ended(outcome),
        () = interrupted() => {}
    }
    if ways.open().is_empty() {
        // Nobody waits for it.
        return Err(cut_short);
    }
    output::complain("interrupted: tells the server; once more ends at once");
    let in_order = async {
        ways.leave("it was interrupted", FAREWELL).await;
        tokio::time::timeout(FAREWELL, &mut work).await
    };
    tokio::select! {
        outcome = in_order => match outcome {
            // It has come to its end all the same.
            Ok(Ok(Ok(code))) => Ok(code),
            _ => Err(cut_short),
        },
        () = interrupted() => Err(cut_short),
    }
}

/// What stays until it is told to end does so in its own way.
fn stays(command: &Command) -> bool {
    matches!(
        command,
        Command::Server(ServerCommand::Run { .. })
            | Command::Agent(AgentCommand::Run { .. })
            | Command::Mount { .. }
    )
}

fn cut_short(command: &Command) -> Failure {
    let interrupted = Failure::interrupted();
    match command {
        Command::Backup(_) | Command::Quickstart { .. } => {
            interrupted.hint("what was already sent is kept: run the same command again to carry on")
        }
        Command::Restore(_) => {
            interrupted.hint("what is restored stays: the same command goes on from there")
        }
        _ => interrupted,
    }
}

fn ended(outcome: Result<Result<ExitCode, Failure>, JoinError>) -> Done {
    outcome.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        Err(error) => Err(Failure::new(format!("the command was given up: {error}"))),
    })
}
