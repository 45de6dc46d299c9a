//! Patterns that mean what they mean to git, which has made their rules.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use backhaul_archive::patterns::{Case, Kind, Patterns};
use backhaul_tests::dice::Dice;
use backhaul_tests::netns::skipped;

/// What names are made of.
const NAMES: [&str; 8] = ["a", "b", "ab", "a.o", "b.o", ".a", "é", "a b"];

/// What patterns are made of, beside names.
const PARTS: [&str; 12] = ["*", "?", "[ab]", "[!a]", "[a-b]*", "*.o", "a*", "*b", "\\a", "**", "[^b]", ".*"];

/// All paths of some depth, folders first.
fn paths() -> Vec<(String, Kind)> {
    let mut all = Vec::new();
    for one in NAMES {
        all.push((one.to_owned(), Kind::Directory));
        for two in NAMES {
            all.push((format!("{one}/{two}"), Kind::Directory));
            all.extend(NAMES.map(|three| (format!("{one}/{two}/{three}"), Kind::Other)));
            all.push((format!("{one}/{two}/f"), Kind::Other));
        }
        all.push((format!("{one}/f"), Kind::Other));
    }
    all
}

/// A pattern of up to three parts, with or without what binds it to the top, to folders, or takes it back.
fn pattern(dice: &mut Dice) -> String {
    let mut pick = |all: &[&str]| all[dice.index(all.len())].to_owned();
    let takes_back = pick(&["", "", "", "!"]);
    let anchor = pick(&["", "", "/", "**/"]);
    let parts: Vec<String> = match pick(&["1", "1", "2", "3"]).as_str() {
        "1" => vec![pick(&[&NAMES[..], &PARTS].concat())],
        "2" => (0..2).map(|_| pick(&[&NAMES[..], &PARTS].concat())).collect(),
        _ => (0..3).map(|_| pick(&[&NAMES[..], &PARTS].concat())).collect(),
    };
    takes_back + &anchor + &parts.join("/") + &pick(&["", "", "/"])
}

/// What a walk leaves out: a folder with all that is in it.
fn left_out(patterns: &[String], paths: &[(String, Kind)]) -> BTreeSet<String> {
    let patterns = Patterns::new(patterns.iter().map(|text| (&text[..], Case::Sensitive))).unwrap();
    let mut out = BTreeSet::new();
    for (path, kind) in paths {
        let above = path.rsplit_once('/').is_some_and(|(above, _)| out.contains(above));
        if above || patterns.verdict(format!("/{path}").as_bytes(), *kind) == Some(true) {
            out.insert(path.clone());
        }
    }
    out
}

fn git(repository: &Path, args: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(repository).args(args).env("GIT_CONFIG_NOSYSTEM", "1").env("HOME", repository);
    git
}

/// What git ignores of them.
fn ignored(repository: &Path, patterns: &[String], paths: &[(String, Kind)]) -> BTreeSet<String> {
    fs::write(repository.join(".gitignore"), patterns.join("\n") + "\n").unwrap();
    let mut asking = git(repository, &["check-ignore", "--no-index", "-z", "--stdin"]);
    let mut asking = asking.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut to = asking.stdin.take().unwrap();
    let names: Vec<String> = paths.iter().map(|(path, _)| format!("{path}\0")).collect();
    let telling = std::thread::spawn(move || to.write_all(names.concat().as_bytes()));
    let said = asking.wait_with_output().unwrap();
    telling.join().unwrap().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    said.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn patterns_leave_out_what_git_ignores() {
    const ROUNDS: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    if !git(dir.path(), &["init", "-q"]).status().is_ok_and(|status| status.success()) {
        return skipped("there is no git to compare with");
    }
    let (paths, mut dice, mut some): (Vec<(String, Kind)>, _, _) = (paths(), Dice::of(5, 0), 0);
    for (path, kind) in &paths {
        let path = dir.path().join(path);
        match kind {
            Kind::Directory => fs::create_dir_all(path).unwrap(),
            Kind::Other => fs::write(path, "").unwrap(),
        }
    }
    for _ in 0..ROUNDS {
        let patterns: Vec<String> = (0..1 + dice.below(3)).map(|_| pattern(&mut dice)).collect();
        let (ours, theirs) = (left_out(&patterns, &paths), ignored(dir.path(), &patterns, &paths));
        some += u64::from(!theirs.is_empty() && theirs.len() < paths.len());
        let differ: Vec<_> = ours.symmetric_difference(&theirs).take(5).collect();
        assert!(differ.is_empty(), "{patterns:?}: {differ:?}");
    }
    assert!(some > ROUNDS / 2, "only {some} lists of patterns say something");
}
