//! `prune`.

use std::process::ExitCode;

use backhaul_schedule::policy::units;
use backhaul_server::chores::{Chore, prune};
use backhaul_store::reserve;

use super::chore::{ask, server_only};
use super::{Context, Done};
use crate::failure::Failure;
use crate::output;

pub async fn run(context: &Context, dry_run: bool, limit: Option<&str>) -> Done {
    let home = server_only(context)?;
    let wrong = |text: &str| Failure::usage(format!("--limit {text:?} is no rate; an example is 20MB"));
    let limit = limit.map(|text| units::size(text).filter(|rate| *rate > 0).ok_or_else(|| wrong(text)));
    if !dry_run {
        reserve::make_room(&home.vault_dir())?;
    }
    let chore = Chore::Prune(prune::Request { dry_run, limit: limit.transpose()? });
    let (words, document) = ask(context, &home, &chore).await?;
    match context.global.json {
        true => output::json(&document),
        false => output::line(&words),
    }
    Ok(ExitCode::SUCCESS)
}
