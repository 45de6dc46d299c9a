//! Stills of btrfs: read-only snapshots in a folder of their own beside all subvolumes, so that no folder of anybody's
//! changes. The top subvolume need not be mounted anywhere: a mount that only the tool sees (`unshare`) leads there.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::detached;
use super::plan::Subvolume;
use super::tool::{Refusal, Tools};

/// The folder in the top subvolume where stills are. It stays, empty, so that the top's own time does not change each day.
pub(super) const FOLDER: &str = ".backhaul-stills";

/// Mounts the top of `$1` at `$2`, where only this process and what it starts see it.
const TOP: &str = "set -e; mount -t btrfs -o subvolid=5 -- \"$1\" \"$2\"; ";
const LIST: &str = "btrfs subvolume list \"$2\"; echo; btrfs subvolume list -r \"$2\"";
/// `$3` the subvolume, `$4` the name. Whoever may write there must not choose where the still goes.
const MAKE: &str = "at=\"$2/.backhaul-stills\"; mkdir -p -m 700 -- \"$at\"; \
    if [ -L \"$at\" ] || [ ! -O \"$at\" ]; then echo 'the folder .backhaul-stills is somebody else'\\''s' >&2; exit 1; fi; \
    exec btrfs subvolume snapshot -r -- \"$2/$3\" \"$at/$4\"";
/// `$3` the name.
const REMOVE: &str =
    "at=\"$2/.backhaul-stills/$3\"; [ ! -e \"$at\" ] || exec btrfs subvolume delete -- \"$at\"";

async fn in_top<T: Tools>(
    tools: &T,
    what: &str,
    device: &str,
    point: &Path,
    more: &[&str],
) -> Result<Vec<u8>, Refusal> {
    let point = point.to_str().ok_or_else(|| Refusal::Said("the home's path is not UTF-8".to_owned()))?;
    let script = format!("{TOP}{what}");
    let args = ["--mount", "--", "sh", "-c", &script, "backhaul", device, point];
    tools.ask("unshare", &[&args, more].concat()).await
}

/// All subvolumes of a device; `point` is a folder to mount over.
pub(super) async fn list<T: Tools>(tools: &T, device: &str, point: &Path) -> Result<Vec<Subvolume>, Refusal> {
    in_top(tools, LIST, device, point, &[]).await.map(|answer| parse(&answer))
}

/// Two lists with an empty line between them: all, and those that are read-only.
fn parse(answer: &[u8]) -> Vec<Subvolume> {
    let mut lines = answer.split(|byte| *byte == b'\n');
    let all: Vec<PathBuf> = lines.by_ref().take_while(|line| !line.is_empty()).filter_map(path_of).collect();
    let fixed: Vec<PathBuf> = lines.filter_map(path_of).collect();
    all.into_iter().map(|path| Subvolume { is_fixed: fixed.contains(&path), path }).collect()
}

/// `ID 257 gen 10 top level 5 path sub/nested`
fn path_of(line: &[u8]) -> Option<PathBuf> {
    const WORD: &[u8] = b" path ";
    if !line.starts_with(b"ID ") {
        return None;
    }
    let at = line.windows(WORD.len()).position(|window| window == WORD)?;
    Some(Path::new(OsStr::from_bytes(&line[at + WORD.len()..])).to_owned())
}

/// Makes one and opens it.
pub(super) async fn make<T: Tools>(
    tools: &T,
    device: &str,
    subvolume: &Path,
    name: &str,
    point: &Path,
) -> Result<OwnedFd, Refusal> {
    let subvolume =
        subvolume.to_str().ok_or_else(|| Refusal::Said("the subvolume's name is not UTF-8".to_owned()))?;
    in_top(tools, MAKE, device, point, &[subvolume, name]).await?;
    let mounted = detached::mount(
        "btrfs",
        device,
        &[("subvol", &format!("/{FOLDER}/{name}"))],
        detached::Journal::None,
    );
    mounted.map_err(|error| Refusal::Said(format!("the still cannot be mounted: {error}")))
}

/// Removes one, if it is there.
pub(super) async fn remove<T: Tools>(
    tools: &T,
    device: &str,
    name: &str,
    point: &Path,
) -> Result<(), Refusal> {
    in_top(tools, REMOVE, device, point, &[name]).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn the_list_is_read_as_the_tool_writes_it() {
        let answer = b"ID 256 gen 10 top level 5 path sub\n\
            ID 259 gen 10 top level 256 path sub/a path b\n\
            a line of somebody's name\n\
            ID 260 gen 10 top level 256 path ro\xff\n\
            \n\
            ID 260 gen 10 top level 256 path ro\xff\n";
        let found = parse(answer);
        let names: Vec<_> = found.iter().map(|one| (one.path.as_os_str().as_bytes(), one.is_fixed)).collect();
        assert_eq!(names, [(&b"sub"[..], false), (b"sub/a path b", false), (b"ro\xff", true)]);
        assert!(parse(b"\n").is_empty() && parse(b"").is_empty());
    }
}
