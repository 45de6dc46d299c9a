//! A disk with bad sectors.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use backhaul_object::{Kind, Sealed};
use rustix::io::Errno;

use crate::blobs::{Blobs, LocalBlobs};
use crate::catalog::Verdict;
use crate::check::{Depth, Go, Mending, Part, Report, Request, Selection};
use crate::error::Doing;
use crate::tests::{Tampered, filled, sealed};
use crate::vault::Vault;
use crate::writer::scan;

/// Reads that touch a bad stretch of a blob fail, as a disk fails them, until a new one has taken its name, in another place
/// of the disk; and the first read after that says `refusal`.
fn opened(root: &Path, blob: &str, bad: Range<u64>, refusal: Option<Errno>) -> Vault {
    let is_moved = Arc::new(AtomicBool::new(false));
    let (blob, moved, refusal) = (blob.to_owned(), Arc::clone(&is_moved), Mutex::new(refusal));
    let adopted = blob.clone();
    let before_read = move |name: &str, offset: u64, len: usize| {
        let is_moved = is_moved.load(Ordering::Relaxed);
        if is_moved && let Some(refusal) = refusal.lock().unwrap().take() {
            return Err(refusal.into()).doing("open", Path::new(name));
        }
        let is_bad = name == blob && !is_moved && offset < bad.end && offset + len as u64 > bad.start;
        let done = if is_bad { Err(Errno::IO.into()) } else { Ok(()) };
        done.doing("read", Path::new(name))
    };
    let before_adopt = move |name: &str| {
        moved.fetch_or(name == adopted, Ordering::Relaxed);
    };
    Tampered::open(root, Box::new(before_read), Box::new(before_adopt))
}

fn mended(vault: &Vault) -> Report {
    let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Mend, now: 77 };
    vault.check(&request, None, &|_| Go::On).unwrap()
}

/// What a bad sector touches comes back by parity, and without that it is all that is lost.
#[test]
fn a_bad_sector_costs_no_more_than_what_it_touches() {
    let chunks: Vec<Sealed> = (0..100).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    for has_parity in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v");
        let blob = filled(&root, &chunks);
        let bad = 40_960..45_056;
        let disk = LocalBlobs::new(&root);
        let read = |offset, len| disk.read(&blob, offset, len);
        let rows = scan(disk.len(&blob).unwrap().unwrap(), &read).unwrap();
        let touched: BTreeSet<u64> = rows
            .iter()
            .filter(|row| u64::from(row.offset) < bad.end && u64::from(row.offset) + row.len() > bad.start)
            .map(|row| row.ordinal.0)
            .collect();
        assert!(rows.len() == 100 && (2..4).contains(&touched.len()));
        if !has_parity {
            std::fs::remove_dir_all(root.join("parity")).unwrap();
        }
        let vault = opened(&root, &blob, bad, None);
        let report = mended(&vault);
        let lost = report.damage.iter().filter(|damage| matches!(damage.what, Part::Object(_))).count();
        assert_eq!(lost, if has_parity { 0 } else { touched.len() }, "{:?}", report.damage);
        assert!(has_parity != disk.len(&blob).unwrap().is_none());
        drop(vault);
        let vault = Vault::open(&root).unwrap();
        for chunk in &chunks {
            let ordinal = vault.ordinal(&chunk.header.id).unwrap();
            let is_there = ordinal.is_some_and(|ordinal| vault.get(ordinal).unwrap().body == chunk.body);
            let number = chunks.iter().position(|other| other.header.id == chunk.header.id).unwrap() as u64;
            assert_eq!(is_there, has_parity || !touched.contains(&number));
        }
    }
}

fn assert_all_there(root: &Path, chunks: &[Sealed]) {
    let vault = Vault::open(root).unwrap();
    let checks = vault.state().catalog.checks().unwrap();
    assert!(
        checks.iter().all(|check| check.verdict != Verdict::Damaged),
        "what is said of packs is of those"
    );
    for chunk in chunks {
        let ordinal = vault.ordinal(&chunk.header.id).unwrap().unwrap();
        assert_eq!(vault.get(ordinal).unwrap().body, chunk.body);
    }
    assert!(mended(&vault).damage.is_empty());
}

/// A vault with a pack of which all records are whole, but not what follows them, and no parity; and the bytes of that pack.
fn with_a_wrong_end(root: &Path, chunks: &[Sealed]) -> Vec<u8> {
    let blob = filled(root, chunks);
    let mut bytes = std::fs::read(root.join(&blob)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(root.join(&blob), &bytes).unwrap();
    std::fs::remove_dir_all(root.join("parity")).unwrap();
    bytes
}

/// Whatever is written anew under its own numbers is byte for byte what it was before it was damaged, and so has its name.
#[test]
fn a_pack_all_of_whose_records_are_whole_is_not_removed_with_the_damaged_one() {
    let chunks: Vec<Sealed> = (0..20).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    let bytes = with_a_wrong_end(&root, &chunks);
    let report = mended(&Vault::open(&root).unwrap());
    assert!(report.is_sound() && !report.damage.is_empty(), "{:?}", report.damage);
    assert_all_there(&root, &chunks);
    let kept = LocalBlobs::new(&root).list("quarantine").unwrap();
    assert!(kept.iter().any(|name| std::fs::read(root.join(name)).unwrap() == bytes), "{kept:?}");
}

/// That a pack cannot be read a moment after it was mended says nothing of what is in it.
#[test]
fn a_mended_pack_that_cannot_be_opened_at_once_stays() {
    let chunks: Vec<Sealed> = (0..100).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    let blob = filled(&root, &chunks);
    let vault = opened(&root, &blob, 40_960..45_056, Some(Errno::MFILE));
    let before = vault.sealed_packs();
    let report = mended(&vault);
    assert!(report.damage.iter().any(|damage| damage.what != Part::Index), "{:?}", report.damage);
    assert_eq!(vault.sealed_packs(), before);
    drop(vault);
    assert_all_there(&root, &chunks);
}

/// Until what is readable of a pack is in another, durably, nothing of it is given up.
#[test]
fn a_pack_that_cannot_be_written_anew_keeps_what_it_has() {
    let chunks: Vec<Sealed> = (0..20).map(|n| sealed(Kind::Chunk, &[], n)).collect();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("v");
    with_a_wrong_end(&root, &chunks);
    let vault = Vault::open(&root).unwrap();
    // As on a disk that is full.
    std::fs::rename(root.join("open"), root.join("away")).unwrap();
    std::fs::write(root.join("open"), b"").unwrap();
    let request = Request { depth: Depth::ReadData(Selection::All), mending: Mending::Mend, now: 77 };
    assert!(vault.check(&request, None, &|_| Go::On).is_err());
    std::fs::remove_file(root.join("open")).unwrap();
    std::fs::rename(root.join("away"), root.join("open")).unwrap();
    for chunk in &chunks {
        let ordinal = vault.ordinal(&chunk.header.id).unwrap().unwrap();
        assert_eq!(vault.get(ordinal).unwrap().body, chunk.body);
    }
    drop(vault);
    assert!(mended(&Vault::open(&root).unwrap()).is_sound());
    assert_all_there(&root, &chunks);
}
