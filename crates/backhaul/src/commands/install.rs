//! `server install`, `agent install`: systemd units.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use backhaul_agent::home::AgentHome;
use backhaul_server::home::ServerHome;
use serde_json::json;

use super::{Context, Done, rustix_uid_is_root};
use crate::cli::InstallArgs;
use crate::failure::Failure;
use crate::output;

/// Where an administrator's units are.
const SYSTEM_UNITS: &str = "/etc/systemd/system";

/// What either daemon can live with, whoever runs it.
const HARDENING: &str = "NoNewPrivileges=yes\nLockPersonality=yes\nRestrictRealtime=yes\n";

/// What the system's manager can do besides. Nothing here hides a file: the agent has to read all of them, and the
/// server's alert command may be anywhere.
const SYSTEM_HARDENING: &str = "ProtectKernelModules=yes\nProtectKernelTunables=yes\nProtectKernelLogs=yes\n\
    ProtectControlGroups=yes\nProtectHostname=yes\nSystemCallArchitectures=native\n\
    RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK\n";

/// The server writes to its home, and no set-uid file anywhere. The agent may: it restores them.
const SERVER_HARDENING: &str = "UMask=0077\nRestrictSUIDSGID=yes\n";

/// Of the system's agent: it mounts snapshots of file systems where only it sees them.
const AGENT_HARDENING: &str = "RestrictNamespaces=mnt\n";

/// Backups give way to whatever the machine is there for.
const AGENT_PRIORITY: &str =
    "Nice=10\nCPUWeight=20\nIOSchedulingClass=best-effort\nIOSchedulingPriority=7\nIOWeight=20\n";

/// One daemon, as systemd is to run it.
struct Daemon {
    /// The unit is called backhaul-ROLE.
    role: &'static str,
    description: &'static str,
    /// The file without which there is nothing to run.
    config: PathBuf,
    arguments: Vec<String>,
    /// Lines of the unit's own.
    more: String,
    /// What makes the home, if there is none yet.
    first: Option<&'static str>,
}

pub fn server(context: &Context, args: &InstallArgs) -> Done {
    let home = ServerHome::at(&context.home);
    let mut more = SERVER_HARDENING.to_owned();
    if !args.user {
        let home = quote(&format!("-{}", text(&context.home)?));
        more.push_str(&format!("RestrictNamespaces=yes\nProtectSystem=full\nReadWritePaths={home}\n"));
    }
    let daemon = Daemon {
        role: "server",
        description: "Backhaul server: the vaults and the schedule",
        config: home.dir().join("config.toml"),
        arguments: vec!["server".to_owned(), "run".to_owned()],
        more,
        first: (!home.exists()).then_some("server init"),
    };
    install(context, args, &daemon)
}

pub fn agent(context: &Context, args: &InstallArgs, listen: Option<SocketAddr>) -> Done {
    let mut arguments = vec!["agent".to_owned(), "run".to_owned()];
    let more = if args.user { String::new() } else { AGENT_HARDENING.to_owned() };
    arguments.extend(listen.iter().flat_map(|address| ["--listen".to_owned(), address.to_string()]));
    let daemon = Daemon {
        role: "agent",
        description: "Backhaul agent: this machine's backups",
        config: context.home.join("agent/config.toml"),
        arguments,
        more: AGENT_PRIORITY.to_owned() + &more,
        first: (!AgentHome::at(&context.home).exists()).then_some("join CODE"),
    };
    install(context, args, &daemon)
}

fn install(context: &Context, args: &InstallArgs, daemon: &Daemon) -> Done {
    let program = std::env::current_exe()?;
    let unit = unit(&program, &context.home, args.user, daemon)?;
    let name = format!("backhaul-{}.service", daemon.role);
    let systemctl = if args.user { "systemctl --user" } else { "systemctl" };
    let mut next = vec![format!("{systemctl} daemon-reload"), format!("{systemctl} enable --now {name}")];
    if args.user {
        next.push("loginctl enable-linger".to_owned());
    }
    if let Some(first) = daemon.first {
        next.insert(0, format!("{} --home {} {first}", program.display(), context.home.display()));
    }
    let path = match args.print {
        true => None,
        false => Some(write(&folder(args)?, &name, &unit)?),
    };
    if context.global.json {
        output::json(&json!({ "name": name, "path": path, "unit": unit, "next": next }));
        return Ok(ExitCode::SUCCESS);
    }
    match path {
        None => output::line(unit.trim_end()),
        Some(path) => {
            output::line(&format!("wrote {}", path.display()));
            output::line("");
            next.iter().enumerate().for_each(|(i, command)| {
                output::line(&format!("{}{command}", if i == 0 { "next:  " } else { "       " }));
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn folder(args: &InstallArgs) -> Result<PathBuf, Failure> {
    if let Some(dir) = &args.dir {
        return Ok(std::path::absolute(dir)?);
    }
    if !args.user {
        return match rustix_uid_is_root() {
            true => Ok(PathBuf::from(SYSTEM_UNITS)),
            false => Err(Failure::usage(format!("only root may write to {SYSTEM_UNITS}"))
                .hint("--user makes a unit of this user; --print shows it; --dir DIR writes it elsewhere")),
        };
    }
    let config = match (std::env::var_os("XDG_CONFIG_HOME"), std::env::home_dir()) {
        (Some(config), _) => PathBuf::from(config),
        (None, Some(home)) => home.join(".config"),
        (None, None) => return Err(Failure::usage("this user has no home directory: say --dir DIR")),
    };
    Ok(config.join("systemd/user"))
}

fn write(folder: &Path, name: &str, unit: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, unit));
    written.map_err(|error| {
        let hint = "--print shows the unit; --dir DIR writes it elsewhere";
        Failure::from(error).while_doing(format!("writing {}", path.display())).hint(hint)
    })?;
    Ok(path)
}

/// The unit's text.
fn unit(program: &Path, home: &Path, user: bool, daemon: &Daemon) -> Result<String, Failure> {
    let Daemon { role, description, config, arguments, more, .. } = daemon;
    let mut line = vec![quote(text(program)?), "--home".to_owned(), quote(text(home)?).replace('$', "$$")];
    line.extend(arguments.iter().cloned());
    let online = "Wants=network-online.target\nAfter=network-online.target\n";
    let (flag, after, hardening, wanted) = match user {
        true => (" --user", "", "", "default.target"),
        false => ("", online, SYSTEM_HARDENING, "multi-user.target"),
    };
    // A drain takes up to 60 s, and what was written is flushed after it.
    Ok(format!(
        "# Made by `backhaul {role} install{flag}`, which replaces it. Changes of your own go into a drop-in:\n\
         # systemctl{flag} edit backhaul-{role}\n\
         [Unit]\n\
         Description={description}\n\
         {after}\
         ConditionPathExists={config}\n\
         \n\
         [Service]\n\
         Type=notify\n\
         NotifyAccess=main\n\
         ExecStart={start}\n\
         ExecReload=/bin/kill -HUP $MAINPID\n\
         Restart=on-failure\n\
         RestartSec=5\n\
         KillMode=mixed\n\
         TimeoutStopSec=90\n\
         LimitNOFILE=65536\n\
         {more}{HARDENING}{hardening}\
         \n\
         [Install]\n\
         WantedBy={wanted}\n",
        config = text(config)?.replace('%', "%%"),
        start = line.join(" "),
    ))
}

fn text(path: &Path) -> Result<&str, Failure> {
    match path.to_str() {
        Some(text) if !text.contains(['\n', '\r']) => Ok(text),
        _ => Err(Failure::usage(format!("{}: a unit can only name paths in UTF-8", path.display()))),
    }
}

/// One word of a list, as systemd reads them (systemd.syntax(7)); in a command line each `$` is doubled besides.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,=".contains(c);
    if word.chars().all(plain) {
        return word.to_owned();
    }
    let escaped: String = word.chars().fold(String::new(), |mut text, c| {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '%' => text.push_str("%%"),
            _ => text.push(c),
        }
        text
    });
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_are_quoted_as_systemd_reads_them() {
        assert_eq!(quote("/var/lib/backhaul"), "/var/lib/backhaul");
        assert_eq!(quote("/srv/my backups"), "\"/srv/my backups\"");
        assert_eq!(quote("/srv/100% \"$HOME\""), "\"/srv/100%% \\\"$HOME\\\"\"");
    }
}
