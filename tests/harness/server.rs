//! A server in a home of its own, on a port of its own.

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::{Daemon, Home, trees};

/// A port of this machine that nobody uses, and that no outgoing socket of a neighbour is given by chance
/// before a server takes it: they come from 32768 and above (net.ipv4.ip_local_port_range). Nor does another
/// process of tests take it: whoever holds the TCP port of a number owns the number until it ends.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static OWNED: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());
    let start = std::process::id().wrapping_mul(97);
    let (port, owner) = (0..COUNT)
        .map(|_| start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST)
        .filter_map(|port| u16::try_from(port).ok())
        .filter_map(|port| Some((port, TcpListener::bind(("127.0.0.1", port)).ok()?)))
        .find(|(port, _)| UdpSocket::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port");
    OWNED.lock().unwrap().push(owner);
    port
}

/// The night's chores are not done because a test runs in the night.
pub const NO_NIGHT: &str = "\n[nightly]\nat = \"never\"\n";

/// A server in a home of its own.
pub struct TestServer {
    /// Its home.
    pub home: Home,
    /// Its port.
    pub port: u16,
    daemon: Option<Daemon>,
}

impl Default for TestServer {
    fn default() -> Self {
        Self::new()
    }
}

impl TestServer {
    /// A running server that starts nothing by itself: the window of its policy is shut for hours.
    pub fn new() -> Self {
        Self::with_policy(&format!("{}[admission]\nslots = 8\n", Self::quiet_policy()))
    }

    /// A policy under which nothing starts by itself for hours.
    pub fn quiet_policy() -> String {
        Self::daily(4, 5)
    }

    /// A policy under which everybody is due at once, and a day later again: the day begins twelve hours ago,
    /// whatever the clock says.
    pub fn due_policy() -> String {
        // A window that closes when it opens is always open.
        Self::daily(12, 12) + "spread = \"1m\"\n"
    }

    /// A policy with a window from and to so many hours from now.
    fn daily(from: u64, to: u64) -> String {
        let hour = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 3_600;
        let (from, to) = ((hour + from) % 24, (hour + to) % 24);
        let window = format!("from = \"{from:02}:00\", to = \"{to:02}:00\", tz = \"UTC\"");
        format!("[policy.default]\nwindow = {{ {window} }}\n")
    }

    /// A running server with a policy file.
    pub fn with_policy(policy: &str) -> Self {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        Self::at(&listen, "127.0.0.1", policy)
    }

    /// A running server with a policy file, that listens somewhere and is found under a name.
    pub fn at(listen: &str, name: &str, policy: &str) -> Self {
        let home = Home::new();
        let port = listen.parse::<std::net::SocketAddr>().unwrap().port();
        home.run(&["server", "init", "--listen", listen, "--name", name]).ok();
        let config = home.path().join("server/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(config, text + NO_NIGHT).unwrap();
        let file = home.path().join("policy.toml");
        std::fs::write(&file, policy).unwrap();
        home.run(&["policy", "apply", file.to_str().unwrap()]).ok();
        let mut server = Self { home, port, daemon: None };
        server.start();
        server
    }

    /// What it has said on standard error since it was started last.
    pub fn said(&self) -> String {
        self.daemon.as_ref().map(Daemon::said).unwrap_or_default()
    }

    /// Waits until it has said something since it was started last.
    pub fn says(&self, words: &str) {
        self.daemon.as_ref().unwrap().says(words);
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Starts it again.
    pub fn start(&mut self) {
        self.daemon = Some(self.home.start(&["-v", "server", "run"]));
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        self.daemon.take().unwrap().terminate();
    }

    /// Ends it in order, without waiting for what is under way.
    pub fn stop_at_once(&mut self) {
        self.daemon.take().unwrap().terminate_at_once();
    }

    /// Ends it as a power cut does.
    pub fn kill(&mut self) {
        self.daemon.take().unwrap().kill();
    }

    /// Adds a client and returns its code.
    pub fn add(&self, name: &str, more: &[&str]) -> String {
        let added = self.home.json(&[&["client", "add", name], more].concat());
        added["join_code"].as_str().unwrap().to_owned()
    }

    /// Adds a client and joins it in a home of its own.
    pub fn client(&self, name: &str, paths: &[&Path]) -> Home {
        let home = Home::new();
        self.join(&home, name, &[], paths);
        home
    }

    /// Adds and joins a client that only listens, at this address: to its agent the server is nowhere, so that it is
    /// dialled and never comes by itself.
    pub fn listener(&self, name: &str, paths: &[&Path]) -> (Home, String) {
        let (home, address) = (Home::new(), format!("127.0.0.1:{}", free_port()));
        self.join(&home, name, &["--initiator", "server", "--address", &address], paths);
        let config = home.path().join("agent/config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let nowhere = text.replace(&format!(":{}", self.port), ":1");
        assert_ne!(text, nowhere, "the config does not say where the server is");
        std::fs::write(config, nowhere).unwrap();
        (home, address)
    }

    /// Adds a client and joins it in a given home.
    pub fn join(&self, home: &Home, name: &str, more: &[&str], paths: &[&Path]) {
        let code = self.add(name, more);
        let paths: Vec<&str> = paths.iter().map(|path| path.to_str().unwrap()).collect();
        home.run(&[&["join", &code], &paths[..]].concat()).ok();
    }

    /// The packs of its vault, sealed ones only.
    pub fn packs(&self) -> Vec<PathBuf> {
        trees::files(&self.home.path().join("server/vaults/main/packs"))
    }

    /// As [`Home::vault_bytes`] of its home.
    pub fn vault_bytes(&self) -> u64 {
        self.home.vault_bytes()
    }
}
