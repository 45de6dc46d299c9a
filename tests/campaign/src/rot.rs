//! Rot: bits flip, ends and blocks go, in every kind of file of a vault, and the real program is asked about it.
//!
//! What matters is found; what is said to be whole restores equal; nothing wrong is ever restored; what is said to be mended
//! is whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use backhaul_tests::dice::Dice;
use backhaul_tests::trees;

use crate::real::Real;

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rot {
    Flip(usize),
    Truncate(usize),
    Zero(usize, usize),
    Remove,
}

/// What came of many cases.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Files damaged.
    pub cases: u64,
    /// Damage that `check` named.
    pub named: u64,
    /// Cases in which nothing was said, and every snapshot restored equal.
    pub harmless: u64,
    /// Cases after which `check --repair` left everything whole.
    pub mended: u64,
    /// By kind of file: cases, named, mended.
    pub kinds: BTreeMap<String, (u64, u64, u64)>,
    /// Laws broken, with what leads there again.
    pub broken: Vec<String>,
}

/// Which kind a file of a vault is: its first folder, or its own name.
fn kind(file: &Path, vault: &Path) -> String {
    let inner = file.strip_prefix(vault).unwrap_or(file);
    let first = inner.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    match (first.as_deref(), inner.extension().and_then(|extension| extension.to_str())) {
        (Some("index"), _) => inner.display().to_string(),
        (Some("snaps"), Some(extension)) => format!("snaps/*.{extension}"),
        (first, _) => first.unwrap_or_default().to_owned(),
    }
}

fn damage(path: &Path, dice: &mut Dice) -> Option<Rot> {
    let mut bytes = fs::read(path).unwrap();
    let rot = match dice.below(8) {
        0..=3 if !bytes.is_empty() => Rot::Flip(dice.index(bytes.len() * 8)),
        4 | 5 if !bytes.is_empty() => Rot::Truncate(dice.index(bytes.len())),
        6 if !bytes.is_empty() => {
            let size = [512, 4_096][dice.index(2)];
            Rot::Zero(dice.index(bytes.len().div_ceil(size)) * size, size)
        }
        _ => Rot::Remove,
    };
    let before = bytes.clone();
    match rot {
        Rot::Flip(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
        Rot::Truncate(len) => bytes.truncate(len),
        Rot::Zero(at, size) => {
            let end = (at + size).min(bytes.len());
            bytes[at..end].fill(0);
        }
        Rot::Remove => {
            fs::remove_file(path).unwrap();
            return Some(rot);
        }
    }
    fs::write(path, &bytes).unwrap();
    (bytes != before).then_some(rot)
}

/// Damages one file per case, each kind in its turn.
pub fn explore(real: &Real<'_>, (seed, cases): (u64, u64), most: usize) -> Outcome {
    let vault = real.golden_vault();
    let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in trees::files(&vault) {
        kinds.entry(kind(&file, &vault)).or_default().push(file.strip_prefix(&vault).unwrap().to_path_buf());
    }
    kinds.remove("lock");
    let kinds: Vec<(String, Vec<PathBuf>)> = kinds.into_iter().collect();
    let mut outcome = Outcome::default();
    for n in 0..cases {
        let (name, files) = &kinds[(n as usize) % kinds.len()];
        let mut dice = Dice::of(seed, n);
        real.reset();
        let file = &files[dice.index(files.len())];
        let Some(rot) = damage(&real.vault().join(file), &mut dice) else { continue };
        outcome.cases += 1;
        outcome.kinds.entry(name.clone()).or_default().0 += 1;
        if let Err(why) = case(real, name, rot, &mut outcome) {
            outcome.broken.push(format!("rot, seed {seed}, case {n}, {rot:?} of {}: {why}", file.display()));
            if outcome.broken.len() >= most {
                break;
            }
        }
    }
    outcome
}

fn case(real: &Real<'_>, kind: &str, rot: Rot, outcome: &mut Outcome) -> Result<(), String> {
    let trees = |row: &_| real.tree(row);
    let found = real.run(&[], "server", &["--json", "check", "--read-data"]);
    match found.code {
        // No snapshot needs it, and without it nobody stands the server up again.
        Some(0) if kind == "exports" && rot != Rot::Remove => {
            return Err("check found nothing in a damaged export".to_owned());
        }
        Some(0) => {
            let (_, refused) = real.restore_all(&trees)?;
            if let Some(why) = refused.first() {
                return Err(format!("check found nothing, and {why}"));
            }
            outcome.harmless += 1;
            return Ok(());
        }
        // Damage, or a home that says what to do about its vault.
        Some(1..=20) => outcome.named += 1,
        code => return Err(format!("check ended with {code:?}: {}", found.said)),
    }
    outcome.kinds.entry(kind.to_owned()).or_default().1 += 1;
    // Whatever it said, nothing wrong comes out; what does not open gives nothing.
    if let Err(why) = real.restore_all(&trees)
        && why.contains("something else")
    {
        return Err(why);
    }
    let mended = real.run(&[], "server", &["--json", "check", "--repair", "--read-data"]);
    let (equal, refused) = match (mended.code, real.restore_all(&trees)) {
        (Some(0), Err(why)) => return Err(format!("mended and said to be whole, and {why}")),
        (_, Err(why)) if why.contains("something else") => return Err(why),
        (_, Err(_)) => return Ok(()),
        (_, Ok(restored)) => restored,
    };
    if mended.code == Some(0) {
        if let Some(why) = refused.first() {
            return Err(format!("mended and said to be whole, and {why}"));
        }
        if !equal.is_empty() {
            outcome.mended += 1;
            outcome.kinds.entry(kind.to_owned()).or_default().2 += 1;
        }
    }
    Ok(())
}
