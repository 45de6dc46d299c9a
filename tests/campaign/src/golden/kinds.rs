//! What must be in the golden vaults: who damages every file of them would not notice that one is not there any more.

use std::fs;
use std::path::PathBuf;

use backhaul_object::Kind;
use backhaul_store::acknowledged;
use backhaul_store::revived::{FILE, Revived};
use backhaul_store::{Ordinal, Vault};

use super::Golden;

/// Every file of a vault (docs/format.md, "The vault on disk"), by where it is and how its name ends. What is in `lock` and
/// `reserve` is nothing.
const FILES: [(&str, &str); 23] = [
    ("", "vault.desc"),
    ("", "nights"),
    ("", "condemned"),
    ("", "reclaim.journal"),
    ("", FILE),
    ("", acknowledged::FILE),
    ("", "catalog.sqlite"),
    ("", "catalog.sqlite-wal"),
    ("index", "ids"),
    ("index", "places"),
    ("index", "parents"),
    ("index", "references"),
    ("index", "contents"),
    ("packs", ""),
    ("parity", ""),
    ("open", ".pack"),
    ("snaps", ".snap"),
    ("snaps", ".mark"),
    ("copies", ".snap"),
    ("copies", ".mark"),
    ("copies", "vault.desc"),
    ("exports", ".export"),
    ("quarantine", ""),
];

/// Every kind of object but for those that are reserved.
const KINDS: [Kind; 6] = [Kind::Chunk, Kind::Bundle, Kind::Flist, Kind::Node, Kind::Snap, Kind::Patch];

/// True if such a file is damaged in one of the vaults.
fn has(vaults: &[Golden], (below, end): (&str, &str)) -> bool {
    let is = |name: &PathBuf| match below {
        "" => name.as_os_str() == end,
        _ => name.starts_with(below) && name.to_string_lossy().ends_with(end),
    };
    vaults.iter().flat_map(|vault| &vault.names).any(is)
}

/// # Panics
/// A kind of file or record is not in them.
pub fn assert_all(vaults: &[Golden]) {
    for file in FILES {
        assert!(has(vaults, file), "no golden vault has a file {}/*{}", file.0, file.1);
    }
    let [first, .., last] = vaults else { panic!("no golden vaults") };
    let probe = first.home.with_file_name("probe");
    first.lay(&probe);
    let vault = Vault::open(&probe).unwrap();
    // All its packs are damaged.
    let there: Vec<Kind> =
        (0..).map_while(|number| vault.header(Ordinal(number)).ok()).map(|header| header.kind).collect();
    for kind in KINDS {
        assert!(there.contains(&kind), "no golden vault has a record of the kind {kind:?}: {there:?}");
    }
    let revived = Revived::decode(&fs::read(last.home.join(FILE)).unwrap()).unwrap();
    assert!(!revived.places.is_empty(), "no place comes back");
}
