//! Things that go wrong, each with its words and its exit code.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

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
fn one_home_has_one_server_and_a_foreign_directory_none() {
    let server = TestServer::new();
    let second = server.home.run(&["server", "run", "--listen", "127.0.0.1:0"]).expect(11);
    assert!(second.err.contains("in use by process"), "{}", second.err);
    server.home.run(&["check"]).expect(11);
    let foreign = Home::new();
    fs::create_dir(foreign.path().join("server")).unwrap();
    fs::write(foreign.path().join("server/letter.txt"), b"dear").unwrap();
    foreign.run(&["server", "run"]).expect(10);
    let refused = foreign.run(&["server", "init"]).expect(1);
    assert!(refused.err.contains("no server made"), "{}", refused.err);
    assert_eq!(fs::read(foreign.path().join("server/letter.txt")).unwrap(), b"dear");
}

/// The vault lies on a file system of its own, in a mount namespace of its own, that is soon full.
#[test]
fn a_full_disk_ends_the_session_and_harms_nothing() {
    let probe = Command::new("unshare").args(["--mount", "true"]).status();
    if !probe.is_ok_and(|status| status.success()) {
        // Without the right to mount there is no small disk to fill; the store's own tests still run.
        return;
    }
    let (home, dir, port) = (Home::new(), tempfile::tempdir().unwrap(), free_port());
    let listen = format!("127.0.0.1:{port}");
    home.run(&["server", "init", "--listen", &listen, "--name", "127.0.0.1"]).ok();
    let added = home.json(&["client", "add", "laptop"]);
    // The whole home moves to a small disk that only the server sees; its files are copied there first.
    let script = format!(
        "cp -a {0} {0}.full && mount -t tmpfs -o size=24m none {0} && cp -a {0}.full/. {0}/ && rm -rf {0}.full && exec {1} --home {0} server run",
        home.path().display(),
        binary().display(),
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
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
