//! The house rules, kept by machine.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use backhaul_tests::trees;

/// Longest file of code, in lines. Tests may be longer.
const FILE_MAX: usize = 420;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn sources() -> Vec<(PathBuf, String)> {
    let root = root();
    let all = ["crates", "tests", "benches"].iter().flat_map(|dir| trees::files(&root.join(dir)));
    all.filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.strip_prefix(&root).unwrap().to_path_buf(), fs::read_to_string(&path).unwrap()))
        .collect()
}

fn is_test(path: &Path) -> bool {
    path.starts_with("tests")
        || path.components().any(|part| part.as_os_str() == "tests")
        || path.ends_with("tests.rs")
        || path.ends_with("memory.rs")
}

/// The part of a file before its unit tests.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().unwrap()
}

/// Which of our crates each crate may use (docs/architecture.md).
fn allowed() -> BTreeMap<&'static str, &'static [&'static str]> {
    BTreeMap::from([
        ("backhaul-object", &[][..]),
        ("backhaul-proto", &["object"][..]),
        ("backhaul-archive", &["object", "turns"][..]),
        ("backhaul-child", &[][..]),
        ("backhaul-store", &["object"][..]),
        ("backhaul-turns", &[][..]),
        ("backhaul-net", &["object", "proto"][..]),
        ("backhaul-agent", &["archive", "child", "net", "proto", "schedule", "object"][..]),
        ("backhaul-schedule", &[][..]),
        ("backhaul-server", &["child", "store", "net", "proto", "schedule", "object", "turns"][..]),
        ("backhaul", &["agent", "archive", "net", "object", "proto", "schedule", "server", "store"][..]),
    ])
}

/// What a crate must not touch, by the crates that touch it.
fn forbidden(name: &str) -> &'static [&'static str] {
    match name {
        "backhaul-object" | "backhaul-proto" | "backhaul-schedule" => {
            &["tokio", "quinn", "rusqlite", "rustix", "rand"]
        }
        "backhaul-archive" => &["tokio", "quinn", "rusqlite"],
        "backhaul-store" => &["tokio", "quinn"],
        "backhaul-net" => &["rusqlite", "rustix"],
        "backhaul-agent" => &["rusqlite", "quinn"],
        "backhaul-server" => &["quinn"],
        _ => &["quinn", "rusqlite"],
    }
}

#[test]
fn crates_use_only_what_the_architecture_allows() {
    let allowed = allowed();
    let found: BTreeSet<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, allowed.keys().map(|name| (*name).to_owned()).collect());
    for (name, may) in allowed {
        let text = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = text.parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some(name));
        for dependency in manifest["dependencies"].as_table().unwrap().keys() {
            match dependency.strip_prefix("backhaul-") {
                Some(ours) => assert!(may.contains(&ours), "{name} must not use {dependency}"),
                None => assert!(
                    !forbidden(name).contains(&dependency.as_str()),
                    "{name} must not use {dependency}"
                ),
            }
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_is_one_idea_long() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{} does not begin with //!", path.display());
        let lines = code(&text).lines().count();
        assert!(is_test(&path) || lines <= FILE_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn the_time_is_read_in_clock_files_only() {
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("crates") && !is_test(path))
    {
        let reads = ["SystemTime::now", "Instant::now", "Timestamp::now", "Zoned::now", "clock_gettime"]
            .iter()
            .find(|call| code(&text).contains(*call));
        assert!(
            reads.is_none() || path.ends_with("clock.rs"),
            "{} reads the time by {reads:?}",
            path.display()
        );
    }
}

#[test]
fn nothing_panics_is_unsafe_or_waits_for_later() {
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("crates") && !is_test(path))
    {
        if path.ends_with("build.rs") {
            // Build scripts talk to cargo on standard output.
            continue;
        }
        for word in [".unwrap()", ".expect(", "panic!(", "unreachable!(", "TODO", "FIXME", "println!"] {
            assert!(!code(&text).contains(word), "{} has {word}", path.display());
        }
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for (at, _) in
            lines.iter().enumerate().filter(|(_, line)| line.contains("unsafe ") && !line.starts_with("//"))
        {
            let mut proof = lines[..at].iter().rev().take_while(|line| line.starts_with("//"));
            let has_proof = proof.any(|line| line.starts_with("// SAFETY: "));
            let may_be = has_proof && path.ends_with("inode_flags/project.rs");
            assert!(may_be, "{}:{} is unsafe", path.display(), at + 1);
        }
    }
}

/// The walk and the restore go by open folders: a path that is put together is one that somebody can turn elsewhere meanwhile.
#[test]
fn what_walks_and_what_restores_goes_by_open_folders() {
    // What a user names, and what is the agent's own: its state, and files of patterns.
    let own = [
        "backup/roots.rs",
        "backup/excludes.rs",
        "backup/drafts",
        "backup/drafts.rs",
        "backup/state",
        "backup/state.rs",
    ];
    // The target itself, if it is not there, and times that are set through a handle.
    let lines = ["std::fs::create_dir_all(path)?;", "takes(fs::utimensat(fs::CWD, &handle[..], "];
    let calls = ["std::fs::", "File::open(", "File::create(", "OpenOptions", "CWD,", ".exists()"];
    let archive = Path::new("crates/backhaul-archive/src");
    let is_own =
        |path: &Path| own.iter().any(|own| path.starts_with(archive.join(own)) || path.ends_with(own));
    let (mut files, mut kept) = (0, BTreeSet::new());
    for (path, text) in sources() {
        let is_meant = ["backup", "restore"].iter().any(|part| path.starts_with(archive.join(part)));
        if !is_meant || is_test(&path) || is_own(&path) {
            continue;
        }
        files += 1;
        for line in code(&text)
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with("use ") && !line.starts_with("//"))
        {
            if !calls.iter().any(|call| line.contains(*call)) {
                continue;
            }
            // Every walk sets out from the root.
            let is_root = line.contains("openat(CWD, \"/\", DIRECTORY");
            match lines.iter().find(|kept| line.starts_with(**kept)) {
                Some(line) => drop(kept.insert(line)),
                None => assert!(is_root, "{} goes by a path: {line}", path.display()),
            }
        }
    }
    assert!(files > 30 && kept.len() == lines.len(), "{files} files, {kept:?}");
}

/// One word for one thing (docs/glossary.md).
#[test]
fn words_are_those_of_the_glossary() {
    let wrong = ["repository", "slave", "archive bit", "backup set", "data store", "datastore"];
    let docs = trees::files(&root().join("docs")).into_iter().map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    });
    for (path, text) in sources().into_iter().filter(|(path, _)| path.starts_with("crates")).chain(docs) {
        let lower = text.to_lowercase();
        if let Some(word) = wrong.iter().find(|word| lower.contains(*word)) {
            assert!(path.ends_with("glossary.md"), "{} says {word:?}", path.display());
        }
    }
}

#[test]
fn every_golden_vector_is_named_in_the_specification() {
    let format = fs::read_to_string(root().join("docs/format.md")).unwrap();
    let vectors = trees::files(&root().join("schemas/vectors"));
    assert!(!vectors.is_empty());
    for vector in vectors {
        let name = vector.file_name().unwrap().to_str().unwrap();
        assert!(format.contains(name), "docs/format.md does not name {name}");
    }
}

#[test]
fn sqlite_is_new_enough() {
    assert!(rusqlite::version_number() >= 3_051_003, "{}", rusqlite::version());
}
