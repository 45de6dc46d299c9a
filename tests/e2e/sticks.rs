//! File systems of cameras and USB sticks, which know no owners, modes, links or cases of letters: what can be kept there is,
//! and all else is named.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use backhaul_tests::volumes::Volume;
use backhaul_tests::{Home, trees};
use rustix::fs::FileType;
use serde_json::Value;

/// What comes back whole, and what does not.
fn make(tree: &Path) {
    for (name, len) in
        [("letter", 30), ("photos/first", 200_000), ("photos/film", 9_000_000), ("photos/empty", 0)]
    {
        fs::create_dir_all(tree.join(name).parent().unwrap()).unwrap();
        fs::write(tree.join(name), trees::noise(len, len as u64)).unwrap();
    }
    fs::write(tree.join("Twin"), "upper").unwrap();
    fs::write(tree.join("twin"), "lower").unwrap();
    fs::write(tree.join("a:b"), "no name there").unwrap();
    fs::hard_link(tree.join("letter"), tree.join("second name")).unwrap();
    symlink("letter", tree.join("symlink")).unwrap();
    trees::special(tree, "pipe", FileType::Fifo, 0).unwrap();
}

fn named(done: &Value) -> BTreeSet<&str> {
    let errors = done["errors"].as_array().unwrap().iter();
    errors.map(|error| error["path"].as_str().unwrap().rsplit('/').next().unwrap()).collect()
}

#[test]
fn a_stick_takes_the_contents_and_what_it_cannot_hold_is_named() {
    for kind in ["vfat", "exfat"] {
        let Some(volume) = Volume::new(kind, 64, "") else { continue };
        let dir = tempfile::tempdir().unwrap();
        let (tree, to) = (dir.path().join("tree"), volume.path().join("out"));
        make(&tree);
        let home = Home::new();
        home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
        let from = format!("latest:{}", tree.display());
        for more in [&[][..], &["--delete"], &["--overwrite", "always", "--verify"]] {
            let args = ["--json", "restore", &from, "-t", to.to_str().unwrap()];
            let done = home.run(&[&args[..], more].concat()).expect(3).json();
            let mut named = named(&done);
            // Of two names that are one there, either may have come first.
            let (upper, lower) = (named.remove("Twin"), named.remove("twin"));
            assert!(upper != lower, "{kind} {more:?} {done}");
            let text = if upper { "lower" } else { "upper" };
            assert_eq!(fs::read_to_string(to.join("TWIN")).unwrap(), text, "{kind} {more:?}");
            let expected = ["a:b", "out", "pipe", "second name", "symlink"];
            assert_eq!(named, BTreeSet::from(expected), "{kind} {more:?} {done}");
            let unset = done["unset"].as_array().unwrap();
            for part in ["mode not set as it was", "time not set as it was"] {
                let is_said = |name: &str| {
                    unset.iter().any(|unset| {
                        unset["path"].as_str().unwrap().ends_with(name)
                            && unset["error"].as_str().unwrap().starts_with(part)
                    })
                };
                assert!(is_said("/letter") && is_said("/photos/film"), "{kind} {more:?} {done}");
            }
            for name in ["letter", "photos/first", "photos/film", "photos/empty", "second name"] {
                assert!(
                    fs::read(tree.join(name)).unwrap() == fs::read(to.join(name)).unwrap(),
                    "{kind} {name}"
                );
            }
            // A driver may make an empty file where it makes no pipe, and says that it failed.
            let names: Vec<_> =
                trees::files(&to).into_iter().filter(|path| !path.ends_with("pipe")).collect();
            assert_eq!(names.len(), 6, "{kind} {more:?}: something of ours is left: {names:?}");
        }
        // What is there is saved like anything else, and comes back as it is there.
        let back = dir.path().join("back");
        home.run(&["-q", "backup", to.to_str().unwrap()]).ok();
        home.run(&["-q", "restore", &format!("latest:{}", to.display()), "-t", back.to_str().unwrap()]).ok();
        trees::assert_equal(&to, &back);
    }
}
