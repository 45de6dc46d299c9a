//! `quickstart`: everything on one machine, through the real session, with proof.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backhaul_agent::home::AgentHome;
use backhaul_agent::run::{Passage, RunReport, RunRequest, push};
use backhaul_archive::restore::{RestoreRequest, verify_restored};
use backhaul_net::join_code::JoinCode;
use backhaul_schedule::policy::DEFAULT_POLICY;
use backhaul_server::alerts::config::Config as Alerts;
use backhaul_server::clock;
use backhaul_server::fleet::{Initiator, Terms};
use backhaul_server::home::{Config, MAIN_VAULT, Nightly, ServerHome};
use backhaul_server::scrub::Config as Scrub;

use super::{Context, Done, absolute, backup, server::host_name};
use crate::failure::{Failure, code};
use crate::output::{self, Progress};
use crate::reader::{Reader, loopback, own_server};

pub async fn run(context: &Context, paths: &[PathBuf]) -> Done {
    let paths = absolute(paths)?;
    if let Some(path) = paths.iter().find(|path| std::fs::symlink_metadata(path).is_err()) {
        return Err(Failure::usage(format!("{}: there is no such file or folder", path.display())));
    }
    let (server_home, agent_home) = (ServerHome::at(&context.home), AgentHome::at(&context.home));
    if !server_home.exists() {
        let config = Config {
            listen: "127.0.0.1:4455".to_owned(),
            names: vec!["127.0.0.1".to_owned()],
            alerts: Alerts::default(),
            scrub: Scrub::default(),
            nightly: Nightly::default(),
        };
        let recovery = server_home.init(&config, clock::now())?;
        output::complain(&format!("made a server in {}", context.home.display()));
        output::complain(&format!("recovery key (not shown again, keep it elsewhere): {}", recovery.words()));
    }
    // A server that runs already is as good as one of our own.
    let server = own_server(&context.home).await?;
    let address = match &server {
        Some(server) => server.address().to_string(),
        None => loopback(&server_home.config()?.listen)?,
    };
    if !agent_home.exists() {
        join(&server_home, &agent_home, &address, &paths).await?;
    }
    let config = agent_home.config()?;
    let passage = Passage { ways: context.ways.clone(), ..Passage::default() };
    let request = RunRequest { paths: paths.clone(), ..RunRequest::of(&config, passage)? };
    let shown = Progress::start(&context.global, backup::describe(&request.progress));
    let pushed = push(&agent_home, &[address], &request).await;
    drop(shown);
    if let Some(server) = server {
        server.stop().await;
    }
    let report = pushed?;
    let compared = prove(context, &report).await?;
    backup::tell(context, &report);
    if !context.global.json {
        output::line(&format!(
            "  proof    {compared} files read back from the vault and compared with the originals: equal"
        ));
        advise(&context.home, &paths);
    }
    Ok(ExitCode::from(if report.figures.errors.is_empty() { 0 } else { code::PARTIAL }))
}

/// Adds this machine as a client of its own server, and joins with the code.
async fn join(
    server: &ServerHome,
    agent: &AgentHome,
    address: &str,
    paths: &[PathBuf],
) -> Result<(), Failure> {
    let mut name: String =
        host_name().chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        name.insert_str(0, "this");
    }
    let terms = Terms {
        initiator: Initiator::CLIENT,
        address: None,
        vault: MAIN_VAULT.to_owned(),
        policy: DEFAULT_POLICY.to_owned(),
        owner: None,
    };
    let (secret, expires_at) = server.fleet()?.add(&name, &terms, clock::now())?;
    let pin = server.authority()?.pin();
    let code = JoinCode { expires_at, pin, secret, client: name, addresses: vec![address.to_owned()] };
    let config = agent.join(&code, paths.to_vec()).await?;
    // Later commands dial where `server run` will listen, not this run's chance port.
    let servers = server.config()?.addresses();
    Ok(agent.write_config(&backhaul_agent::home::Config { servers, ..config })?)
}

/// Reads every file back through a session of its own and compares it with the original.
async fn prove(context: &Context, report: &RunReport) -> Result<u64, Failure> {
    let Some(root) = report.root else { return Err(Failure::new("there is no snapshot to prove")) };
    let reader = Reader::open(&context.home, None, &context.ways).await?;
    let request = RestoreRequest::to(PathBuf::from("/"));
    let compared = tokio::task::block_in_place(|| verify_restored(&reader.remote, root, None, &request));
    reader.close().await;
    let compared = compared?;
    for (path, why) in &compared.errors {
        output::complain(&format!("differs: {}: {why}", path.display()));
    }
    match compared.errors.is_empty() {
        true => Ok(compared.files),
        false => Err(Failure::new(format!("{} files differ from their originals", compared.errors.len()))
            .code(code::DAMAGE)
            .hint("files that changed since the backup began differ, too: run it again")),
    }
}

/// What to type next, ready for a shell.
fn advise(home: &Path, paths: &[PathBuf]) {
    let quoted = |text: String| shlex::try_quote(&text).map(|quoted| quoted.into_owned()).unwrap_or(text);
    let backhaul = format!("backhaul --home {}", quoted(home.display().to_string()));
    let path = paths[0].display();
    output::line("");
    output::line("What next:");
    output::line(&format!("  browse        {backhaul} ls -l {}", quoted(format!("latest:{path}"))));
    output::line(&format!("  restore       {backhaul} restore latest -t ./restored"));
    output::line(&format!("  again         {backhaul} quickstart {}", quoted(path.to_string())));
    output::line(&format!("  next machine  {backhaul} server run"));
    output::line(&format!("                {backhaul} client add NAME"));
    output::line(&format!("  every day     {backhaul} server run, and {backhaul} agent run"));
}
