//! `mount`: snapshots as a read-only file system, until it is unmounted.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use backhaul_archive::mount::{Audience, MountError, examine, mount};

use super::{Context, Done};
use crate::cli::ReadArgs;
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::output;

mod shelves;

use shelves::Shelves;

/// How long those who still read may keep this process.
const FAREWELL: Duration = Duration::from_secs(2);

pub async fn run(context: &Context, dir: &Path, audience: Audience, read: &ReadArgs) -> Done {
    examine(dir)?;
    let shelves = Arc::new(Shelves::open(&context.home, read.client.as_deref()).await?);
    let complain = Arc::new(|text: &str| tracing::warn!("{text}"));
    let mut mounted = mount(Arc::clone(&shelves) as _, dir, audience, complain)?;
    let unmounter = mounted.unmounter();
    let umount = if rustix::process::geteuid().is_root() { "umount" } else { "fusermount3 -u" };
    let dir = dir.display();
    output::complain(&format!("mounted on {dir}; Ctrl-C here or `{umount} {dir}` ends it"));
    let mut serving = tokio::task::spawn_blocking(move || mounted.serve());
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = shelves.rest() => None,
        () = interrupted() => {
            unmounter.unmount().map_err(|error| Failure::from(error).while_doing(format!("unmounting {dir}")))?;
            tokio::time::timeout(FAREWELL, serving).await.ok()
        }
    };
    shelves.close().await;
    match ended {
        Some(Ok(Err(error))) => Err(Failure::from(error).while_doing(format!("serving {dir}"))),
        Some(Err(error)) => Err(Failure::new(format!("serving {dir}: {error}"))),
        Some(Ok(Ok(()))) | None => {
            output::complain(&format!("{dir} is unmounted"));
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let failure = Self::new(error.to_string());
        match error {
            MountError::NoFuse { .. } => failure.hint(
                "`modprobe fuse` loads it; a container must be given /dev/fuse; `backhaul restore` does without",
            ),
            MountError::NotEmpty { .. } => failure.hint("choose an empty folder: what is in it would be hidden"),
            MountError::Point { why, .. } if why.kind() == std::io::ErrorKind::NotFound => {
                failure.hint("make the folder first")
            }
            MountError::Point { path, why } if why.kind() == std::io::ErrorKind::NotConnected => {
                failure.hint(format!("an older mount is still there: `umount {}`", path.display()))
            }
            MountError::Point { .. } => failure,
            MountError::Refused { .. } => failure
                .hint("who is not root needs fusermount3 (package fuse3), and for --allow-other a word in /etc/fuse.conf"),
        }
    }
}
