//! Commands about what is kept, for whoever runs the server.

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum KeepCommand {
    /// Keep snapshots whatever the policy says
    #[command(after_help = "Example:\n  backhaul pin latest --client desk-01 --reason 'before the move'")]
    Pin {
        #[command(flatten)]
        which: SnapshotArgs,
        /// Why, for whoever reads it later
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Let the policy decide about snapshots again
    #[command(after_help = "Example:\n  backhaul unpin 3fa9")]
    Unpin(SnapshotArgs),
    /// Have forgotten snapshots back, while they are still there
    #[command(after_help = "Example:\n  backhaul snapshots --all --client desk-01\n  backhaul unforget 3fa9")]
    Unforget(SnapshotArgs),
    /// What the server did besides backing up: for an operator, and by night
    #[command(after_help = "Example:\n  backhaul chores --limit 10")]
    Chores {
        /// How many, the newest ones
        #[arg(long, value_name = "N", default_value_t = 20)]
        limit: usize,
    },
}

#[derive(Args)]
pub struct SnapshotArgs {
    /// Which: ids, or with --client also latest or times
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub snapshots: Vec<String>,
    /// Whose
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
}
