//! Commands about what is kept, for whoever runs the server.

use clap::{Args, Subcommand};

#[derive(Subcommand)]
pub enum KeepCommand {
    /// Forget snapshots: hidden at once, gone when the grace of their policy is over
    #[command(
        after_help = "Examples:\n  backhaul forget --policy --dry-run\n  backhaul forget --client desk-01 --keep-daily 7 --keep-weekly 4 --dry-run\n  backhaul forget 3fa9\n  backhaul forget --release-brake --client desk-01"
    )]
    Forget(ForgetArgs),
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
    /// Give back the room of what no snapshot needs any more
    #[command(after_help = "Examples:\n  backhaul prune --dry-run\n  backhaul prune --limit 20MB\n\n\
                      What is not needed is condemned first, and goes with the prune after that: the server does one every night")]
    Prune {
        /// Say what would be done, and change nothing
        #[arg(short = 'n', long)]
        dry_run: bool,
        /// Bytes a second that may be read and written, as 20MB
        #[arg(long, value_name = "RATE")]
        limit: Option<String>,
    },
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

#[derive(Args)]
pub struct ForgetArgs {
    /// Which: ids, or with --client also latest or times
    #[arg(value_name = "SNAPSHOT", conflicts_with_all = ["policy", "release_brake"])]
    pub snapshots: Vec<String>,
    /// Whose (default: everybody's)
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// What the policies do not keep
    #[arg(long)]
    pub policy: bool,
    #[command(flatten)]
    pub keep: KeepArgs,
    /// Say what would be done, and why, and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// You have looked at what a client changed: its snapshots are forgotten by its policy again
    #[arg(long, requires = "client", conflicts_with = "policy")]
    pub release_brake: bool,
}

/// Rules instead of the policies'.
#[derive(Args)]
#[group(conflicts_with_all = ["snapshots", "policy", "release_brake"])]
pub struct KeepArgs {
    /// Keep the newest N
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_last: u32,
    /// Keep the newest of each of N hours
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_hourly: u32,
    /// Keep the newest of each of N days
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_daily: u32,
    /// Keep the newest of each of N weeks
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_weekly: u32,
    /// Keep the newest of each of N months
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_monthly: u32,
    /// Keep the newest of each of N years
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub keep_yearly: u32,
    /// Keep what is not older than this before the newest, as 30d
    #[arg(long, value_name = "TIME")]
    pub keep_within: Option<String>,
    /// Keep what has this label
    #[arg(long, value_name = "TAG")]
    pub keep_tag: Vec<String>,
}
