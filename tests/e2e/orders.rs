//! What the server's operator and a machine's owner order: bounds are kept, a stop loses nothing, a knock is heard, and a
//! refusal is respected.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backhaul_tests::{Home, TestServer, free_port, trees, wait_until};
use serde_json::Value;

const MEGABYTE: usize = 1_000_000;

fn bulk(dir: &Path, name: &str, megabytes: u64) -> std::path::PathBuf {
    let root = dir.join(name);
    fs::create_dir(&root).unwrap();
    for i in 0..megabytes {
        let seed = i + 1_000 * name.bytes().map(u64::from).sum::<u64>();
        fs::write(root.join(format!("{i}")), trees::noise(MEGABYTE, seed)).unwrap();
    }
    root
}

fn runs(server: &TestServer, client: &str) -> Vec<Value> {
    server.home.json(&["runs", "--client", client]).as_array().unwrap().clone()
}

fn status(server: &TestServer, client: &str) -> Value {
    let all = server.home.json(&["status"]);
    all.as_array().unwrap().iter().find(|row| row["client"] == client).unwrap().clone()
}

#[test]
fn bytes_a_second_are_bounded_over_all_clients_together() {
    let policy = TestServer::due_policy() + "[admission]\nslots = 4\nbytes_per_s = \"4MB\"\n";
    let (server, dir) = (TestServer::with_policy(&policy), tempfile::tempdir().unwrap());
    let names = ["one", "two", "three"];
    let homes = names.map(|name| server.client(name, &[&bulk(dir.path(), name, 5)]));
    let start = Instant::now();
    let running: Vec<_> = homes
        .iter()
        .map(|home| home.command(&["-q", "backup"]).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for mut run in running {
        assert!(run.wait().unwrap().success());
    }
    // 15 MB at 4 MB a second, less what passes at once. Each alone would take a third of it.
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_server_that_is_told_to_stop_lets_a_run_end_and_whoever_waits_comes_back() {
    let policy = TestServer::due_policy() + "checkin = { join_jitter = \"1s\" }\n[admission]\nslots = 1\n";
    let (mut server, dir) = (TestServer::with_policy(&policy), tempfile::tempdir().unwrap());
    let (first, second) = (server.client("first", &[]), Home::new());
    server.join(&second, "second", &["--initiator", "hybrid"], &[&bulk(dir.path(), "second", 1)]);
    // It ends when it is let go, and not before.
    let mut running = first.command(&["-q", "backup", "--stdin", "--stdin-filename", "stream"]);
    let mut running = running.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut stream = running.stdin.take().unwrap();
    wait_until("the first has begun", || runs(&server, "first").iter().any(|run| run["state"] == "running"));
    let agent = second.start(&["-v", "agent", "run", "--no-listen"]);
    agent.says("waits for a slot");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            stream.write_all(&trees::noise(12 * MEGABYTE, 1)).unwrap();
            drop(stream);
        });
        server.stop();
    });
    assert!(running.wait().unwrap().success(), "what had begun has ended well");
    assert!(runs(&server, "second").iter().all(|run| run["state"] != "running"), "nothing new was begun");
    server.start();
    wait_until("the second is backed up", || {
        runs(&server, "second").iter().any(|run| run["state"] == "done")
    });
    let first = runs(&server, "first");
    assert!(first.len() == 1 && first[0]["state"] == "done", "{first:?}");
}

#[test]
fn a_client_without_a_link_is_knocked_at_and_comes_by_itself() {
    let policy = format!("{}[admission]\nslots = 2\n", TestServer::quiet_policy());
    let (server, dir) = (TestServer::with_policy(&policy), tempfile::tempdir().unwrap());
    let (laptop, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
    server.join(&laptop, "laptop", &["--initiator", "client"], &[&bulk(dir.path(), "tree", 1)]);
    let agent = laptop.start(&["-vv", "agent", "run", "--listen", &address]);
    wait_until("it was there", || status(&server, "laptop")["seen"].is_string());
    wait_until("it has no link", || status(&server, "laptop")["link"] == "");
    server.home.run(&["client", "nudge", "laptop"]).ok();
    wait_until("it has come", || runs(&server, "laptop").iter().any(|run| run["state"] == "done"));
    let all = runs(&server, "laptop");
    assert!(all.len() == 1 && all[0]["trigger"] == "nudge" && all[0]["initiator"] == "client", "{all:?}");
    agent.says("Push { trigger: Nudge");
}

#[test]
fn a_machine_that_refuses_pulls_is_not_pulled_and_the_server_says_why() {
    let (server, dir) = (TestServer::with_policy(&TestServer::due_policy()), tempfile::tempdir().unwrap());
    // One that cannot come by itself: whoever asks for a run has what they want, too, if the client happens to come.
    let (desk, address) = server.listener("desk", &[&bulk(dir.path(), "tree", 1)]);
    let path = desk.path().join("agent/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("refuse_pulls = true\n{config}")).unwrap();
    let _agent = desk.start(&["agent", "run", "--listen", &address]);
    wait_until("the server knows", || {
        let row = status(&server, "desk");
        row["obstacle"] == "gated" && row["why"].as_str().unwrap().contains("refuses to be pulled")
    });
    let asked = server.home.run(&["--json", "client", "run", "desk", "--wait"]).expect(1);
    assert!(asked.json()[0]["why"].as_str().unwrap().contains("refuses to be pulled"), "{}", asked.out);
    let all = runs(&server, "desk");
    assert!(all.iter().all(|run| run["snapshot"].is_null()), "{all:?}");
    // Its own word is heard again at once.
    fs::write(&path, config).unwrap();
    server.home.run(&["client", "run", "desk", "--wait"]).ok();
}
