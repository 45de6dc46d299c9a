//! What commands take that look into snapshots and bring files back.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Args)]
pub struct ReadArgs {
    /// On the server: whose snapshots
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
}

#[derive(Args)]
pub struct FindArgs {
    /// *, ?, [a-z]; with a / it is held against the whole path
    pub pattern: String,
    /// Which snapshot
    #[arg(long, default_value = "latest")]
    pub snapshot: String,
    /// In every snapshot; each version of a file once, with the newest snapshot that has it
    #[arg(long, conflicts_with = "snapshot")]
    pub all: bool,
    /// Of this size or more, as 1MB
    #[arg(long, value_name = "SIZE")]
    pub larger_than: Option<String>,
    /// Of this size or less
    #[arg(long, value_name = "SIZE")]
    pub smaller_than: Option<String>,
    /// Changed at this time or later, as 2026-11-23 or 3d\ ago
    #[arg(long, value_name = "TIME")]
    pub newer: Option<String>,
    /// Changed at this time or before
    #[arg(long, value_name = "TIME")]
    pub older: Option<String>,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Args)]
pub struct RestoreArgs {
    /// SNAPSHOT[:PATH]
    pub what: OsString,
    /// Where to; with :PATH its contents land right there
    #[arg(short, long, value_name = "DIR")]
    pub target: PathBuf,
    /// Only what matches, with all that is in it, by the rules of .gitignore
    #[arg(short, long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Not what matches
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Count, and write nothing; with -v each thing is named
    #[arg(long)]
    pub dry_run: bool,
    /// Remove from the restored folders what the snapshot does not have (what --exclude matches stays)
    #[arg(long)]
    pub delete: bool,
    /// Read everything back and compare it with the vault
    #[arg(long)]
    pub verify: bool,
    /// What happens to files that are already there
    #[arg(long, value_enum, default_value_t = OverwriteArg::IfChanged)]
    pub overwrite: OverwriteArg,
    /// Write what differs right into large files that are there: no room for a second copy is taken, and if it is interrupted they are
    /// half old and half new until it is done again
    #[arg(long, conflicts_with = "to_client")]
    pub in_place: bool,
    /// On the server: have another client restore it on its machine, if the owner of that allows it; --client says whose snapshot it is
    #[arg(long, value_name = "NAME", requires = "client")]
    pub to_client: Option<String>,
    #[command(flatten)]
    pub read: ReadArgs,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum ArchiveArg {
    Tar,
    Zip,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum OverwriteArg {
    Always,
    IfChanged,
    IfNewer,
    Never,
}
