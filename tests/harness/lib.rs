//! Real processes on loopback, in temporary homes, and trees of files to save.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, reason = "for tests only")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;

pub mod cases;
pub mod clocks;
pub mod dice;
pub mod listeners;
pub mod month;
pub mod mounts;
pub mod netns;
pub mod relay;
pub mod trees;
pub mod volumes;

/// Longest that anything here may take.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// The binary under test, built first if need be; `BACKHAUL_PROGRAM` names another.
pub fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        if let Some(given) = std::env::var_os("BACKHAUL_PROGRAM") {
            return given.into();
        }
        let program = std::env::current_exe().unwrap();
        let dir = program.parent().unwrap();
        // Tests lie one level below the profile's directory, benchmarks in it.
        let profile_dir = if dir.ends_with("deps") { dir.parent().unwrap() } else { dir }.to_path_buf();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        build.args(["build", "--quiet", "--bin", "backhaul"]);
        if profile_dir.ends_with("release") {
            build.args(["--release", "--package", "backhaul"]);
        } else {
            // Selected as `cargo test --workspace` selects, with a test, every dependency has the features that
            // it has there, and none is built a second time.
            build.args(["--workspace", "--test", "tidy"]);
        }
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(status.success(), "the binary does not build");
        profile_dir.join("backhaul")
    })
}

/// Says where a document does not fit a JSON schema of ours: the few keywords that they use.
pub fn misfit(schema: &Value, value: &Value, at: &str) -> Option<String> {
    let no = |why: &str| Some(format!("{at}: {why}: {value}"));
    if let Some(any) = schema["anyOf"].as_array() {
        return if any.iter().any(|one| misfit(one, value, at).is_none()) { None } else { no("fits none") };
    }
    if let Some(choices) = schema["enum"].as_array() {
        return if choices.contains(value) { None } else { no("is no choice") };
    }
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        other => panic!("{at}: type {other:?}"),
    };
    if !fits {
        return no("is of another type");
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            return no(&format!("lacks {name}"));
        }
    }
    let items = value.as_array().into_iter().flatten().enumerate();
    let in_items = items.filter_map(|(i, item)| misfit(&schema["items"], item, &format!("{at}[{i}]")));
    let fields = value.as_object().into_iter().flatten();
    let in_fields = fields.filter_map(|(name, field)| {
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) => Some(format!("{at}: {name} is not in the schema")),
            (Value::Null, more) => misfit(more, field, &format!("{at}.{name}")),
            (known, _) => misfit(known, field, &format!("{at}.{name}")),
        }
    });
    in_items.chain(in_fields).next()
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Done {
    /// Runs a command to its end.
    pub fn of(mut command: Command) -> Self {
        let output = command.output().unwrap();
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asserts success.
    pub fn ok(self) -> Self {
        self.expect(0)
    }

    /// Asserts an exit code.
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// The JSON document on standard output.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error} in:\n{}\n{}", self.out, self.err))
    }
}

/// Runs a command to its end; with the most memory that it had, in MiB, which the kernel keeps.
pub fn measured(mut command: Command) -> (Done, f64) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (pid, mut stderr) = (child.id(), child.stderr.take().unwrap());
    let heard = std::thread::spawn(move || {
        let mut err = String::new();
        std::io::Read::read_to_string(&mut stderr, &mut err).map(|_| err)
    });
    let mut peak: f64 = 0.0;
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or(0.0) / 1_024.0);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let err = heard.join().unwrap().unwrap();
    (Done { code: status.code().unwrap_or(-1), out: String::new(), err }, peak)
}

/// A temporary home.
pub struct Home {
    dir: TempDir,
    /// Run as nobody, so that there are things it may not read.
    unprivileged: bool,
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

impl Home {
    /// An empty home.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), unprivileged: false }
    }

    /// A home whose commands do not run as root.
    pub fn unprivileged() -> Self {
        let home = Self { unprivileged: rustix::process::geteuid().is_root(), ..Self::new() };
        if home.unprivileged {
            std::os::unix::fs::chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        home
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A command in this home, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        // A backtrace of a debug build takes seconds: a test that waits would fail of that, not of the fault.
        command.env_remove("RUST_LOG").env("RUST_BACKTRACE", "0");
        command.arg("--home").arg(self.path()).args(args);
        self.as_its_user(&mut command);
        command
    }

    /// Makes a command run as the user whose home this is.
    pub fn as_its_user(&self, command: &mut Command) {
        if self.unprivileged {
            std::os::unix::process::CommandExt::uid(command, NOBODY);
        }
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Done {
        Done::of(self.command(args))
    }

    /// Runs a command with `--json` that must succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        self.run(&[&["--json"], args].concat()).ok().json()
    }

    /// Starts a daemon and waits until it listens.
    pub fn start(&self, args: &[&str]) -> Daemon {
        Daemon::start(self.command(args))
    }
}

const NOBODY: u32 = 65_534;

/// A running process that ends with its owner.
pub struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
    listening: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts a command and waits for its "listening on".
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said: Arc<Mutex<String>> = Arc::default();
        for line in lines.by_ref() {
            let line = line.unwrap();
            said.lock().unwrap().push_str(&format!("{line}\n"));
            if line.starts_with("listening on ") || line.starts_with("not listening") {
                let log = Arc::clone(&said);
                let note = move |line| log.lock().unwrap().push_str(&format!("{line}\n"));
                let listening = std::thread::spawn(move || lines.map_while(Result::ok).for_each(note));
                return Self { child, said, listening: Some(listening) };
            }
        }
        let status = child.wait().unwrap();
        panic!("it did not listen: {} ({status})", said.lock().unwrap());
    }

    /// What it has said on standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said something: what others see of it may be faster than its log is read.
    pub fn says(&self, words: &str) {
        let start = Instant::now();
        while !self.said().contains(words) {
            assert!(start.elapsed() < PATIENCE, "it never said {words:?}, but:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as an orderly shutdown does; all that it has said.
    pub fn terminate(mut self) -> String {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        self.listening.take().unwrap().join().unwrap();
        self.said()
    }

    /// Ends it in order, without waiting for what is under way.
    pub fn terminate_at_once(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        assert!(self.child.wait().unwrap().success());
    }

    /// Ends it as a power cut does.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(60)..].join("\n");
            let _ = writeln!(std::io::stderr(), "process {}:\n{last}", self.pid());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

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

    /// Bytes in its vault.
    pub fn vault_bytes(&self) -> u64 {
        let vault = self.home.path().join("server/vaults/main");
        let files = ["packs", "open"].iter().flat_map(|dir| trees::files(&vault.join(dir)));
        files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
    }
}

/// Waits until something is true.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
