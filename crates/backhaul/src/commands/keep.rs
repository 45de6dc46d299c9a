//! `pin`, `unpin`, `unforget`.

use std::process::ExitCode;

use backhaul_server::chores::Chore;
use backhaul_server::clock;
use backhaul_server::home::ServerHome;
use backhaul_server::keep::marking::{Request, What};
use backhaul_store::catalog::{Catalog, SnapshotRow};
use backhaul_store::mark::State;

use super::chore::{ask, server_only};
use super::{Context, Done};
use crate::cli::{KeepCommand, SnapshotArgs};
use crate::failure::Failure;
use crate::output;
use crate::selector;

pub async fn run(context: &Context, command: KeepCommand) -> Done {
    match command {
        KeepCommand::Forget(args) => super::forget::run(context, &args).await,
        KeepCommand::Pin { which, reason } => mark(context, What::Pin, &which, reason).await,
        KeepCommand::Unpin(which) => mark(context, What::Unpin, &which, String::new()).await,
        KeepCommand::Unforget(which) => mark(context, What::Unforget, &which, String::new()).await,
        KeepCommand::Prune { dry_run, limit } => super::prune::run(context, dry_run, limit.as_deref()).await,
        KeepCommand::Chores { limit } => super::chore::list(context, limit),
    }
}

async fn mark(context: &Context, what: What, which: &SnapshotArgs, reason: String) -> Done {
    let home = server_only(context)?;
    let among = if what == What::Unforget { Among::Forgotten } else { Among::Listed };
    let snapshots = chosen(&home, which, among)?.iter().map(|row| row.id.to_string()).collect();
    let chore = Chore::Mark(Request { what, snapshots, reason });
    let (words, document) = ask(context, &home, &chore).await?;
    match context.global.json {
        true => output::json(&document),
        false => output::line(&words),
    }
    Ok(ExitCode::SUCCESS)
}

/// Among which snapshots is chosen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Those that are not forgotten.
    Listed,
    /// Those that are.
    Forgotten,
}

/// The snapshots that are meant.
pub fn chosen(home: &ServerHome, which: &SnapshotArgs, among: Among) -> Result<Vec<SnapshotRow>, Failure> {
    let catalog = Catalog::look(&home.vault_dir())?;
    let (mut rows, marks) = (catalog.snapshots()?, catalog.marks()?);
    let forgotten =
        |row: &SnapshotRow| marks.iter().any(|mark| mark.id == row.id && mark.state == State::Forgotten);
    if let Some(name) = &which.client {
        let client = home.fleet()?.require(name)?;
        rows.retain(|row| row.client == client.id);
    }
    let (rows, others): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| forgotten(row) == (among == Among::Forgotten));
    let mut chosen = Vec::new();
    for text in &which.snapshots {
        let is_id = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if which.client.is_none() && !is_id {
            return Err(Failure::usage(format!("{text:?} of which client? say --client NAME"))
                .hint("an id needs none; `backhaul snapshots --client NAME` lists them"));
        }
        let row = match selector::choose(text, &rows, clock::now()) {
            Err(_) if is_id && selector::choose(text, &others, clock::now()).is_ok() => {
                return Err(Failure::usage(match among {
                    Among::Listed => {
                        format!("snapshot {text} is forgotten: `backhaul unforget {text}` first")
                    }
                    Among::Forgotten => format!("snapshot {text} is not forgotten"),
                }));
            }
            Err(_) if rows.is_empty() && among == Among::Forgotten => {
                return Err(Failure::new("no snapshot is forgotten")
                    .hint("`backhaul snapshots --all` lists what is there"));
            }
            found => found?,
        };
        if !chosen.contains(row) {
            chosen.push(row.clone());
        }
    }
    Ok(chosen)
}
