//! Things that go wrong, each with its words and its exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use backhaul_tests::netns::skipped;
use backhaul_tests::{Daemon, Home, TestServer, binary, free_port, trees};

#[test]
fn unreadable_files_are_named_and_the_rest_is_saved() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("open"), b"open").unwrap();
    fs::write(dir.path().join("closed"), b"closed").unwrap();
    fs::set_permissions(dir.path().join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    let client = Home::unprivileged();
    server.join(&client, "laptop", &[], &[dir.path()]);
    let done = client.run(&["--json", "backup"]).expect(3);
    let errors = done.json()["errors"].clone();
    assert_eq!(errors.as_array().unwrap().len(), 1);
    assert!(errors[0]["path"].as_str().unwrap().ends_with("/closed"), "{errors}");
    assert!(done.err.contains("closed"), "{}", done.err);
    assert_eq!(client.run(&["dump", &format!("latest:{}/open", dir.path().display())]).ok().out, "open");
    assert_eq!(client.json(&["snapshots"])[0]["status"], "partial");
}

#[test]
fn files_that_change_and_vanish_while_they_are_read_end_nothing() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    for i in 0..300 {
        fs::write(dir.path().join(format!("{i:03}")), trees::noise(200_000, i)).unwrap();
    }
    let client = server.client("laptop", &[dir.path()]);
    let path = dir.path().to_path_buf();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let churn = std::thread::spawn(move || {
        for i in (0..300).cycle() {
            if stopped.try_recv().is_ok() {
                return;
            }
            let file = path.join(format!("{i:03}"));
            match i % 3 {
                0 => fs::write(&file, trees::noise(100_000, i)).unwrap(),
                1 => drop(fs::remove_file(&file)),
                _ => fs::write(&file, trees::noise(300_000, i + 1)).unwrap(),
            }
        }
    });
    let codes: Vec<i32> = (0..4).map(|_| client.run(&["backup"]).code).collect();
    stop.send(()).unwrap();
    churn.join().unwrap();
    assert!(codes.iter().all(|code| matches!(code, 0 | 3)), "{codes:?}");
    client.run(&["backup"]).ok();
    let out = tempfile::tempdir().unwrap();
    client.run(&["restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    trees::assert_equal(dir.path(), &out.path().join(dir.path().strip_prefix("/").unwrap()));
}

#[test]
fn a_server_that_is_not_there_is_said_so() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    server.stop();
    let down = client.run(&["backup"]).expect(1);
    assert!(down.err.contains("no answer") && down.err.contains("server run"), "{}", down.err);
    let queued = server.home.run(&["client", "run", "laptop"]).expect(1);
    assert!(queued.err.contains("not running"), "{}", queued.err);
}

#[test]
fn an_agent_that_is_not_there_is_a_failed_run() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (home, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
    server.join(&home, "desk", &["--initiator", "server", "--address", &address], &[dir.path()]);
    let run = server.home.run(&["--json", "client", "run", "desk", "--wait"]).expect(1);
    assert!(run.json()[0]["why"].as_str().unwrap().contains("no answer"), "{}", run.out);
    let status = server.home.json(&["status"]);
    assert!(status[0]["why"].as_str().unwrap().contains("no answer"), "{status}");
}

#[test]
fn what_goes_wrong_on_a_pulled_client_is_said_on_the_server() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let gone = dir.path().join("gone");
    fs::create_dir(&gone).unwrap();
    let (home, address) = server.listener("desk", &[&gone]);
    fs::remove_dir(&gone).unwrap();
    let _agent = home.start(&["agent", "run", "--listen", &address]);
    let run = server.home.run(&["--json", "client", "run", "desk", "--wait"]).expect(1).json();
    let why = run[0]["why"].as_str().unwrap();
    assert!(why.contains("on the client") && why.contains("gone"), "{run}");
}

#[test]
fn one_home_has_one_server_and_a_foreign_directory_none() {
    let server = TestServer::new();
    let second = server.home.run(&["server", "run", "--listen", "127.0.0.1:0"]).expect(11);
    assert!(second.err.contains("in use by process"), "{}", second.err);
    server.home.run(&["check", "--rebuild-index"]).expect(11);
    let foreign = Home::new();
    fs::create_dir(foreign.path().join("server")).unwrap();
    fs::write(foreign.path().join("server/letter.txt"), b"dear").unwrap();
    foreign.run(&["server", "run"]).expect(10);
    let refused = foreign.run(&["server", "init"]).expect(1);
    assert!(refused.err.contains("no server made"), "{}", refused.err);
    assert_eq!(fs::read(foreign.path().join("server/letter.txt")).unwrap(), b"dear");
}

/// A disk of its own for the packs has a folder that only root may look into.
#[test]
fn what_cannot_be_listed_among_the_packs_locks_nobody_out() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root can keep others out of a folder");
    }
    let (user, dir) = (Home::unprivileged(), tempfile::tempdir().unwrap());
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.path().join("letter"), "dear ana").unwrap();
    let path = dir.path().to_str().unwrap();
    user.run(&["-q", "quickstart", path]).ok();
    let closed = user.path().join("server/vaults/main/packs/lost+found");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.path().join("letter"), "dear bob").unwrap();
    user.run(&["-q", "backup", path]).ok();
    assert_eq!(user.run(&["dump", &format!("latest:{path}/letter")]).ok().out, "dear bob");
}

/// The vault lies on a file system of its own, in a mount namespace of its own, that is soon full.
#[test]
fn a_full_disk_ends_the_session_and_harms_nothing() {
    let probe = Command::new("unshare").args(["--mount", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        return skipped("without the right to mount there is no small disk to fill");
    }
    let (home, dir, port) = (Home::new(), tempfile::tempdir().unwrap(), free_port());
    let listen = format!("127.0.0.1:{port}");
    home.run(&["server", "init", "--listen", &listen, "--name", "127.0.0.1"]).ok();
    let added = home.json(&["client", "add", "laptop"]);
    // The whole home moves to a small disk that only the server sees; its files are copied there first.
    let script = "cp -a \"$1\" \"$1.full\" && mount -t tmpfs -o size=24m none \"$1\" && cp -a \"$1.full/.\" \"$1/\" && \
                  rm -rf \"$1.full\" && exec \"$0\" --home \"$1\" server run";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(binary()).arg(home.path());
    let _daemon = Daemon::start(command);
    let client = Home::new();
    client.run(&["join", added["join_code"].as_str().unwrap()]).ok();
    fs::write(dir.path().join("small"), b"small").unwrap();
    let path = dir.path().to_str().unwrap().to_owned();
    client.run(&["backup", &path]).ok();
    fs::write(dir.path().join("big"), trees::noise(60_000_000, 3)).unwrap();
    let full = client.run(&["backup", &path]).expect(1);
    assert!(full.err.contains("full") && full.err.contains("no snapshot was made"), "{}", full.err);
    assert_eq!(client.json(&["snapshots"]).as_array().unwrap().len(), 1);
    assert_eq!(client.run(&["dump", &format!("latest:{path}/small")]).ok().out, "small");
}

#[test]
fn a_path_that_vanished_is_named_and_the_others_are_saved() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (here, gone) = (dir.path().join("here"), dir.path().join("gone"));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&gone).unwrap();
    fs::write(here.join("file"), b"file").unwrap();
    let client = server.client("laptop", &[&here, &gone]);
    fs::remove_dir(&gone).unwrap();
    let done = client.run(&["--json", "backup"]).expect(3).json();
    assert!(done["errors"][0]["path"].as_str().unwrap().ends_with("/gone"), "{done}");
    assert_eq!(done["files"], 1);
}

/// Opens a folder far below another, made on the way if it is not there: no path is long enough to say where it is.
fn far_below(top: &Path, names: usize) -> std::os::fd::OwnedFd {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = open(top, flags, Mode::empty()).unwrap();
    for _ in 0..names {
        let _ = mkdirat(&at, "folder", Mode::RWXU);
        at = openat(&at, "folder", flags, Mode::empty()).unwrap();
    }
    at
}

/// Everything in a tree that is deeper than a path can say, level by level.
fn seen(top: &Path) -> Vec<String> {
    use rustix::fs::{Dir, Mode, OFlags, openat, statat};
    let mut at = rustix::fs::open(top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut all = Vec::new();
    loop {
        let names = Dir::read_from(&at).unwrap().map(|name| name.unwrap().file_name().to_owned());
        let mut names: Vec<_> = names.filter(|name| name.as_c_str() != c"..").collect();
        names.sort();
        let mut below = None;
        for name in names {
            let stat = statat(&at, &name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
            let (mode, owner, time) =
                (stat.st_mode, (stat.st_uid, stat.st_gid), (stat.st_mtime, stat.st_mtime_nsec));
            let mut content = String::new();
            if rustix::fs::FileType::from_raw_mode(mode).is_file() {
                let file = openat(&at, &name, OFlags::RDONLY, Mode::empty()).unwrap();
                std::io::Read::read_to_string(&mut fs::File::from(file), &mut content).unwrap();
            } else if name.as_c_str() != c"." {
                below = Some(name);
                continue;
            }
            all.push(format!("{name:?} {mode:o} {owner:?} {time:?} {content}"));
        }
        let Some(name) = below else { return all };
        at = openat(&at, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

#[test]
fn a_tree_much_deeper_than_a_path_can_say_comes_back() {
    use rustix::fs::{Mode, OFlags, openat};
    let (home, dir, out) = (Home::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (top, to) = (dir.path().join("deep"), out.path().join("to"));
    fs::create_dir(&top).unwrap();
    // 10,500 bytes of path.
    let leaf = openat(far_below(&top, 1_500), "leaf", OFlags::WRONLY | OFlags::CREATE, Mode::RWXU).unwrap();
    rustix::io::write(leaf, b"found").unwrap();
    home.run(&["-q", "quickstart", top.to_str().unwrap()]).ok();
    let what = format!("latest:{}", top.display());
    home.run(&["restore", &what, "-t", to.to_str().unwrap(), "--verify"]).ok();
    let all = seen(&top);
    assert!(all.len() == 1_502 && seen(&to) == all, "each folder and the leaf, as they were");
    // Each folder that the walk is in is open: with too few it says how far it came, and what would help.
    let mut few = Command::new("sh");
    few.args(["-c", "ulimit -n 200 && exec \"$@\"", "sh"]).arg(binary());
    let few = few.arg("--home").arg(home.path()).args(["-q", "backup"]).arg(&top).output().unwrap();
    let said = String::from_utf8_lossy(&few.stderr);
    assert!(few.status.code() == Some(3) && said.contains("a folder in a folder takes one more"), "{said}");
    let what = format!("{}:{}", home.json(&["snapshots"])[0]["id"].as_str().unwrap(), top.display());
    // Over what is there, where it was changed at the bottom.
    let bottom = far_below(&to, 1_500);
    for name in ["leaf", "too much"] {
        let file =
            openat(&bottom, name, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC, Mode::RWXU).unwrap();
        rustix::io::write(file, b"changed").unwrap();
    }
    home.run(&["restore", &what, "-t", to.to_str().unwrap(), "--verify", "--delete"]).ok();
    let names: Vec<_> = rustix::fs::Dir::read_from(&bottom).unwrap().map(|name| name.unwrap()).collect();
    assert_eq!(names.len(), 3, "leaf, and the folder and the one above it");
    let mut found = String::new();
    let leaf = openat(&bottom, "leaf", OFlags::RDONLY, Mode::empty()).unwrap();
    std::io::Read::read_to_string(&mut fs::File::from(leaf), &mut found).unwrap();
    assert_eq!(found, "found");
    for dir in [&top, &to] {
        assert!(Command::new("rm").arg("-rf").arg(dir).status().unwrap().success());
    }
}

/// By `-x`, or as the config says; without, what is mounted below is saved too.
#[test]
fn what_is_on_another_file_system_is_saved_unless_it_is_not_wanted() {
    if !rustix::process::geteuid().is_root() {
        return skipped("only root may mount");
    }
    let (home, dir) = (Home::new(), tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join("mounted")).unwrap();
    fs::write(dir.path().join("own"), "own").unwrap();
    let path = dir.path().to_str().unwrap();
    home.run(&["-q", "quickstart", path]).ok();
    let script = format!(
        "mount -t tmpfs none {0}/mounted && mkdir {0}/mounted/in && echo f > {0}/mounted/in/f && exec \"$@\"",
        dir.path().display()
    );
    for (more, files) in [(&["--still", "off"][..], 2), (&["--still", "off", "-x"], 1)] {
        let run = home.command(&[&["--json", "backup", path][..], more].concat());
        let mut inside = Command::new("unshare");
        inside.args(["-m", "sh", "-c", &script, "sh"]).arg(run.get_program()).args(run.get_args());
        let done = inside.output().unwrap();
        if !done.status.success() && String::from_utf8_lossy(&done.stderr).contains("mount") {
            return skipped("nothing can be mounted here");
        }
        let saved: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(saved["files"], files, "{saved}");
        // The place of it is there, with nothing in it.
        let listed = home.run(&["ls", &format!("latest:{path}"), "-R"]).ok().out;
        assert!(listed.contains("mounted") && listed.contains("mounted/in/f") == (files == 2), "{listed}");
    }
}

/// What the kernel shows as files is no content of a disk: left out, and named where somebody wants it all the same.
#[test]
fn files_of_the_kernel_are_left_out_and_those_whose_size_lies_are_named() {
    let (home, other) = (Home::new(), tempfile::tempdir().unwrap());
    home.run(&["-q", "quickstart", other.path().to_str().unwrap()]).ok();
    let partial = home.run(&["--json", "backup", "/proc/sys/kernel/random"]).expect(3).json();
    let errors = partial["errors"].as_array().unwrap();
    let lies =
        |error: &serde_json::Value| error["error"].as_str().unwrap().contains("more content than its size");
    assert!(errors.iter().any(lies), "{errors:?}");
    if !rustix::process::geteuid().is_root() {
        return skipped("only root may mount");
    }
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mkdir {0}/proc && mount -t proc proc {0}/proc && echo f > {0}/f && exec \"$@\"",
        dir.path().display()
    );
    let run = home.command(&["--json", "backup", dir.path().to_str().unwrap()]);
    let mut inside = Command::new("unshare");
    inside.args(["-m", "sh", "-c", &script, "sh"]).arg(run.get_program()).args(run.get_args());
    let done = inside.output().unwrap();
    if !done.status.success() && String::from_utf8_lossy(&done.stderr).contains("mount") {
        return skipped("nothing can be mounted here");
    }
    let saved: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(
        (&saved["files"], &saved["left_out"]["file systems of the kernel"]),
        (&1.into(), &1.into()),
        "{saved}"
    );
    let listed = home.run(&["ls", &format!("latest:{}", dir.path().display())]).ok().out;
    assert_eq!(listed, "f\nproc/\n");
}
