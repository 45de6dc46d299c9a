//! Arguments of `check`.

use clap::Args;

/// How the vault is checked.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Read and verify every byte
    #[arg(long)]
    pub read_data: bool,
    /// Read and verify a part: 2/7 (the parts together are all), or a sample as 5%
    #[arg(long, value_name = "N/T|P%", conflicts_with = "read_data")]
    pub read_data_subset: Option<String>,
    /// Also decrypt and hash again the content of every object
    #[arg(long)]
    pub verify_content: bool,
    /// Make good what is damaged, from parity and copies; old files go to quarantine/
    #[arg(long)]
    pub repair: bool,
    /// Make catalog and index anew from the packs first; no server may be running
    #[arg(long)]
    pub rebuild_index: bool,
    /// Make them even if most packs are not there, and give up what is in those
    #[arg(long, requires = "rebuild_index")]
    pub packs_are_lost: bool,
    /// Only say how far the server's continuous scrub is
    #[arg(long, conflicts_with_all = ["read_data", "read_data_subset", "verify_content", "repair", "rebuild_index"])]
    pub status: bool,
}
