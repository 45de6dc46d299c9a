//! Real processes on loopback, in temporary homes, and trees of files to save.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, reason = "for tests only")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub mod cases;
pub mod clocks;
mod daemon;
pub mod dice;
pub mod letterbox;
pub mod listeners;
pub mod month;
pub mod mounts;
pub mod netns;
pub mod relay;
mod server;
pub mod strange;
pub mod trees;
pub mod volumes;

pub use daemon::Daemon;
pub use server::{NO_NIGHT, TestServer, free_port};

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
            (Value::Null, Value::Null | Value::Bool(false)) => {
                Some(format!("{at}: {name} is not in the schema"))
            }
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

    /// Bytes in the packs of the vault of a server with this home: what there is besides was there before any backup.
    pub fn vault_bytes(&self) -> u64 {
        let vault = self.path().join("server/vaults/main");
        let files = ["packs", "open"].iter().flat_map(|dir| trees::files(&vault.join(dir)));
        files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum()
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

    /// Has a program that runs another one run it as that user.
    pub fn by_tool(&self, command: &mut Command) {
        if self.unprivileged {
            command.args(["setpriv", &format!("--reuid={NOBODY}"), "--clear-groups"]);
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

/// Waits until something is true.
pub fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
