//! Every `--json` document fits its schema.

use std::path::Path;

use backhaul_tests::{Home, TestServer, misfit, trees};
use serde_json::Value;

pub(crate) fn assert_fits(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/output").join(name);
    assert_fits_at(&path, name, document);
}

fn assert_fits_at(path: &Path, name: &str, document: &Value) {
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(misfit(&schema, document, name), None);
}

#[test]
fn documents_fit_their_schemas() {
    let (mut server, dir, out) =
        (TestServer::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let added = server.home.json(&["client", "add", "laptop"]);
    assert_fits("client-add.json", &added);
    assert_fits("status.json", &server.home.json(&["status"]));
    let client = Home::new();
    client.run(&["join", added["join_code"].as_str().unwrap(), tree.to_str().unwrap()]).ok();
    assert_fits("backup.json", &client.json(&["backup", "--dry-run"]));
    assert_fits("backup.json", &client.json(&["backup", "--tag", "t"]));
    assert_fits("snapshots.json", &client.json(&["snapshots"]));
    assert_fits("restore.json", &client.json(&["restore", "latest", "-t", out.path().to_str().unwrap()]));
    assert_fits("stats.json", &client.json(&["stats"]));
    assert_fits("stats.json", &server.home.json(&["stats"]));
    assert_fits("status.json", &server.home.json(&["status"]));
    assert_fits("runs.json", &server.home.json(&["runs"]));
    assert_fits("plan.json", &server.home.json(&["plan", "--until", "2d"]));
    assert_fits("explain.json", &server.home.json(&["explain", "laptop", "--what-if", "rpo=4h"]));
    server.stop();
    assert_fits("check.json", &server.home.json(&["check"]));
    assert_fits("check-status.json", &server.home.json(&["check", "--status"]));
    assert_fits("check.json", &server.home.json(&["check", "--rebuild-index", "--read-data"]));
}

#[test]
fn failures_are_documents_too() {
    let failed = Home::new().run(&["--json", "backup", "/etc"]).expect(10).json();
    assert_eq!(failed["code"], 10);
    assert!(failed["error"].is_string() && failed["hint"].is_string(), "{failed}");
}

#[test]
fn configs_fit_their_schemas_and_a_key_that_is_not_in_them_is_named() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    server.stop();
    for (home, role) in [(&server.home, "server"), (&client, "agent")] {
        let path = home.path().join(role).join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let document = serde_json::to_value(text.parse::<toml::Table>().unwrap()).unwrap();
        let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../schemas/config/{role}.json"));
        assert_fits_at(&schema, role, &document);
        std::fs::write(&path, format!("colour = \"blue\"\n{text}")).unwrap();
    }
    let refused = server.home.run(&["server", "run"]).expect(1);
    assert!(refused.err.contains("colour") && refused.err.contains("config.toml"), "{}", refused.err);
    let refused = client.run(&["agent", "status"]).expect(1);
    assert!(refused.err.contains("colour") && refused.err.contains("config.toml"), "{}", refused.err);
}

#[test]
fn what_is_known_of_clients_is_shown_on_both_sides() {
    let (mut server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let client = server.client("laptop", &[dir.path()]);
    server.add("desk", &["--initiator", "pull", "--address", "desk:4456"]);
    client.run(&["backup"]).ok();
    let list = server.home.json(&["client", "list"]);
    let shown: Vec<_> =
        list.as_array().unwrap().iter().map(|c| (c["name"].as_str(), c["state"].as_str())).collect();
    assert_eq!(shown, [(Some("desk"), Some("invited")), (Some("laptop"), Some("active"))]);
    assert_eq!(list[0]["initiator"], "server");
    let laptop = server.home.json(&["client", "show", "laptop"]);
    assert_eq!(laptop["last_run"]["state"], "done", "{laptop}");
    let status = client.json(&["agent", "status"]);
    assert!(status["reachable"] == true && status["newest"].is_string(), "{status}");
    server.stop();
    let status = client.json(&["agent", "status"]);
    assert!(status["reachable"] == false && status["why"].is_string(), "{status}");
}

#[test]
fn the_policy_file_of_the_documentation_fits_its_schema_and_is_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("docs/scheduling.md")).unwrap();
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let schema = root.join("schemas/config/policy.json");
    let document = serde_json::to_value(example.parse::<toml::Table>().unwrap()).unwrap();
    assert_fits_at(&schema, "policy", &document);
    let server = TestServer::new();
    let file = server.home.path().join("documented.toml");
    let refused = |text: &str| {
        std::fs::write(&file, text).unwrap();
        server.home.run(&["--json", "policy", "apply", file.to_str().unwrap(), "--dry-run"])
    };
    assert_eq!(refused(example).ok().json()["changes"][1]["policy"], "laptops");
    // What the schema does not know is not taken either.
    for section in document.as_object().unwrap().keys().filter(|section| *section != "groups") {
        let mut more = document.clone();
        let place = if section == "policy" { &mut more["policy"]["laptops"] } else { &mut more[section] };
        place["colour"] = "blue".into();
        let known = serde_json::from_str(&std::fs::read_to_string(&schema).unwrap()).unwrap();
        assert!(misfit(&known, &more, section).is_some_and(|why| why.contains("colour")), "{section}");
        let text = toml::to_string(&more).unwrap();
        assert!(refused(&text).expect(2).json()["error"].to_string().contains("colour"), "{section}");
    }
}
