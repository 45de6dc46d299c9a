//! Every `--json` document fits its schema.

use std::path::Path;

use backhaul_tests::{Home, TestServer, misfit, trees};
use serde_json::Value;

fn assert_fits(name: &str, document: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/output").join(name);
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
    server.stop();
    assert_fits("check.json", &server.home.json(&["check"]));
    assert_fits("check.json", &server.home.json(&["check", "--rebuild-index", "--read-data"]));
}

#[test]
fn failures_are_documents_too() {
    let failed = Home::new().run(&["--json", "backup", "/etc"]).expect(10).json();
    assert_eq!(failed["code"], 10);
    assert!(failed["error"].is_string() && failed["hint"].is_string(), "{failed}");
}
