//! Alerts: shown, tested, and told by a running server's config.

use std::fs;
use std::path::Path;

use backhaul_tests::listeners::{MailServer, Manners, WebServer};
use backhaul_tests::{Home, TestServer, free_port, misfit, wait_until};
use serde_json::Value;

fn assert_fits(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas").join(name);
    let schema = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(misfit(&schema, document, name), None);
}

/// A server's home whose config has an `[alerts]` section.
fn home(alerts: &str) -> Home {
    let home = Home::new();
    home.run(&["server", "init", "--listen", "127.0.0.1:0", "--name", "backup.example.org"]).ok();
    let path = home.path().join("server/config.toml");
    let config = fs::read_to_string(&path).unwrap() + alerts;
    assert_fits("config/server.json", &serde_json::to_value(config.parse::<toml::Table>().unwrap()).unwrap());
    fs::write(path, config).unwrap();
    home
}

fn mail(port: u16) -> String {
    format!(
        "[alerts.mail]\nsmtp = \"smtp://127.0.0.1:{port}\"\nfrom = \"backhaul@example.org\"\nto = [\"ops@example.org\"]\n"
    )
}

#[test]
fn a_test_message_arrives_by_every_channel() {
    let (smtp, web, dir) =
        (MailServer::start(Manners::Kind), WebServer::start("200 OK"), tempfile::tempdir().unwrap());
    let out = dir.path().join("out");
    let home = home(&format!(
        "[alerts]\nowners = true\ncommand = ['/bin/sh', '-c', 'cat > \"$1\"', 'notify', {out:?}]\n{}\
         [alerts.webhook]\nurl = \"http://127.0.0.1:{}/x\"\nheader = {{ X-Key = \"k\" }}\n",
        mail(smtp.port),
        web.port
    ));
    let told = home.run(&["alerts", "test"]).ok();
    assert!(told.out.contains("mail ops@example.org: ok: 250"), "{}", told.out);
    assert_eq!(told.out.lines().filter(|line| line.contains(": ok: ")).count(), 3, "{}", told.out);
    assert_fits("output/alerts-test.json", &home.json(&["alerts", "test"]));
    assert_eq!((smtp.mails().len(), web.requests().len()), (2, 2));
    assert!(smtp.mails()[0].text.contains("Nothing is wrong"), "{:?}", smtp.mails());
    let posted: Value = serde_json::from_str(&web.requests()[0].body).unwrap();
    assert_fits("output/alert.json", &posted);
    assert_eq!(posted["server"], "backup.example.org");
    assert!(web.requests()[0].head.contains("x-key: k"));
    let piped: Value = serde_json::from_str(&fs::read_to_string(out).unwrap()).unwrap();
    assert_eq!(piped["kind"], "test");
}

#[test]
fn a_channel_that_fails_says_why_and_the_others_are_told() {
    let (smtp, web) = (MailServer::start(Manners::Refuses(9)), WebServer::start("500 Oops"));
    let home =
        home(&format!("{}[alerts.webhook]\nurl = \"http://127.0.0.1:{}/x\"\n", mail(smtp.port), web.port));
    let told = home.run(&["alerts", "test"]).expect(1);
    assert!(told.out.contains("FAILED") && told.out.contains("451"), "{}", told.out);
    assert!(told.out.contains("500") && told.out.contains("hello"), "{}", told.out);
}

#[test]
fn without_a_channel_it_is_said_how_to_have_one() {
    let home = home("");
    let told = home.run(&["alerts", "test"]).expect(1);
    assert!(told.err.contains("[alerts]") && told.err.contains("config.toml"), "{}", told.err);
    assert!(home.run(&["alerts"]).ok().err.contains("no alert is open"));
    assert_eq!(home.json(&["alerts", "--all"]), serde_json::json!([]));
}

#[test]
fn what_is_open_is_shown_with_who_was_told() {
    let home = home("");
    home.run(&["client", "add", "laptop-7", "--owner", "ana@example.org"]).ok();
    let db = rusqlite::Connection::open(home.path().join("server/fleet.sqlite")).unwrap();
    db.execute_batch(
        "INSERT INTO alerts (kind, client, raised_at, text, obstacle)
             SELECT 'overdue', id, 1764000000, 'nothing new for 3 days', 'absent' FROM clients;
         INSERT INTO alerts (kind, network_group, raised_at, cleared_at, text, obstacle)
             VALUES ('group-silent', 'lab', 1764000000, 1764000060, '9 of 10 are silent', '');
         INSERT INTO deliveries (alert, channel, recipient, what, state, tries, created_at, next_try_at, error)
             VALUES (1, 'mail', 'ops@example.org', 'raised', 'pending', 2, 1764000000, 1764000200, '451 later');",
    )
    .unwrap();
    let open = home.run(&["alerts"]).ok();
    for part in ["SINCE", "overdue", "laptop-7", "nothing new for 3 days: absent", "0 of 1", "451 later"] {
        assert!(open.out.contains(part), "no {part:?} in {}", open.out);
    }
    assert!(!open.out.contains("lab"), "{}", open.out);
    assert!(home.run(&["alerts", "--all"]).ok().out.contains("over since"));
    let all = home.json(&["alerts", "--all"]);
    assert_fits("output/alerts.json", &all);
    assert_eq!((all.as_array().unwrap().len(), &all[0]["group"]), (2, &"lab".into()));
}

#[test]
fn a_machine_has_an_owner_until_it_has_none() {
    let home = home("");
    home.run(&["client", "add", "laptop-7", "--owner", "ana"]).expect(2);
    home.run(&["client", "add", "laptop-7", "--owner", "ana@example.org"]).ok();
    assert_eq!(home.json(&["client", "show", "laptop-7"])["owner"], "ana@example.org");
    home.run(&["client", "edit", "laptop-7", "--address", "127.0.0.1:4456"]).ok();
    assert_eq!(home.json(&["client", "show", "laptop-7"])["owner"], "ana@example.org");
    home.run(&["client", "edit", "laptop-7", "--owner", "bo"]).expect(2);
    home.run(&["client", "edit", "laptop-7", "--owner", ""]).ok();
    assert_eq!(home.json(&["client", "show", "laptop-7"])["owner"], Value::Null);
}

#[test]
fn a_config_that_cannot_work_is_refused_by_name() {
    let home = home("");
    let path = home.path().join("server/config.toml");
    let whole = fs::read_to_string(&path).unwrap();
    for (alerts, named) in [("[alerts]\nsms = true\n", "sms"), ("[alerts]\nowners = true\n", "alerts.owners")]
    {
        fs::write(&path, format!("{whole}{alerts}")).unwrap();
        let refused = home.run(&["alerts"]).expect(1);
        assert!(refused.err.contains(named) && refused.err.contains("config.toml"), "{}", refused.err);
    }
}

#[test]
fn a_running_server_tells_by_the_channels_of_its_config_once_that_was_read_again() {
    let (before, after) = (WebServer::start("200 OK"), WebServer::start("200 OK"));
    let hook = |port: u16| format!("[alerts.webhook]\nurl = \"http://127.0.0.1:{port}/x\"\n");
    let home = home(&hook(before.port));
    let daemon = home.start(&["server", "run"]);
    let raise = |kind: &str| {
        let db = rusqlite::Connection::open(home.path().join("server/fleet.sqlite")).unwrap();
        db.execute(
            "INSERT INTO alerts (kind, raised_at, text, obstacle, announce)
                 VALUES (?1, unixepoch(), 'something is wrong', '', 'raised')",
            [kind],
        )
        .unwrap();
    };
    let reload = || {
        let pid = rustix::process::Pid::from_raw(daemon.pid() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    raise("clone");
    // It looks once a minute for what others have raised, and when its config was read.
    reload();
    wait_until("the first is told", || before.requests().len() == 1);
    let path = home.path().join("server/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    let right = config.replace(&before.port.to_string(), &after.port.to_string());
    fs::write(&path, config + "nonsense").unwrap();
    reload();
    daemon.says("nonsense");
    fs::write(&path, right).unwrap();
    raise("rollout-halted");
    reload();
    wait_until("the second is told", || after.requests().len() == 1);
    assert!(after.requests()[0].body.contains("rollout-halted"), "{:?}", after.requests());
    assert_eq!(before.requests().len(), 1);
}

#[test]
fn three_failed_runs_are_told_to_the_admin_by_mail_and_webhook_and_so_is_the_next_that_works() {
    let (smtp, web) = (MailServer::start(Manners::Kind), WebServer::start("200 OK"));
    let mut server = TestServer::new();
    server.stop();
    let path = server.home.path().join("server/config.toml");
    let hook = format!("[alerts.webhook]\nurl = \"http://127.0.0.1:{}/x\"\n", web.port);
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{config}[alerts]\nowners = true\n{}{hook}", mail(smtp.port))).unwrap();
    server.start();
    let laptop = Home::new();
    server.join(&laptop, "laptop", &["--owner", "ana@example.org"], &[]);
    let words = ["backup", "--stdin-filename", "x", "--stdin-from-command", "--", "sh", "-c"];
    // Each comes while the server has still to put away what the one before has sent: that is another run all the same.
    for _ in 0..3 {
        let fails = ["head -c 12000000 /dev/urandom; exit 3"];
        assert_ne!(laptop.run(&[&words[..], &fails].concat()).code, 0);
    }
    let runs = server.home.json(&["runs"]);
    let states: Vec<_> = runs.as_array().unwrap().iter().map(|run| run["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failed"; 3], "{runs}");
    let told = |kind: &str, what: &str| {
        let posted = web.requests();
        let posted = posted.iter().filter_map(|one| serde_json::from_str::<Value>(&one.body).ok());
        posted.filter(|one| one["kind"] == kind && one["what"] == what).count() == 1
    };
    wait_until("the webhook is told", || told("failing", "raised"));
    let mails = || smtp.mails().into_iter().filter(|mail| mail.to == "ops@example.org").count();
    wait_until("the admin is told", || mails() == 1);
    let first = &smtp.mails()[0];
    assert!(first.text.contains("laptop") && first.text.contains("exit status: 3"), "{}", first.text);
    assert_eq!(server.home.json(&["alerts"])[0]["kind"], "failing");
    let dir = tempfile::tempdir().unwrap();
    laptop.run(&["backup", dir.path().to_str().unwrap()]).ok();
    wait_until("the webhook is told the end", || told("failing", "cleared"));
    wait_until("the admin is told the end", || mails() == 2);
    assert_eq!(server.home.json(&["alerts"]), serde_json::json!([]));
    // A broken backup is nothing that the owner of a machine could mend.
    assert!(smtp.mails().iter().all(|mail| mail.to == "ops@example.org"), "{:?}", smtp.mails());
}

#[test]
fn a_machine_that_is_there_and_unwilling_is_overdue_and_its_owner_is_told_as_well_as_the_admin() {
    let smtp = MailServer::start(Manners::Kind);
    // Late after ten seconds, told of a second later.
    let policy = "[policy.default]\nperiod = \"10s\"\nrpo = \"10s\"\nspread = \"1s\"\nalert_after = \"1s\"\n";
    let mut server = TestServer::with_policy(policy);
    server.stop();
    let path = server.home.path().join("server/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{config}[alerts]\nowners = true\n{}", mail(smtp.port))).unwrap();
    server.start();
    let (laptop, dir) = (Home::new(), tempfile::tempdir().unwrap());
    server.join(&laptop, "laptop", &["--initiator", "hybrid", "--owner", "ana@example.org"], &[dir.path()]);
    laptop.run(&["agent", "pause"]).ok();
    let _agent = laptop.start(&["agent", "run", "--no-listen"]);
    let told = |words: &str| {
        let mails = smtp.mails();
        let about = |to: &str| mails.iter().any(|mail| mail.to == to && mail.text.contains(words));
        about("ana@example.org") && about("ops@example.org")
    };
    wait_until("both are told", || told("laptop"));
    let alerts = server.home.json(&["alerts"]);
    assert_eq!((&alerts[0]["kind"], &alerts[0]["client"]), (&"overdue".into(), &"laptop".into()), "{alerts}");
    laptop.run(&["agent", "resume"]).ok();
    wait_until("both are told that it is over", || told(" again"));
}

#[test]
fn a_network_that_falls_silent_is_one_mail_however_many_machines_are_in_it_and_so_is_its_return() {
    let smtp = MailServer::start(Manners::Kind);
    let policy = "[policy.default]\nperiod = \"10s\"\nrpo = \"1h\"\nspread = \"1s\"\n[groups]\nlab = [\"127.0.0.0/8\"]\n";
    let mut server = TestServer::new();
    let (dir, mut desks) = (tempfile::tempdir().unwrap(), Vec::new());
    for n in 0..4 {
        let (desk, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
        let pulled = ["--initiator", "server", "--address", &address];
        server.join(&desk, &format!("desk-{n}"), &pulled, &[dir.path()]);
        // From now on its network is known, and nobody listens there.
        desk.run(&["backup"]).ok();
        desks.push(desk);
    }
    server.stop();
    let path = server.home.path().join("server/config.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{config}{}", mail(smtp.port))).unwrap();
    server.start();
    let file = dir.path().join("policy.toml");
    fs::write(&file, policy).unwrap();
    server.home.run(&["policy", "apply", file.to_str().unwrap()]).ok();
    let open = || server.home.json(&["alerts"]);
    wait_until("it is told", || smtp.mails().len() == 1);
    let told = &smtp.mails()[0].text;
    assert!(told.contains("lab") && told.contains("most of its 4 machines"), "{told}");
    assert_eq!(
        (&open()[0]["kind"], &open()[0]["group"]),
        (&"group-silent".into(), &"lab".into()),
        "{}",
        open()
    );
    let why = |row: &Value| row["why"].as_str().unwrap().contains("lab does not answer");
    wait_until("status says so", || server.home.json(&["status"]).as_array().unwrap().iter().any(why));
    desks[0].run(&["backup"]).ok();
    wait_until("its return is told", || smtp.mails().len() == 2);
    assert!(smtp.mails()[1].text.contains("answers again"), "{}", smtp.mails()[1].text);
    assert_eq!(open(), serde_json::json!([]));
}
