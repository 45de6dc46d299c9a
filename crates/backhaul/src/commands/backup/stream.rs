//! What is saved from standard input or a command.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use backhaul_agent::clock;
use backhaul_agent::run::Pour;
use backhaul_archive::backup::stream::Stream;
use backhaul_object::entry::Metadata;

use crate::cli::BackupArgs;
use crate::failure::Failure;

/// The stream that is to be saved, if one is.
pub fn open(args: &BackupArgs) -> Result<Option<Pour>, Failure> {
    let name = args.stdin_filename.clone();
    if name.is_empty() || name.contains('/') {
        return Err(Failure::usage(format!("--stdin-filename {name:?}: say a name without /")));
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mtime_s = i64::try_from(clock::now()).unwrap_or(i64::MAX);
    let metadata = Metadata { mode: 0o600, uid, gid, mtime_s, mtime_ns: 0 };
    let stream = match (args.stdin, args.stdin_from_command) {
        (false, false) => return Ok(None),
        (true, _) => Stream { name, metadata, from: Box::new(std::io::stdin()), end: Box::new(|| Ok(())) },
        (false, true) => {
            let (mut child, from, text) = start(args)?;
            Stream { name, metadata, from, end: Box::new(move || wait(&mut child, &text)) }
        }
    };
    Ok(Some(Arc::new(Mutex::new(Some(stream)))))
}

/// A command that writes, and how it is spoken of.
fn start(args: &BackupArgs) -> Result<(Child, Box<dyn Read + Send>, String), Failure> {
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Failure::usage("say the command after --")
            .hint("as in: backhaul backup --stdin-from-command -- pg_dumpall"));
    };
    let text = program.to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Failure::new(format!("{text}: {error}")))?;
    match child.stdout.take() {
        Some(from) => Ok((child, Box::new(from), text)),
        None => Err(Failure::new(format!("{text}: its output cannot be read"))),
    }
}

fn wait(child: &mut Child, text: &str) -> Result<(), String> {
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{text}: {status}")),
        Err(error) => Err(format!("{text}: {error}")),
    }
}
