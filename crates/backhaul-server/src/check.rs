//! The chore of checking the vault, and what it came to, as a document (schemas/output/check.json).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backhaul_object::seal::Unpacker;
use backhaul_object::{Kind, Sealed};
use backhaul_store::StoreError;
use backhaul_store::catalog::SnapshotRow;
use backhaul_store::check::{self, Damage, Depth, Go, Mending, Part, Report, Selection};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::chores::{Outcome, Tools};
use crate::damage::{LongList, LostPaths, describe, lost_paths};
use crate::error::ServerError;
use crate::export;
use crate::export::look::{Newest, look};
use crate::session::OpenVault;

/// How often it is looked whether a check is over, and how many looks there are between two lines of progress.
const LOOK: Duration = Duration::from_millis(20);
const LOOKS: u32 = 25;

/// Which data is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// None: structure only.
    Nothing,
    /// All.
    Everything,
    /// One part of several.
    Part {
        /// From 1.
        part: u64,
        /// How many there are.
        of: u64,
    },
    /// A sample drawn anew each time.
    Sample {
        /// In a million.
        millionths: u64,
    },
}

/// Whether contents are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contents {
    /// Only their packs are looked at.
    Sealed,
    /// Each is decrypted, decompressed and hashed again.
    Opened,
}

/// Whether what is damaged is made good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repair {
    /// It is only named.
    Name,
    /// It is made good.
    Mend,
}

/// What is to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Which data is read.
    pub reading: Reading,
    /// Whether contents are opened.
    pub contents: Contents,
    /// Whether what is damaged is made good.
    pub repair: Repair,
}

impl Request {
    fn to_store(self, now: u64) -> check::Request {
        let depth = match self.reading {
            Reading::Nothing => Depth::Structure,
            Reading::Everything => Depth::ReadData(Selection::All),
            Reading::Part { part, of } => Depth::ReadData(Selection::Part { part, of }),
            Reading::Sample { millionths } => Depth::ReadData(Selection::Sample { millionths, seed: now }),
        };
        let mending = match self.repair {
            Repair::Name => Mending::Look,
            Repair::Mend => Mending::Mend,
        };
        check::Request { depth, mending, now }
    }
}

/// Does it.
///
/// # Errors
/// Catalog or index cannot be used, or the server is about to stop. Damage is what it comes to.
pub fn carry_out(request: &Request, tools: &mut Tools<'_>) -> Result<Outcome, ServerError> {
    let (vault, stop, now) = (tools.vault, tools.stop, tools.now);
    // Who opens contents reads them once more.
    let total = vault.vault.stats()?.bytes_on_disk * if request.contents == Contents::Opened { 2 } else { 1 };
    let done = AtomicU64::new(0);
    let progress = |bytes: u64| {
        done.fetch_add(bytes, Ordering::Relaxed);
        if stop.load(Ordering::Relaxed) { Go::Stop } else { Go::On }
    };
    let report = std::thread::scope(|scope| {
        let checking = scope.spawn(|| run(vault, request, now, &progress));
        let mut looks = 0;
        while !checking.is_finished() {
            std::thread::sleep(LOOK);
            looks += 1;
            if looks % LOOKS == 0 {
                let percent = done.load(Ordering::Relaxed).saturating_mul(100) / total.max(1);
                (tools.progress)(&format!("{} % of {} MiB", percent.min(100), total >> 20));
            }
        }
        checking.join()
    });
    let mut report = report.map_err(|_| ServerError::Session("the check has failed".to_owned()))??;
    let (mut damage, newest) = look(&vault.vault, request.to_store(now).mending, now)?;
    report.damage.append(&mut damage);
    if newest == Newest::Damaged && request.repair == Repair::Mend {
        export::carry_out(tools)?;
    }
    let lost =
        lost_paths(vault, &report, LongList::File(&tools.home.dir().join("lost-paths.jsonl")), &|| {
            if stop.load(Ordering::Relaxed) { Go::Stop } else { Go::On }
        })?;
    Ok(Outcome { words: words(&report, &lost), document: document(request, &report, &lost) })
}

fn run(
    vault: &OpenVault,
    request: &Request,
    now: u64,
    progress: &check::Progress<'_>,
) -> Result<Report, StoreError> {
    let unpacker = Unpacker::new();
    let mut unpacker =
        unpacker.map_err(|why| StoreError::Damaged { what: "zstd".to_owned(), why: why.to_string() })?;
    let mut inspect = |sealed: &Sealed| {
        let object = sealed.unseal(&vault.data_key).map_err(|error| error.to_string())?;
        match object.header.kind {
            Kind::Patch => vault.rebuild(&object, &mut unpacker).map(drop).map_err(|error| error.to_string()),
            _ => object.open(&vault.id_key, &mut unpacker).map(drop).map_err(|error| error.to_string()),
        }
    };
    let inspect: Option<&mut check::Inspect<'_>> = match request.contents {
        Contents::Sealed => None,
        Contents::Opened => Some(&mut inspect),
    };
    vault.vault.check(&request.to_store(now), inspect, progress)
}

/// What it came to, in a line.
pub fn words(report: &Report, lost: &LostPaths) -> String {
    let mended = report.damage.iter().filter(|damage| damage.mended.is_some()).count();
    let found = match (report.damage.len(), mended) {
        (0, _) => "no damage found".to_owned(),
        (all, mended) if all == mended => format!("{all} damaged and repaired"),
        (all, 0) => format!("{all} damaged"),
        (all, mended) => format!("{all} damaged, {mended} of them repaired"),
    };
    let paths = match lost.count {
        0 => String::new(),
        n => format!(", {n} paths lost"),
    };
    format!("{} packs, {} objects, {found}{paths}", report.packs, report.objects)
}

fn document(request: &Request, report: &Report, lost: &LostPaths) -> Value {
    let damage = |damage: &Damage| json!({ "what": damage.what.to_string(), "why": damage.why, "repaired": damage.mended });
    // Seconds here: whoever shows it makes a time of it.
    let snapshot = |row: &SnapshotRow| json!({ "id": row.id.to_string(), "client": row.client_name, "time": row.server_time });
    json!({
        "packs": report.packs, "packs_read": report.packs_read, "objects": report.objects, "bytes": report.bytes,
        "read_data": request.reading != Reading::Nothing, "rebuilt": null, "unprotected": report.unprotected,
        "quarantine": { "files": report.aside.files, "bytes": report.aside.bytes },
        "orphan_sidecars": report.aside.orphans,
        "damage": report.damage.iter().map(damage).collect::<Vec<_>>(),
        "snapshots_affected": report.affected.iter().map(snapshot).collect::<Vec<_>>(),
        "lost": lost.paths.iter().map(describe).collect::<Vec<_>>(), "lost_count": lost.count, "lost_list": lost.list,
        "rebuild_advised": needs_rebuild(report), "sound": report.is_sound(),
    })
}

/// True when index or catalog are not what the packs say.
pub fn needs_rebuild(report: &Report) -> bool {
    report.damage.iter().filter(|damage| damage.mended.is_none()).any(|damage| match &damage.what {
        Part::Index => true,
        Part::File(name) => name.as_str() == "catalog.sqlite" || name.starts_with("packs/"),
        Part::Pack(_) | Part::Parity(_) | Part::Object(_) => false,
    })
}
