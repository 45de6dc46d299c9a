//! `server export`, `server recover`.

use std::path::Path;
use std::process::ExitCode;

use backhaul_server::chores::Chore;
use backhaul_server::export::Request;
use backhaul_server::export::recover::{Packs, Rebuilt, Recovered, recover as stand_up};
use backhaul_server::home::ServerHome;
use backhaul_server::keyring::RecoveryKey;
use backhaul_server::{ServerError, clock};
use backhaul_store::StoreError;
use serde_json::json;

use super::chore::{ask, server_only};
use super::{Context, Done};
use crate::failure::Failure;
use crate::output;

pub async fn export(context: &Context, copy_to: Option<&Path>) -> Done {
    let home = server_only(context)?;
    let (words, document) = ask(context, &home, &Chore::Export(Request {})).await?;
    if let (Some(target), Some(path)) = (copy_to, document["path"].as_str()) {
        std::fs::copy(path, target).map_err(|error| {
            Failure::from(error).while_doing(format!("copying {path} to {}", target.display()))
        })?;
    }
    match context.global.json {
        true => output::json(&document),
        false => output::line(&words),
    }
    Ok(ExitCode::SUCCESS)
}

pub fn recover(context: &Context, dir: &Path, key_file: &Path, packs: Packs) -> Done {
    let doing = || format!("recovering a server from {}", dir.display());
    let text = std::fs::read_to_string(key_file)
        .map_err(|error| Failure::from(error).while_doing(format!("reading {}", key_file.display())))?;
    let wrong = || ServerError::WrongRecoveryKey {
        path: dir.to_path_buf(),
        why: "the file holds no 64 hexadecimal digits",
    };
    let hint = "`server init` printed it once, as 8 groups of 8 digits";
    let key = RecoveryKey::parse(&text).ok_or_else(|| Failure::from(wrong()).hint(hint))?;
    let home = ServerHome::at(&context.home);
    let recovered = stand_up(dir, &key, &home, packs, clock::now()).map_err(|error| {
        let are_away = matches!(error, ServerError::Store(StoreError::PacksAway { .. }));
        let failure = Failure::from(error).while_doing(doing());
        match are_away {
            true => {
                failure.hint("is it mounted? then try again; without what is lost goes on --packs-are-lost")
            }
            false => failure,
        }
    })?;
    if context.global.json {
        output::json(&describe(&home, &recovered));
        return Ok(ExitCode::SUCCESS);
    }
    let Recovered { export, made_at, clients, snapshots, .. } = &recovered;
    output::line(&format!("server made in {} from {}", home.dir().display(), export.display()));
    output::line(&format!(
        "as it was at {}: CA, keys, config, policies and clients ({clients})",
        output::time(*made_at)
    ));
    output::line(&format!("snapshots in the vault, which stays in {}: {snapshots}", dir.display()));
    if recovered.rebuilt == Rebuilt::Yes {
        output::line("catalog and index were lost, and made anew");
    }
    for (path, why) in &recovered.damaged {
        output::complain(&format!("warning: a newer export could not be used: {}: {why}", path.display()));
    }
    for name in &recovered.unknown {
        output::complain(&format!(
            "warning: {name} joined after that export: `backhaul client add {name}` makes a new code; its old snapshots stay in the vault"
        ));
    }
    output::line("next:  backhaul server run    (clients come again by themselves, and send nothing twice)");
    Ok(ExitCode::SUCCESS)
}

fn describe(home: &ServerHome, recovered: &Recovered) -> serde_json::Value {
    let damaged = |(path, why): &(std::path::PathBuf, String)| json!({ "path": path, "why": why });
    json!({
        "home": home.dir(), "export": recovered.export, "made_at": output::rfc3339(recovered.made_at),
        "clients": recovered.clients, "snapshots": recovered.snapshots, "unknown_clients": recovered.unknown,
        "damaged_exports": recovered.damaged.iter().map(damaged).collect::<Vec<_>>(),
        "rebuilt": recovered.rebuilt == Rebuilt::Yes,
    })
}
