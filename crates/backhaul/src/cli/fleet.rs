//! Commands about clients and policies, for whoever runs the server.

use std::path::PathBuf;

use clap::Subcommand;

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
        /// Whose machine it is: told when it stays away
        #[arg(long, value_name = "MAIL")]
        owner: Option<String>,
    },
    /// List all clients
    #[command(after_help = "Example:\n  backhaul client list --json")]
    List,
    /// Show one client
    #[command(after_help = "Example:\n  backhaul client show desk-01")]
    Show { name: String },
    /// Back up now: the server dials, or nudges
    #[command(after_help = "Example:\n  backhaul client run desk-01 desk-02 --wait")]
    Run {
        #[arg(required = true)]
        names: Vec<String>,
        /// Wait for the end, and return its exit code
        #[arg(long)]
        wait: bool,
    },
    /// Ask a client to push now
    #[command(after_help = "Example:\n  backhaul client nudge laptop-7")]
    Nudge { name: String },
    /// No automatic backups of a client for a time; one that is under way ends, and can go on later
    #[command(after_help = "Example:\n  backhaul client pause laptop-7 --for 2d")]
    Pause {
        name: String,
        /// How long (default: until it is resumed)
        #[arg(long = "for", value_name = "TIME")]
        time: Option<String>,
    },
    /// Automatic backups of a client again
    #[command(after_help = "Example:\n  backhaul client resume laptop-7")]
    Resume { name: String },
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
        /// Whose machine it is: told when it stays away ('': nobody)
        #[arg(long, value_name = "MAIL")]
        owner: Option<String>,
    },
    /// Print a join code with which another machine takes a client's place, its snapshots and contents included
    #[command(after_help = "Example:\n  backhaul client replace laptop-7")]
    Replace { name: String },
    /// Let a client in no more; its snapshots stay
    #[command(after_help = "Example:\n  backhaul client revoke old-laptop")]
    Revoke { name: String },
}

#[derive(Subcommand)]
pub enum PolicyCommand {
    /// List the policies in force
    #[command(after_help = "Example:\n  backhaul policy list")]
    List,
    /// Show one policy and its clients, or all
    #[command(after_help = "Examples:\n  backhaul policy show lab\n  backhaul policy show --json")]
    Show {
        /// Which one (default: all)
        name: Option<String>,
    },
    /// Let a version whose rollout was halted go on
    #[command(after_help = "Example:\n  backhaul policy resume")]
    Resume,
    /// Put a policy file in force, whole
    #[command(after_help = "Example:\n  backhaul policy apply policies.toml --dry-run")]
    Apply {
        file: PathBuf,
        /// Say what would change for whom, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
}
