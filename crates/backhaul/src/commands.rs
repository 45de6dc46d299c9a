//! One module a command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;

use backhaul_agent::remote::Which;
use backhaul_agent::ways::Ways;
use backhaul_archive::mount::Audience;
use backhaul_server::export::recover::Packs;
use backhaul_server::fleet::Terms;

use crate::cli::{AgentCommand, AlertsCommand, Cli, ClientCommand, Command, PolicyCommand, ServerCommand};
use crate::failure::Failure;

mod agent;
mod alerts;
mod backup;
mod browse;
mod check;
mod chore;
mod client;
mod diff;
mod dump;
mod find;
mod forget;
mod install;
mod keep;
mod mount;
mod plan;
mod policy;
mod prune;
mod quickstart;
mod recover;
mod restore;
mod runs;
mod server;
mod status;

/// What every command gets.
pub struct Context {
    pub home: PathBuf,
    pub global: crate::cli::Global,
    /// Connections under way, for whoever interrupts.
    pub ways: Ways,
}

pub type Done = Result<ExitCode, Failure>;

/// Runs the command that was asked for.
pub async fn run(cli: Cli, ways: Ways) -> Done {
    let home = match &cli.global.home {
        Some(home) => home.clone(),
        None => default_home()?,
    };
    let home = std::path::absolute(home)?;
    let context = &Context { home, global: cli.global, ways };
    match cli.command {
        Command::Quickstart { paths } => quickstart::run(context, &paths).await,
        Command::Server(command) => server_command(context, command).await,
        Command::Client(command) => client_command(context, command).await,
        Command::Policy(command) => policy_command(context, command),
        Command::Join { code, paths } => agent::join(context, &code, &paths).await,
        Command::Agent(AgentCommand::Run { listen, no_listen }) => {
            agent::run(context, (!no_listen).then_some(listen)).await
        }
        Command::Agent(AgentCommand::Install { install, listen }) => {
            install::agent(context, &install, listen)
        }
        Command::Agent(AgentCommand::Pause { time }) => agent::pause(context, time.as_deref()),
        Command::Agent(AgentCommand::Resume) => agent::resume(context),
        Command::Agent(AgentCommand::Status) => agent::status(context).await,
        Command::Backup(args) => backup::run(context, args).await,
        Command::Snapshots { all, read } => {
            browse::snapshots(context, &read, if all { Which::All } else { Which::Listed }).await
        }
        Command::Ls { what, long, recursive, read } => {
            browse::ls(context, &what, browse::Listing { long, recursive }, &read).await
        }
        Command::Find(args) => find::run(context, &args).await,
        Command::Diff { before, after, read } => diff::run(context, &before, &after, &read).await,
        Command::Dump { what, archive, output, read } => {
            dump::run(context, &what, archive, output.as_deref(), &read).await
        }
        Command::Restore(args) => restore::run(context, args).await,
        Command::Mount { dir, allow_other, read } => {
            let audience = if allow_other { Audience::All } else { Audience::Own };
            mount::run(context, &dir, audience, &read).await
        }
        Command::Check(args) => check::run(context, &args).await,
        Command::Keep(command) => keep::run(context, command).await,
        Command::Stats => status::stats(context).await,
        Command::Alerts { command: Some(AlertsCommand::Test), .. } => alerts::test(context).await,
        Command::Alerts { all, command: None } => alerts::list(context, all),
        Command::Status { check } => status::status(context, check),
        Command::Runs { client, limit, follow } => {
            runs::runs(context, client.as_deref(), limit, follow).await
        }
        Command::Plan { until } => plan::plan(context, until.as_deref()),
        Command::Explain { name, what_if } => plan::explain(context, &name, &what_if),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "backhaul", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { directory } => man(&directory),
    }
}

async fn server_command(context: &Context, command: ServerCommand) -> Done {
    match command {
        ServerCommand::Init { listen, name } => server::init(context, listen, name),
        ServerCommand::Run { listen } => server::run(context, listen).await,
        ServerCommand::Export { copy_to } => recover::export(context, copy_to.as_deref()).await,
        ServerCommand::Recover { dir, recovery_key_file, packs_are_lost } => {
            let packs = if packs_are_lost { Packs::Lost } else { Packs::Expected };
            recover::recover(context, &dir, &recovery_key_file, packs)
        }
        ServerCommand::Install(args) => install::server(context, &args),
    }
}

async fn client_command(context: &Context, command: ClientCommand) -> Done {
    match command {
        ClientCommand::Add { name, initiator, address, policy, vault, owner } => {
            let owner = owner.filter(|owner| !owner.is_empty());
            client::add(context, &name, &Terms { initiator, address, vault, policy, owner })
        }
        ClientCommand::Edit { name, initiator, address, policy, owner } => {
            client::edit(context, &name, initiator, address, policy, owner)
        }
        ClientCommand::List => client::list(context),
        ClientCommand::Show { name } => client::show(context, &name),
        ClientCommand::Run { names, wait } => client::run(context, &names, wait).await,
        ClientCommand::Nudge { name } => client::nudge(context, &name),
        ClientCommand::Pause { name, time } => client::pause(context, &name, time.as_deref()),
        ClientCommand::Resume { name } => client::resume(context, &name),
        ClientCommand::Replace { name } => client::replace(context, &name),
        ClientCommand::Revoke { name } => client::revoke(context, &name),
    }
}

fn policy_command(context: &Context, command: PolicyCommand) -> Done {
    match command {
        PolicyCommand::List => policy::list(context),
        PolicyCommand::Show { name } => policy::show(context, name.as_deref()),
        PolicyCommand::Resume => policy::resume(context),
        PolicyCommand::Apply { file, dry_run } => policy::apply(context, &file, dry_run),
    }
}

/// The walk of a deep tree holds a descriptor for each level.
pub fn raise_file_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    // With the lower limit only very deep trees suffer, and they are named.
    let _ = rustix::process::setrlimit(
        rustix::process::Resource::Nofile,
        rustix::process::Rlimit { current: limit.maximum, ..limit },
    );
}

fn default_home() -> Result<PathBuf, Failure> {
    if rustix_uid_is_root() {
        return Ok(PathBuf::from("/var/lib/backhaul"));
    }
    if let Some(state) = std::env::var_os("XDG_STATE_HOME") {
        return Ok(Path::new(&state).join("backhaul"));
    }
    match std::env::home_dir() {
        Some(home) => Ok(home.join(".local/state/backhaul")),
        None => Err(Failure::usage("this user has no home directory: say --home DIR")),
    }
}

fn rustix_uid_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Paths as the agent wants them.
fn absolute(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let one = |path: &PathBuf| {
        let follows = path.as_os_str().as_encoded_bytes().ends_with(b"/");
        if !follows && std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) {
            let path = path.display();
            crate::output::complain(&format!(
                "warning: {path} is a symbolic link and is saved as such; {path}/ is what it leads to"
            ));
        }
        // The last name may be a link, which is saved as such; what leads to it is resolved.
        let whole = std::path::absolute(path)?;
        match (whole.parent(), whole.file_name()) {
            (Some(parent), Some(name)) if !follows && !path.ends_with(".") && !path.ends_with("..") => {
                let parent = std::fs::canonicalize(parent)
                    .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
                Ok(parent.join(name))
            }
            _ => std::fs::canonicalize(path)
                .map_err(|error| Failure::usage(format!("{}: {error}", path.display()))),
        }
    };
    paths.iter().map(one).collect()
}

fn man(directory: &Path) -> Done {
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory).map(drop));
    let doing = || format!("writing man pages into {}", directory.display());
    written.map_err(|error| {
        Failure::from(error).while_doing(doing()).hint("choose a folder that you may write")
    })?;
    Ok(ExitCode::SUCCESS)
}
