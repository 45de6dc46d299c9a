//! Stills of what is on a logical volume: a snapshot of the volume, mounted where only this process sees it.

use std::os::fd::OwnedFd;

use super::detached;
use super::tool::{Refusal, Tools};

const SEPARATOR: char = '|';
/// So much of its origin's size a snapshot gets for what changes meanwhile, in percent; with less than half of it there is none.
const ROOM_PERCENT: u64 = 20;

/// A logical volume, as `lvs` tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Volume {
    group: String,
    name: String,
    size: u64,
    /// Free in its group.
    free: u64,
    /// In a thin pool: its snapshots take their room from there.
    is_thin: bool,
}

/// `  vg0|home|-wi-ao----|10737418240|5368709120|`
fn parse(answer: &[u8]) -> Option<Volume> {
    let text = std::str::from_utf8(answer).ok()?;
    let fields: Vec<&str> = text.lines().next()?.trim().split(SEPARATOR).collect();
    let [group, name, size, free, pool] = fields[..] else { return None };
    let (group, name) = (group.to_owned(), name.to_owned());
    Some(Volume {
        group,
        name,
        size: size.parse().ok()?,
        free: free.parse().ok()?,
        is_thin: !pool.is_empty(),
    })
}

/// Bytes for a snapshot that is not thin; none when there is too little room.
fn room(volume: &Volume) -> Option<u64> {
    let wanted = volume.size.saturating_mul(ROOM_PERCENT) / 100;
    (volume.free >= wanted / 2 && volume.free > 0).then(|| wanted.min(volume.free).max(512) / 512 * 512)
}

/// The volume that a device is.
///
/// # Errors
/// It is none, or there is no `lvs`: in either case nothing is to be said about it.
pub(super) async fn find<T: Tools>(tools: &T, device: &str) -> Result<Volume, Refusal> {
    let columns = "vg_name,lv_name,lv_size,vg_free,pool_lv";
    let format = ["--noheadings", "--separator", "|", "--units", "b", "--nosuffix", "-o", columns];
    let answer = tools.ask("lvs", &[&format[..], &["--", device]].concat()).await?;
    parse(&answer).ok_or_else(|| Refusal::Said(format!("{device} is no logical volume")))
}

/// What a still of a volume will be called, in LVM's words.
pub(super) fn full_name(volume: &Volume, name: &str) -> String {
    format!("{}/{name}", volume.group)
}

/// Makes one and opens it.
pub(super) async fn make<T: Tools>(
    tools: &T,
    volume: &Volume,
    name: &str,
    kind: &str,
) -> Result<OwnedFd, Refusal> {
    let (full, origin) = (full_name(volume, name), format!("{}/{}", volume.group, volume.name));
    let size = match (volume.is_thin, room(volume)) {
        (true, _) => None,
        (false, Some(bytes)) => Some(format!("{bytes}b")),
        (false, None) => {
            let why = format!("no room: {} has {} bytes free", volume.group, volume.free);
            return Err(Refusal::Said(why));
        }
    };
    let mut args = vec!["--yes", "--snapshot", "--name", name, "--setactivationskip", "n"];
    args.extend(size.iter().flat_map(|size| ["--size", size.as_str()]));
    args.extend(["--", &origin]);
    tools.ask("lvcreate", &args).await?;
    let answer = tools.ask("lvs", &["--noheadings", "-o", "lv_path", "--", &full]).await?;
    let device = String::from_utf8_lossy(&answer).trim().to_owned();
    // XFS does not take a second file system of the same id otherwise.
    let options: &[(&str, &str)] = if kind == "xfs" { &[("nouuid", "")] } else { &[] };
    detached::mount(kind, &device, options, detached::Journal::ReadOnly)
        .map_err(|error| Refusal::Said(format!("the still {device} cannot be mounted: {error}")))
}

/// Whether so much has changed meanwhile that a still has lost what it was (`I` in its attributes).
pub(super) async fn is_lost<T: Tools>(tools: &T, full: &str) -> bool {
    let answer = tools.ask("lvs", &["--noheadings", "-o", "lv_attr", "--", full]).await;
    answer.is_ok_and(|answer| answer.trim_ascii().get(4) == Some(&b'I'))
}

/// Removes one.
pub(super) async fn remove<T: Tools>(tools: &T, full: &str) -> Result<(), Refusal> {
    if tools.ask("lvs", &["--noheadings", "-o", "lv_name", "--", full]).await.is_err() {
        return Ok(());
    }
    tools.ask("lvremove", &["--yes", "--", full]).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_snapshot_gets_a_fifth_of_its_origin_or_what_there_is_but_not_too_little() {
        let of = |free: u64, pool: &str| {
            parse(format!("  vg0|home|10737418240|{free}|{pool}\n").as_bytes()).unwrap()
        };
        assert_eq!(room(&of(5_368_709_120, "")), Some(2_147_483_648));
        assert_eq!(room(&of(1_073_741_824, "")), Some(1_073_741_824));
        assert_eq!(room(&of(1_073_741_823, "")), None);
        assert_eq!(room(&of(0, "")), None);
        assert!(of(0, "pool0").is_thin && !of(0, "").is_thin);
        for bad in ["", "\n", "vg0|home", "vg0|home|big|0|", "a|b|1|2|c|d"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
