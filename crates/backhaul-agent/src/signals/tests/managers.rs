//! The real NetworkManager and the real logind, each with a bus, devices and a `/run` of its own. They are skipped where
//! these programs are not installed, or where the test may not make such a place.

use super::*;

const MANAGER: &str = "/usr/sbin/NetworkManager";
const LOGIND: &str = "/lib/systemd/systemd-logind";
/// Nothing of the machine's own: without `/sys` to write, it does not wait for udev.
const CONFIG: &str = "[main]\nplugins=keyfile\ndns=none\nrc-manager=unmanaged\nauth-polkit=false\n\
                      [connectivity]\nenabled=false\n";

/// Runs the rest of a test in a place of its own, with a bus; false where there is none, and in the inner process.
fn in_a_place_of_its_own(test: &str, needs: &[&str]) -> bool {
    if is_inner() {
        return false;
    }
    let mut may = Command::new("unshare");
    may.args(["-n", "-m", "mount", "-t", "tmpfs", "tmpfs", "/run"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let missing = needs.iter().find(|program| !std::path::Path::new(program).exists());
    let dir = tempfile::tempdir().unwrap();
    match (missing, may.status().is_ok_and(|status| status.success()), private_bus(dir.path())) {
        (Some(missing), ..) => eprintln!("SKIPPED: no {missing} here"),
        (_, false, _) => eprintln!("SKIPPED: no namespaces here"),
        (.., None) => eprintln!("SKIPPED: no dbus-daemon here"),
        (None, true, Some((_daemon, address))) => {
            let mut inner = again(&format!("managers::{test}"), &["unshare", "-n", "-m"]);
            inner.env("DBUS_SYSTEM_BUS_ADDRESS", address).env("BACKHAUL_TEST_DIR", dir.path());
            assert!(inner.status().unwrap().success());
        }
    }
    true
}

fn does(words: &str) -> Option<String> {
    let mut words = words.split(' ');
    let done = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    done.status.success().then_some(said)
}

fn must(words: &str) {
    assert!(does(words).is_some(), "{words}");
}

async fn wait_until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENT, wait).await.is_ok(), "waited in vain until {what}");
}

fn starts(mut program: Command) -> Ended {
    Ended(program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_networkmanager_calls_metered_is_metered() {
    let test = "a_connection_that_networkmanager_calls_metered_is_metered";
    if in_a_place_of_its_own(test, &[MANAGER, "/usr/bin/nmcli"]) {
        return;
    }
    let dir = std::path::PathBuf::from(std::env::var_os("BACKHAUL_TEST_DIR").unwrap());
    must("mount -t tmpfs tmpfs /run");
    must("mount -t tmpfs tmpfs /var/lib/NetworkManager");
    must("mount -t sysfs -o ro sysfs /sys");
    for words in [
        "link set lo up",
        "link add cable type veth peer name other",
        "addr add 192.0.2.1/24 dev other",
        "link set other up",
    ] {
        ip(words);
    }
    let connections = dir.join("connections");
    std::fs::create_dir(&connections).unwrap();
    let config = dir.join("nm.conf");
    std::fs::write(&config, format!("{CONFIG}[keyfile]\npath={}\n", connections.display())).unwrap();
    let mut manager = Command::new(MANAGER);
    manager.arg("--no-daemon").arg("--config").arg(&config);
    for own in ["--config-dir", "--system-config-dir", "--intern-config"] {
        manager.arg(own).arg(dir.join("none"));
    }
    let _manager = starts(manager);
    wait_until("it knows the device", async || does("nmcli -g STATE general").is_some()).await;
    must(
        "nmcli connection add type ethernet ifname cable con-name c autoconnect no ipv4.method manual \
         ipv4.addresses 192.0.2.2/24 ipv4.gateway 192.0.2.1 ipv6.method disabled connection.metered yes",
    );
    let up = async || does("nmcli connection up c").is_some();
    wait_until("it is connected", up).await;
    let mut bus = Bus::default();
    let mut is = async |wanted| metered::ask(&mut bus, None).await == wanted;
    wait_until("it counts bytes", async || is(Metered::Yes).await).await;
    let fast = Senses { metered_ms: 50, ..senses() };
    let (_signals, mut told) = Signals::start(towards("198.51.100.7:443"), fast);
    let metered = async |told: &mut Receiver<Signal>| {
        first(told, |signal| match signal {
            Signal::Metered(metered) => Some(metered),
            _ => None,
        })
        .await
    };
    assert_eq!(metered(&mut told).await, Metered::Yes);
    must("nmcli connection modify c connection.metered no");
    wait_until("it is connected again", up).await;
    assert_eq!(metered(&mut told).await, Metered::No);
}

#[tokio::test]
async fn logind_keeps_the_machine_awake_for_as_long_as_a_run_takes() {
    let test = "logind_keeps_the_machine_awake_for_as_long_as_a_run_takes";
    if in_a_place_of_its_own(test, &[LOGIND, "/usr/bin/systemd-inhibit"]) {
        return;
    }
    must("mount -t tmpfs tmpfs /run");
    for name in ["seats", "users", "sessions", "inhibit"] {
        std::fs::create_dir_all(format!("/run/systemd/{name}")).unwrap();
    }
    let _logind = starts(Command::new(LOGIND));
    let list = || does("systemd-inhibit --list --no-legend --no-pager");
    wait_until("logind answers", async || list().is_some()).await;
    let held = || list().unwrap_or_default();
    assert!(!held().contains("Backhaul"), "{}", held());
    let mains = Power { supply: Supply::Mains, battery_percent: None };
    let lock = during_run(&Conditions { power: mains, ..Conditions::default() }).await;
    assert!(lock.is_some());
    let said = held();
    assert!(said.contains("Backhaul") && said.contains("idle") && said.contains("block"), "{said}");
    drop(lock);
    wait_until("the lock is given back", async || !held().contains("Backhaul")).await;
}
