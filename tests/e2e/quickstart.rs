//! The first five minutes.

use std::fs;
use std::process::Command;

use backhaul_tests::{Home, binary, trees};

#[test]
fn one_command_backs_up_and_proves_it_and_again() {
    let (home, dir) = (Home::new(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let first = home.run(&["quickstart", tree.to_str().unwrap()]).ok();
    assert!(
        first.out.contains("read back from the vault and compared with the originals: equal"),
        "{}",
        first.out
    );
    assert!(first.err.contains("recovery key"));
    fs::write(tree.join("tiny"), b"changed").unwrap();
    home.run(&["quickstart", tree.to_str().unwrap()]).ok();
    let snapshots = home.json(&["snapshots"]);
    assert_eq!(snapshots.as_array().unwrap().len(), 2);
    let second = snapshots[1]["bytes_stored"].as_u64().unwrap();
    assert!(second * 50 < snapshots[0]["bytes_stored"].as_u64().unwrap(), "{snapshots}");
}

#[test]
fn what_it_says_to_type_next_can_be_typed() {
    let dir = tempfile::tempdir().unwrap();
    let (home, tree) = (dir.path().join("my home"), dir.path().join("it's a $tree"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("f"), b"f").unwrap();
    let made = Command::new(binary()).arg("--home").arg(&home).arg("quickstart").arg(&tree).output().unwrap();
    let said = String::from_utf8(made.stdout).unwrap();
    let program = format!("'{}'", binary().display());
    for (what, shows) in [("browse", "f\n"), ("again", "equal")] {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(what)).unwrap();
        let typed = line.trim().replacen("backhaul", &program, 1);
        let done = Command::new("sh").arg("-c").arg(&typed).output().unwrap();
        let out = String::from_utf8_lossy(&done.stdout);
        assert!(done.status.success() && out.contains(shows), "{typed}: {done:?}");
    }
}

#[test]
fn browsing_and_restoring_need_no_daemon_in_one_home() {
    let (home, dir, out) = (Home::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let tree_text = tree.to_str().unwrap();
    home.run(&["-q", "quickstart", tree_text]).ok();
    let listed = home.run(&["ls", &format!("latest:{tree_text}/deep")]).ok().out;
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        ["all hole", "dangling-too", "er/", "huge-too", "link", "pipe-too", "socket-too", "twin"]
    );
    let found = home.run(&["find", "39?.txt"]).ok().out;
    assert_eq!(found.lines().count(), 10);
    let dumped = home.run(&["dump", &format!("latest:{tree_text}/tiny")]).ok().out;
    assert_eq!(dumped, "tiny");

    let target = |name: &str| out.path().join(name).to_str().unwrap().to_owned();
    home.run(&["restore", "latest", "-t", &target("all"), "--verify"]).ok();
    trees::assert_equal(&tree, &out.path().join("all").join(tree.strip_prefix("/").unwrap()));
    home.run(&["restore", &format!("latest:{tree_text}/deep/er"), "-t", &target("folder")]).ok();
    trees::assert_equal(&tree.join("deep/er"), &out.path().join("folder"));
    home.run(&["restore", &format!("latest:{tree_text}/deep/twin"), "-t", &target("file")]).ok();
    assert_eq!(fs::read(out.path().join("file/twin")).unwrap(), fs::read(tree.join("deep/twin")).unwrap());

    let wrong = home.run(&["ls", &format!("latest:{tree_text}/deap")]).expect(1);
    assert!(wrong.err.contains("deep"), "a suggestion: {}", wrong.err);
    home.run(&["ls", "0000beef"]).expect(1);
    let dry = home.json(&["restore", "latest", "-t", &target("dry"), "--dry-run"]);
    assert!(dry["files"].as_u64().unwrap() > 400 && !out.path().join("dry").exists());
}

#[test]
fn help_man_pages_and_completions_come_from_one_definition() {
    let (home, out) = (Home::new(), tempfile::tempdir().unwrap());
    home.run(&["man", out.path().to_str().unwrap()]).ok();
    assert!(out.path().join("backhaul-restore.1").exists());
    let script = home.run(&["completions", "bash"]).ok().out;
    assert!(script.contains("quickstart"));
    let help = home.run(&["restore", "--help"]).ok().out;
    assert!(help.contains("Examples:"), "{help}");
    home.run(&["no-such-command"]).expect(2);
}
