//! Every command and flag.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
    #[command(after_help = "Example:\n  backhaul backup /home /etc --exclude '*.tmp' --tag before-upgrade")]
    Backup(BackupArgs),
    /// List snapshots
    #[command(after_help = "Examples:\n  backhaul snapshots\n  backhaul snapshots --client desk-01")]
    Snapshots(ReadArgs),
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
    /// Find names in a snapshot by pattern
    #[command(after_help = "Example:\n  backhaul find '*.odt' --snapshot 3d\\ ago")]
    Find {
        /// *, ?, [a-z]; with a / it is held against the whole path
        pattern: String,
        /// Which snapshot
        #[arg(long, default_value = "latest")]
        snapshot: String,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Write one file of a snapshot to stdout
    #[command(after_help = "Example:\n  backhaul dump latest:/etc/fstab")]
    Dump {
        /// SNAPSHOT:PATH
        what: OsString,
        /// Write here instead
        #[arg(short, long)]
        output: Option<PathBuf>,
        #[command(flatten)]
        read: ReadArgs,
    },
    /// Bring files back
    #[command(
        after_help = "Examples:\n  backhaul restore latest -t /tmp/back\n  backhaul restore latest:/home/ana/letters -t ./letters"
    )]
    Restore(RestoreArgs),
    /// Is everything that snapshots need there and whole?
    #[command(
        after_help = "Examples:\n  backhaul check\n  backhaul check --read-data\n  backhaul check --rebuild-index"
    )]
    Check {
        /// Read and verify every byte
        #[arg(long)]
        read_data: bool,
        /// Make catalog and index anew from the packs first
        #[arg(long)]
        rebuild_index: bool,
    },
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
}

#[derive(Subcommand)]
pub enum ClientCommand {
    /// Add a client and print its one-time join code
    #[command(
        after_help = "Example:\n  backhaul client add desk-01 --initiator server --address desk-01:4456"
    )]
    Add {
        name: String,
        /// Who starts: server (pull), client (push), hybrid or auto
        #[arg(long, default_value = "client")]
        initiator: backhaul_server::fleet::Initiator,
        /// Where its agent listens
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// Which policy
        #[arg(long, default_value = backhaul_schedule::policy::DEFAULT_POLICY)]
        policy: String,
        /// Which vault
        #[arg(long, default_value = backhaul_server::home::MAIN_VAULT)]
        vault: String,
    },
    /// List all clients
    #[command(after_help = "Example:\n  backhaul client list --json")]
    List,
    /// Show one client
    #[command(after_help = "Example:\n  backhaul client show desk-01")]
    Show { name: String },
    /// Back up now: the server dials
    #[command(after_help = "Example:\n  backhaul client run desk-01 desk-02 --wait")]
    Run {
        #[arg(required = true)]
        names: Vec<String>,
        /// Wait for the end, and return its exit code
        #[arg(long)]
        wait: bool,
    },
    /// Change what was said when a client was added
    #[command(after_help = "Example:\n  backhaul client edit desk-01 --policy lab")]
    Edit {
        name: String,
        /// Who starts: server (pull), client (push), hybrid or auto
        #[arg(long)]
        initiator: Option<backhaul_server::fleet::Initiator>,
        /// Where its agent listens
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// Which policy
        #[arg(long)]
        policy: Option<String>,
    },
    /// Let a client in no more; its snapshots stay
    #[command(after_help = "Example:\n  backhaul client revoke old-laptop")]
    Revoke { name: String },
}

#[derive(Subcommand)]
pub enum PolicyCommand {
    /// List the policies in force
    #[command(after_help = "Example:\n  backhaul policy list")]
    List,
    /// Show one policy and its clients
    #[command(after_help = "Example:\n  backhaul policy show lab")]
    Show { name: String },
    /// Put a policy file in force, whole
    #[command(after_help = "Example:\n  backhaul policy apply policies.toml --dry-run")]
    Apply {
        file: PathBuf,
        /// Say what would change for whom, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Subcommand)]
pub enum AgentCommand {
    /// Wait to be dialled by the server, and come to it when a backup is due, until SIGTERM
    #[command(after_help = "Example:\n  backhaul agent run --listen 0.0.0.0:4456")]
    Run {
        /// UDP address to listen on
        #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:4456")]
        listen: std::net::SocketAddr,
    },
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
    /// Leave out what matches
    #[arg(short, long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Stay on the file systems of the paths
    #[arg(short = 'x', long)]
    pub one_file_system: bool,
}

#[derive(Args)]
pub struct ReadArgs {
    /// On the server: whose snapshots
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
}

#[derive(Args)]
pub struct RestoreArgs {
    /// SNAPSHOT[:PATH]
    pub what: OsString,
    /// Where to; with :PATH its contents land right there
    #[arg(short, long, value_name = "DIR")]
    pub target: PathBuf,
    /// Count, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Read everything back and compare it with the vault
    #[arg(long)]
    pub verify: bool,
    /// What happens to files that are already there
    #[arg(long, value_enum, default_value_t = OverwriteArg::IfChanged)]
    pub overwrite: OverwriteArg,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OverwriteArg {
    Always,
    IfChanged,
    IfNewer,
    Never,
}
