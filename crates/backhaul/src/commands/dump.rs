//! `dump`: a file, or a folder as an archive, to a stream.

use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{BufWriter, IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;

use backhaul_archive::browse::{Located, Tree};
use backhaul_archive::dump::dump_file;
use backhaul_archive::export::{Form, LeftOut, export};

use super::{Context, Done};
use crate::cli::{ArchiveArg, ReadArgs};
use crate::failure::{Failure, code};
use crate::output;
use crate::reader::Reader;
use crate::selector;

pub async fn run(
    context: &Context,
    what: &OsStr,
    archive: Option<ArchiveArg>,
    output: Option<&Path>,
    read: &ReadArgs,
) -> Done {
    let (snapshot, path) = selector::split(what);
    let form = archive.map(|form| match form {
        ArchiveArg::Tar => Form::Tar,
        ArchiveArg::Zip => Form::Zip,
    });
    if form.is_none() && path.is_none() {
        return Err(Failure::usage("say which file: SNAPSHOT:PATH; --archive tar writes all of it"));
    }
    if form.is_some() && output.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::usage("an archive is nothing for a terminal: say -o FILE, or pipe it on"));
    }
    let reader = Reader::open(&context.home, read.client.as_deref(), &context.ways).await?;
    let dumped =
        tokio::task::block_in_place(|| write(&reader, &snapshot, path.unwrap_or(b"/"), form, output));
    reader.close().await;
    let left_out = dumped.map_err(|failure| failure.while_doing(format!("dumping {}", what.display())))?;
    for (path, why) in &left_out {
        output::complain(&format!("left out: {}: {why}", String::from_utf8_lossy(path)));
    }
    Ok(ExitCode::from(if left_out.is_empty() { 0 } else { code::PARTIAL }))
}

fn write(
    reader: &Reader,
    snapshot: &str,
    path: &[u8],
    form: Option<Form>,
    output: Option<&Path>,
) -> Result<Vec<LeftOut>, Failure> {
    let snapshot = reader.choose(snapshot, Some(path))?;
    let tree = Tree::new(&reader.remote, snapshot.manifest.root);
    let located = tree.lookup(path)?;
    let pour = |mut out: &mut dyn Write| match (form, &located) {
        (Some(form), _) => Ok(export(&reader.remote, &tree, path, form, out)?),
        (None, Located::Entry(entry)) if !entry.is_folder() => {
            dump_file(&reader.remote, entry, &mut out)?;
            Ok(Vec::new())
        }
        (None, _) => Err(Failure::usage("that is a folder")
            .hint("--archive tar (or zip) writes all of it; `backhaul restore` brings folders back")),
    };
    match output {
        Some(path) => into_file(path, pour),
        None => buffered(std::io::stdout().lock(), pour),
    }
}

fn buffered<T>(
    out: impl Write,
    pour: impl FnOnce(&mut dyn Write) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut out = BufWriter::new(out);
    let done = pour(&mut out)?;
    out.flush()?;
    Ok(done)
}

fn mode(bits: u32) -> Permissions {
    Permissions::from_mode(bits)
}

fn refused(path: &Path, error: &std::io::Error) -> Failure {
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => "its folder is not there".to_owned(),
        kind => kind.to_string(),
    };
    Failure::new(format!("{} cannot be written: {why}", path.display()))
        .hint("say -o with a file in a folder that is there and may be written to; without -o it goes to standard output")
}

/// What is there stays until all of the new is, and the new is as private as that; a pipe or a device is written to as it
/// comes, and so is what cannot be replaced.
fn into_file<T>(path: &Path, pour: impl FnOnce(&mut dyn Write) -> Result<T, Failure>) -> Result<T, Failure> {
    let refused = |error: std::io::Error| refused(path, &error);
    let there = std::fs::metadata(path).ok();
    let is_file = there.as_ref().is_none_or(std::fs::Metadata::is_file);
    // `/dev/stdout` may be a file of somebody who has more to say in it.
    let is_stream = path.starts_with("/dev") || path.starts_with("/proc");
    let leads_nowhere = there.is_none() && path.is_symlink();
    if !is_file || is_stream || leads_nowhere {
        let appends = is_file && is_stream;
        return buffered(
            File::options()
                .write(true)
                .append(appends)
                .create(true)
                .truncate(false)
                .open(path)
                .map_err(refused)?,
            pour,
        );
    }
    // The file that a link leads to, not the link.
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let part = tempfile::Builder::new()
        .prefix(".backhaul-")
        .suffix(".part")
        .permissions(mode(0o666))
        .tempfile_in(folder);
    let mut part = match (part, &there) {
        (Err(_), Some(_)) => return buffered(File::create(path).map_err(refused)?, pour),
        (part, _) => part.map_err(refused)?,
    };
    if let Some(there) = there {
        // Before anything is in it. Whoever may not give it to somebody keeps it.
        part.as_file().set_permissions(mode(0o600))?;
        let _ = std::os::unix::fs::fchown(&part, Some(there.uid()), Some(there.gid()));
        part.as_file().set_permissions(there.permissions())?;
    }
    let done = buffered(part.as_file_mut(), pour)?;
    part.as_file().sync_all()?;
    part.persist(path).map_err(|error| error.error)?;
    Ok(done)
}
