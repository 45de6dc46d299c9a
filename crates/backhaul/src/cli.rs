//! Every command and flag.

use std::ffi::OsString;
use std::path::PathBuf;

use backhaul_archive::backup::excludes::DEFAULTS;
use clap::{Args, Parser, Subcommand};

mod check;
mod fleet;
mod keep;
mod read;

pub use check::CheckArgs;
pub use fleet::{ClientCommand, PolicyCommand};
pub use keep::{ForgetArgs, KeepArgs, KeepCommand, SnapshotArgs};
pub use read::{ArchiveArg, FindArgs, OverwriteArg, ReadArgs, RestoreArgs};

/// Backups of many machines on one server: deduplicated, compressed, encrypted; started from either side.
#[derive(Parser)]
#[command(name = "backhaul", version, propagate_version = true, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Args, Clone)]
pub struct Global {
    /// All state of this machine's roles (default: /var/lib/backhaul for root, else $XDG_STATE_HOME/backhaul)
    #[arg(long, global = true, env = "BACKHAUL_HOME", value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// One JSON document on stdout
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Log more (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Subcommand)]
pub enum Command {
    /// Make a server and an agent in one home, back paths up, and prove that they restore
    #[command(after_help = "Example:\n  backhaul --home ./demo quickstart ./docs")]
    Quickstart {
        /// What to back up
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Make and run a server
    #[command(subcommand)]
    Server(ServerCommand),
    /// Manage the clients of a server
    #[command(subcommand)]
    Client(ClientCommand),
    /// When clients are backed up
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Enrol this machine with a code from `client add`
    #[command(after_help = "Example:\n  backhaul join bh1-ae4k... /home /etc")]
    Join {
        /// The code that `client add` printed on the server
        code: String,
        /// What to back up by default
        paths: Vec<PathBuf>,
    },
    /// Run the daemon of a client
    #[command(subcommand)]
    Agent(AgentCommand),
    /// Back up now: dial the server and push
    #[command(after_help = backup_help())]
    Backup(BackupArgs),
    /// List snapshots
    #[command(after_help = "Examples:\n  backhaul snapshots\n  backhaul snapshots --client desk-01 --all")]
    Snapshots {
        /// Those that are forgotten and still there, too
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// List what is in a snapshot
    #[command(after_help = "Example:\n  backhaul ls latest:/home/ana -l")]
    Ls {
        /// SNAPSHOT[:PATH]
        #[arg(default_value = "latest")]
        what: OsString,
        /// With mode, owner, size and time
        #[arg(short)]
        long: bool,
        /// With everything below
        #[arg(short = 'R')]
        recursive: bool,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Find names in a snapshot, or in all, by pattern, size and time
    #[command(
        after_help = "Examples:\n  backhaul find '*.odt' --snapshot 3d\\ ago\n  backhaul find 'letter*' --all --newer 30d\\ ago --larger-than 1MB"
    )]
    Find(FindArgs),
    /// What differs between two snapshots
    #[command(
        after_help = "Examples:\n  backhaul diff 1d\\ ago latest\n  backhaul diff 3fa9 latest:/home/ana\n\n\
                      + added, - removed, M other content, U other mode, owner, time or attributes, T another kind"
    )]
    Diff {
        /// The earlier SNAPSHOT
        before: String,
        /// The later SNAPSHOT[:PATH]
        #[arg(default_value = "latest")]
        after: OsString,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Write one file of a snapshot to stdout, or a folder as an archive
    #[command(
        after_help = "Examples:\n  backhaul dump latest:/etc/fstab\n  backhaul dump latest:/home/ana --archive tar | ssh desk tar x"
    )]
    Dump {
        /// SNAPSHOT[:PATH]
        what: OsString,
        /// All that is in the folder, in this form
        #[arg(long, value_enum)]
        archive: Option<ArchiveArg>,
        /// Write here instead
        #[arg(short, long)]
        output: Option<PathBuf>,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Bring files back
    #[command(
        after_help = "Examples:\n  backhaul restore latest -t /tmp/back\n  backhaul restore latest:/home/ana/letters -t ./letters\n  backhaul restore 3d\\ ago -t /tmp/back --include '*.odt'\n  backhaul restore latest:/home/ana -t /home/ana --delete --dry-run -v"
    )]
    Restore(RestoreArgs),
    /// Show snapshots as folders, read-only, until it is unmounted: CLIENT/TIME/... and CLIENT/latest
    #[command(
        after_help = "Examples:\n  backhaul mount /mnt\n  backhaul mount /mnt --client desk-01\n  umount /mnt"
    )]
    Mount {
        /// An empty folder
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// Other users, too, may read what is theirs to read
        #[arg(long)]
        allow_other: bool,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Is everything that snapshots need there and whole?
    #[command(
        after_help = "Examples:\n  backhaul check\n  backhaul check --read-data --repair\n  backhaul check --read-data-subset 1/7\n  backhaul check --status"
    )]
    Check(CheckArgs),
    #[command(flatten)]
    Keep(KeepCommand),
    /// How much the vault holds
    #[command(after_help = "Example:\n  backhaul stats --json")]
    Stats,
    /// The fleet in one table
    #[command(after_help = "Example:\n  backhaul status --check && echo all protected")]
    Status {
        /// Exit 0 when no client is late by its policy, 1 when one is, 2 when one has no snapshot
        #[arg(long)]
        check: bool,
    },
    /// What is wrong now, and who was told
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  backhaul alerts\n  backhaul alerts --all --json\n  backhaul alerts test"
    )]
    Alerts {
        /// Those that are over, too
        #[arg(long)]
        all: bool,
        #[command(subcommand)]
        command: Option<AlertsCommand>,
    },
    /// What was started, and what it came to
    #[command(after_help = "Examples:\n  backhaul runs --client desk-01\n  backhaul runs --follow")]
    Runs {
        /// Of this client only
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
        /// How many, the newest ones
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Go on with a line for each change, until it is interrupted
        #[arg(long)]
        follow: bool,
    },
    /// What will start when, and why
    #[command(after_help = "Examples:\n  backhaul plan\n  backhaul plan --until 2026-11-24T06:00")]
    Plan {
        /// Up to this time, or for so long
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Who should start a client's backups, by its contacts of three weeks, and why
    #[command(
        after_help = "Examples:\n  backhaul explain laptop-7\n  backhaul explain laptop-7 --what-if rpo=4h"
    )]
    Explain {
        name: String,
        /// With another rpo, period or spread
        #[arg(long, value_name = "KEY=VALUE")]
        what_if: Vec<String>,
    },
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  backhaul completions bash > /etc/bash_completion.d/backhaul")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write a man page for every command
    #[command(after_help = "Example:\n  backhaul man /usr/local/share/man/man1")]
    Man {
        /// Where to
        directory: PathBuf,
    },
}

#[derive(Subcommand)]
pub enum ServerCommand {
    /// Make state, private CA, vault and config
    #[command(after_help = "Example:\n  backhaul server init --name backup.example.org")]
    Init {
        /// UDP address to listen on
        #[arg(long, value_name = "ADDR:PORT", default_value = backhaul_server::home::DEFAULT_LISTEN)]
        listen: std::net::SocketAddr,
        /// Name under which clients reach this machine (default: its host name)
        #[arg(long, value_name = "HOSTNAME")]
        name: Vec<String>,
    },
    /// Run in the foreground until SIGTERM
    #[command(after_help = "Example:\n  backhaul server run")]
    Run {
        /// Listen here instead of where the config says
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<std::net::SocketAddr>,
    },
    /// Export what the server is, sealed, into the vault's directory; by night this happens by itself
    #[command(after_help = "Example:\n  backhaul server export --copy-to /mnt/stick/backhaul.export")]
    Export {
        /// Write it here, too
        #[arg(long, value_name = "FILE")]
        copy_to: Option<PathBuf>,
    },
    /// Make a server again from a vault's directory and the recovery key
    #[command(
        after_help = "Example:\n  backhaul server recover /mnt/disk/vaults/main --recovery-key-file ./recovery-key"
    )]
    Recover {
        /// The vault's directory; it stays where it is
        dir: PathBuf,
        /// The file with what `server init` printed
        #[arg(long, value_name = "FILE")]
        recovery_key_file: PathBuf,
        /// Go on even if most packs are not there, and give up what is in those
        #[arg(long)]
        packs_are_lost: bool,
    },
    /// Write the systemd unit, with this home and this program
    #[command(
        after_help = "Examples:\n  backhaul server install\n  backhaul server install --print | less\n  backhaul server install --user"
    )]
    Install(InstallArgs),
}

#[derive(Subcommand)]
pub enum AlertsCommand {
    /// Send a test message through every channel of the config's [alerts], now
    #[command(after_help = "Example:\n  backhaul alerts test")]
    Test,
}

/// Where a systemd unit goes.
#[derive(Args)]
pub struct InstallArgs {
    /// A unit of this user instead of the system
    #[arg(long)]
    pub user: bool,
    /// Print it, and write nothing
    #[arg(long)]
    pub print: bool,
    /// Write it here instead
    #[arg(long, value_name = "DIR", conflicts_with = "print")]
    pub dir: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum AgentCommand {
    /// Wait to be dialled by the server, and come to it when a backup is due, until SIGTERM
    #[command(after_help = "Example:\n  backhaul agent run --listen 0.0.0.0:4456")]
    Run {
        /// UDP address to listen on
        #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:4456")]
        listen: std::net::SocketAddr,
        /// Do not listen: this machine always dials
        #[arg(long, conflicts_with = "listen")]
        no_listen: bool,
    },
    /// Write the systemd unit, with this home and this program
    #[command(
        after_help = "Examples:\n  backhaul agent install\n  backhaul agent install --print --listen 0.0.0.0:4456"
    )]
    Install {
        #[command(flatten)]
        install: InstallArgs,
        /// UDP address to listen on (default: that of `agent run`)
        #[arg(long, value_name = "ADDR:PORT")]
        listen: Option<std::net::SocketAddr>,
    },
    /// No automatic backups of this machine for a time
    #[command(after_help = "Example:\n  backhaul agent pause --for 2h")]
    Pause {
        /// How long (default: until it is resumed)
        #[arg(long = "for", value_name = "TIME")]
        time: Option<String>,
    },
    /// Automatic backups of this machine again
    #[command(after_help = "Example:\n  backhaul agent resume")]
    Resume,
    /// Show what this machine has joined, and whether the server answers
    #[command(after_help = "Example:\n  backhaul agent status")]
    Status,
}

#[derive(Args)]
pub struct BackupArgs {
    /// What to back up (default: what `join` was told)
    pub paths: Vec<PathBuf>,
    /// Look, count, and send nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Label the snapshot
    #[arg(long)]
    pub tag: Vec<String>,
    /// Leave out what matches, by the rules of .gitignore; a later pattern with ! takes back
    #[arg(short, long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// The same, whatever the case of the letters
    #[arg(long, value_name = "PATTERN")]
    pub iexclude: Vec<String>,
    /// Patterns from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub exclude_file: Vec<PathBuf>,
    /// Of a folder with something of this name in it, keep only that
    #[arg(long, value_name = "NAME")]
    pub exclude_if_present: Vec<String>,
    /// Leave out folders marked by CACHEDIR.TAG (as the config says by default)
    #[arg(long, overrides_with = "include_caches")]
    pub exclude_caches: bool,
    /// Keep them
    #[arg(long)]
    pub include_caches: bool,
    /// Leave out larger files, as 2GiB
    #[arg(long, value_name = "SIZE")]
    pub exclude_larger_than: Option<String>,
    /// Keep what `chattr +d` marks
    #[arg(long)]
    pub include_nodump: bool,
    /// Keep caches, trash and swap files of the default list, too
    #[arg(long)]
    pub no_default_excludes: bool,
    /// Further paths, one a line or ended by NUL; - is standard input
    #[arg(long, value_name = "FILE")]
    pub files_from: Vec<PathBuf>,
    /// Save what standard input brings, as one file
    #[arg(long, conflicts_with_all = ["paths", "files_from", "dry_run", "stdin_from_command"])]
    pub stdin: bool,
    /// The name of that file
    #[arg(long, value_name = "NAME", default_value = "stdin")]
    pub stdin_filename: String,
    /// Save what a command writes, given after --; if it fails, there is no snapshot
    #[arg(long, conflicts_with_all = ["files_from", "dry_run"])]
    pub stdin_from_command: bool,
    /// The command
    #[arg(last = true, requires = "stdin_from_command")]
    pub command: Vec<OsString>,
    /// Stay on the file systems of the paths
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
    /// Save from snapshots of the file systems: where there can be some, never, or nothing at all without (default: as the config says, else auto)
    #[arg(long, value_enum, value_name = "WHEN")]
    pub still: Option<StillArg>,
    /// Bytes a second that may be sent, as 2MB
    #[arg(long, value_name = "RATE")]
    pub limit_upload: Option<String>,
}

/// Whether files are saved from snapshots of their file systems.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum StillArg {
    /// Where root runs it and the file system can (btrfs, ZFS, LVM)
    Auto,
    /// No backup without
    Require,
    /// Never
    Off,
}

fn backup_help() -> String {
    format!(
        "Left out by default:\n  {}\n  and what CACHEDIR.TAG or chattr +d marks\n\nExample:\n  \
         backhaul backup /home /etc --exclude '*.tmp' --tag before-upgrade\n  \
         backhaul backup --stdin-filename all.sql --stdin-from-command -- pg_dumpall",
        DEFAULTS.join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use backhaul_server::alerts::{AlertKind, message};
    use clap::Parser;

    /// What a mail tells people to run is something that this program takes.
    #[test]
    fn alerts_name_commands_that_there_are() {
        for kind in AlertKind::ALL {
            for command in message::next(kind, Some("desk-01")) {
                let parsed = super::Cli::try_parse_from(command.split_whitespace());
                assert!(
                    parsed.is_ok(),
                    "{kind}: {command}: {:?}",
                    parsed.err().map(|error| error.to_string())
                );
            }
        }
    }
}
