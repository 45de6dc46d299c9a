//! systemd units: what systemd itself says about them.

use std::fs;
use std::path::Path;
use std::process::Command;

use backhaul_tests::{Home, binary, misfit};

/// What `systemd-analyze verify` complains about; nothing when it is not installed.
#[allow(clippy::print_stderr, reason = "a check that nobody has made must be seen")]
fn complaints(unit: &Path, user: bool) -> String {
    let mut command = Command::new("systemd-analyze");
    if user {
        // A user who is logged in has one.
        command.arg("--user").env("XDG_RUNTIME_DIR", unit.parent().unwrap());
    }
    match command.args(["verify", "--man=no", "--recursive-errors=no"]).arg(unit).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{said}");
            said
        }
        Err(error) => {
            eprintln!(
                "SKIPPED: systemd-analyze is not there ({error}): nobody has checked {}",
                unit.display()
            );
            String::new()
        }
    }
}

fn printed(home: &Home, args: &[&str]) -> String {
    home.run(args).ok().out
}

#[test]
fn both_units_are_printed_and_systemd_finds_no_fault() {
    let (home, dir) = (Home::new(), tempfile::tempdir().unwrap());
    for (role, more) in [("server", &[][..]), ("agent", &["--listen", "127.0.0.1:4456"][..])] {
        for user in [&[][..], &["--user"][..]] {
            let unit = printed(&home, &[&[role, "install", "--print"], user, more].concat());
            let program = fs::canonicalize(binary()).unwrap().display().to_string();
            let program = if program.contains(' ') { format!("\"{program}\"") } else { program };
            let start = format!(
                "ExecStart={program} --home {} {role} run{}",
                home.path().display(),
                more.iter().map(|word| format!(" {word}")).collect::<String>(),
            );
            for line in [
                start.as_str(),
                "Type=notify",
                "KillMode=mixed",
                "Restart=on-failure",
                "TimeoutStopSec=90",
                "ExecReload=/bin/kill -HUP $MAINPID",
                "NoNewPrivileges=yes",
            ] {
                assert!(unit.lines().any(|one| one == line), "no {line:?} in {unit}");
            }
            assert!(!unit.contains("ProtectHome") && !unit.contains("PrivateTmp"), "it hides files: {unit}");
            for weight in ["Nice=10", "CPUWeight=20", "IOWeight=20", "IOSchedulingClass=best-effort"] {
                assert_eq!(unit.lines().any(|one| one == weight), role == "agent", "{weight}: {unit}");
            }
            let path = dir.path().join(format!("backhaul-{role}.service"));
            fs::write(&path, unit).unwrap();
            assert_eq!(complaints(&path, !user.is_empty()), "", "{role} {user:?}");
        }
    }
}

#[test]
fn a_unit_is_written_and_what_comes_next_is_said() {
    let (home, dir) = (Home::new(), tempfile::tempdir().unwrap());
    let units = dir.path().join("units");
    let to = ["--dir", units.to_str().unwrap()];
    let done = home.run(&[&["server", "install"], &to[..]].concat()).ok();
    for part in
        ["backhaul-server.service", "server init", "systemctl daemon-reload", "systemctl enable --now"]
    {
        assert!(done.out.contains(part), "no {part:?} in {}", done.out);
    }
    home.run(&["server", "init"]).ok();
    let done = home.json(&[&["server", "install"], &to[..]].concat());
    assert_eq!(done["next"][0], "systemctl daemon-reload", "{done}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/output/install.json");
    let schema = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(misfit(&schema, &done, "install.json"), None);
    let written = fs::read_to_string(units.join("backhaul-server.service")).unwrap();
    assert_eq!(done["unit"], written.as_str());
    home.run(&["agent", "install", "--print", "--dir", "/nowhere"]).expect(2);
}

#[test]
fn a_home_with_blanks_and_signs_is_quoted_as_systemd_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("my 100% \"$HOME\"");
    for role in ["server", "agent"] {
        let mut command = Command::new(binary());
        let output = command.arg("--home").arg(&home).args([role, "install", "--print"]).output().unwrap();
        assert!(output.status.success());
        let path = dir.path().join(format!("backhaul-{role}.service"));
        fs::write(&path, output.stdout).unwrap();
        assert_eq!(complaints(&path, false), "");
    }
}

#[test]
fn who_may_not_write_there_is_told_what_to_do() {
    let home = Home::unprivileged();
    if rustix::process::geteuid().is_root() || !Path::new("/etc/systemd/system").exists() {
        let refused = home.run(&["server", "install"]).expect(2);
        assert!(refused.err.contains("--user") && refused.err.contains("--print"), "{}", refused.err);
    }
}
