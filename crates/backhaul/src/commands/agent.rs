//! `join`, `agent run`, `agent status`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use backhaul_agent::daemon::AgentDaemon;
use backhaul_agent::home::AgentHome;
use backhaul_agent::run::RunReport;
use backhaul_agent::signals::Senses;
use backhaul_agent::ways::Ways;
use backhaul_agent::{AgentError, Remote, run as runs};
use backhaul_net::join_code::JoinCode;
use backhaul_object::snapshot::Origin;
use serde_json::json;

use super::{Context, Done, absolute, client, server::notify_systemd};
use crate::failure::Failure;
use crate::output;

pub async fn join(context: &Context, code: &str, paths: &[PathBuf]) -> Done {
    let code: JoinCode = code.parse()?;
    let paths = absolute(paths)?;
    for path in paths.iter().filter(|path| std::fs::symlink_metadata(path).is_err()) {
        output::complain(&format!("warning: {} is not there (yet)", path.display()));
    }
    let home = AgentHome::at(&context.home);
    let doing = || format!("joining as {} with the server at {}", code.client, code.addresses.join(" or "));
    let config = home.join(&code, paths).await.map_err(|error| Failure::from(error).while_doing(doing()))?;
    if context.global.json {
        output::json(&json!({ "client": config.client, "servers": config.servers, "paths": config.paths }));
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("joined {} as {}", config.servers[0], config.client));
    match config.paths.is_empty() {
        true => output::line("next:  backhaul backup PATH..."),
        false => output::line("next:  backhaul backup"),
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn run(context: &Context, listen: Option<SocketAddr>) -> Done {
    let daemon = Arc::new(AgentDaemon::start(&AgentHome::at(&context.home), listen, Arc::new(tell))?);
    // Whoever has read that it is there may end it.
    let stop = crate::interrupt::interrupted();
    match daemon.address()? {
        Some(address) => output::complain(&format!("listening on {address}")),
        None => output::complain("not listening: the server is dialled"),
    }
    notify_systemd("READY=1");
    tokio::select! {
        result = daemon.run(Senses::default()) => result?,
        () = stop => {}
    }
    notify_systemd("STOPPING=1");
    daemon.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// No automatic backups of this machine for a time.
pub fn pause(context: &Context, time: Option<&str>) -> Done {
    let home = AgentHome::at(&context.home);
    let until = client::pause_end(time)?;
    let name = home.config()?.client;
    home.pause(Some(until))?;
    client::tell_pause(context, &name, Some(until));
    Ok(ExitCode::SUCCESS)
}

pub fn resume(context: &Context) -> Done {
    let home = AgentHome::at(&context.home);
    let name = home.config()?.client;
    home.pause(None)?;
    client::tell_pause(context, &name, None);
    Ok(ExitCode::SUCCESS)
}

fn tell(outcome: &Result<RunReport, AgentError>) {
    match outcome {
        Ok(report) => {
            let id = report.snapshot.map(|id| id.to_string()).unwrap_or_default();
            let (files, errors) = (output::count(report.totals.files, "file"), report.figures.errors.len());
            let id = &id[..12.min(id.len())];
            output::complain(&format!("backed up: snapshot {id}, {files}, {errors} not read"));
            for (path, why) in &report.figures.errors {
                output::complain(&format!("  {}: {why}", path.display()));
            }
        }
        Err(error) => output::complain(&format!("backup failed: {error}")),
    }
}

pub async fn status(context: &Context) -> Done {
    let home = AgentHome::at(&context.home);
    let config = home.config()?;
    let newest = newest(&home, &config.servers).await;
    if context.global.json {
        output::json(&json!({
            "client": config.client, "servers": config.servers, "paths": config.paths,
            "reachable": newest.is_ok(),
            "newest": newest.as_ref().ok().copied().flatten().map(output::rfc3339),
            "why": newest.as_ref().err().map(ToString::to_string),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("client   {}", config.client));
    output::line(&format!("server   {}", config.servers.join(", ")));
    let paths: Vec<String> = config.paths.iter().map(|path| path.display().to_string()).collect();
    output::line(&format!("paths    {}", if paths.is_empty() { "-".to_owned() } else { paths.join(" ") }));
    output::line(&match &newest {
        Ok(Some(time)) => format!("newest   {}", output::time(*time)),
        Ok(None) => "newest   none yet".to_owned(),
        Err(error) => format!("newest   unknown: {error}"),
    });
    Ok(ExitCode::SUCCESS)
}

/// When the newest snapshot of files was made, by asking the server.
async fn newest(home: &AgentHome, servers: &[String]) -> Result<Option<u64>, AgentError> {
    let remote = Remote::browse(runs::dial(servers, &home.agent()?).await?, "", &Ways::default()).await?;
    let snapshots = tokio::task::block_in_place(|| remote.snapshots(backhaul_agent::remote::Which::Listed));
    remote.close().await;
    let mut newest_first = snapshots?.into_iter().rev();
    Ok(newest_first.find(|one| one.manifest.origin() == Origin::Files).map(|one| one.server_time))
}
