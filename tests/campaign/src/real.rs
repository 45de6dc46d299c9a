//! The real program: a server, an agent and commands, in homes that are copied for each case.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use backhaul_server::home::ServerHome;
use backhaul_store::catalog::SnapshotRow;
use backhaul_tests::{NO_NIGHT, TestServer};
use rustix::process::{Pid, Signal};

use crate::disk::Image;
use crate::kill::copy;
use crate::local::{Failure, Local};
use crate::record::{Fault, Recorder};
use crate::stage::{CLIENTS, Stage};

/// Names of the clients, as [`CLIENTS`] are in order.
pub const NAMES: [&str; 2] = ["ana", "bea"];

/// Who is there for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// The server.
    Server,
    /// That of the first client, where the server may dial it.
    Agent,
}

impl Daemon {
    /// Whose home it is in.
    fn role(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => NAMES[0],
        }
    }

    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "the server",
            Self::Agent => "the client's daemon",
        }
    }

    /// Where it writes itself down, below that home.
    fn lock(self) -> &'static str {
        match self {
            Self::Server => "server/lock",
            Self::Agent => "agent/daemon.lock",
        }
    }
}

/// Homes with two clients' snapshots, and the program.
pub struct Real<'a> {
    /// The truth.
    pub stage: &'a Stage,
    /// Snapshots of each client in fresh homes.
    pub backups: u64,
    /// Where the first client's daemon listens.
    pub address: String,
    work: PathBuf,
    program: PathBuf,
    disk: Mutex<Option<Recorder>>,
}

/// What a command came to.
#[derive(Debug)]
pub struct Done {
    /// Exit code; none when it was killed.
    pub code: Option<i32>,
    /// Both outputs.
    pub said: String,
}

/// A daemon that ends with its owner.
pub struct Running {
    child: Child,
    home: PathBuf,
    lock: PathBuf,
    said: Arc<Mutex<String>>,
}

impl Running {
    /// What it has said since it listens.
    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// True when it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Ends it as a power cut does: a tracer's child, too.
    pub fn kill(&mut self) {
        // The child may be a tracer, whose end would leave the daemon: it has written itself down.
        let pid = fs::read_to_string(&self.lock).unwrap_or_default();
        let args = fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        let is_ours = String::from_utf8_lossy(&args).contains(&*self.home.to_string_lossy());
        if let (Some(pid), true) = (pid.trim().parse().ok().and_then(Pid::from_raw), is_ours) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Ends it in order.
    fn end(mut self) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill();
        }
    }
}

impl<'a> Real<'a> {
    /// Makes a server with two clients and `backups` snapshots of each, below `work`.
    ///
    /// # Errors
    /// A command failed.
    pub fn prepare(stage: &'a Stage, work: &Path, backups: u64) -> Result<Self, Failure> {
        let real = Self {
            stage,
            backups,
            address: format!("127.0.0.1:{}", backhaul_tests::free_port()),
            work: work.to_path_buf(),
            program: backhaul_tests::binary().to_path_buf(),
            disk: Mutex::default(),
        };
        fs::create_dir_all(work.join("golden")).map_err(|error| error.to_string())?;
        let home = real.golden("server");
        let run = |home: &Path, args: &[&str]| {
            let output = real.at(&[], home, args).output().map_err(|error| error.to_string())?;
            match output.status.success() {
                true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
                false => Err(format!("{args:?}: {}", String::from_utf8_lossy(&output.stderr))),
            }
        };
        let text = |document: &str, field: &str| {
            let document: serde_json::Value = serde_json::from_str(document).unwrap_or_default();
            document[field].as_str().unwrap_or_default().to_owned()
        };
        let listen = format!("127.0.0.1:{}", backhaul_tests::free_port());
        let made = run(&home, &["--json", "server", "init", "--listen", &listen, "--name", "127.0.0.1"])?;
        fs::write(real.key(), text(&made, "recovery_key")).map_err(|error| error.to_string())?;
        let policy = work.join("golden/policy.toml");
        let words = format!("{}[admission]\nslots = 8\n", TestServer::quiet_policy());
        fs::write(&policy, words).map_err(|error| error.to_string())?;
        run(&home, &["policy", "apply", &policy.display().to_string()])?;
        let config = home.join("server/config.toml");
        let words = fs::read_to_string(&config).map_err(|error| error.to_string())?;
        fs::write(config, words + NO_NIGHT).map_err(|error| error.to_string())?;
        let running = real.start_at(&[], &home, Daemon::Server)?;
        for (name, client) in NAMES.into_iter().zip(CLIENTS) {
            let code = text(&run(&home, &["--json", "client", "add", name])?, "join_code");
            let tree = |sequence| stage.tree(client, sequence).display().to_string();
            run(&real.golden(name), &["join", &code, &tree(0)])?;
            for sequence in 1..=backups {
                run(&real.golden(name), &["backup", &tree(sequence)])?;
            }
        }
        run(&home, &["server", "export"])?;
        running.end();
        Ok(real)
    }

    /// The file with the recovery key.
    pub fn key(&self) -> PathBuf {
        self.work.join("golden/recovery-key")
    }

    fn golden(&self, name: &str) -> PathBuf {
        self.work.join("golden").join(name)
    }

    /// The copied home of a role.
    pub fn home(&self, name: &str) -> PathBuf {
        self.work.join("homes").join(name)
    }

    /// Where tracers write.
    pub fn log(&self) -> PathBuf {
        self.work.join("trace")
    }

    /// Puts the homes onto a disk that can fail, but for the vault and the homes of others than `role`.
    ///
    /// # Errors
    /// It cannot be mounted.
    pub fn lay(&self, role: &str) -> Result<(), Failure> {
        let homes = self.work.join("homes");
        let disk = Recorder::mount(Image::load(&homes), &homes, None).map_err(|error| error.to_string())?;
        let vault = self.vault();
        let vault = vault.strip_prefix(&homes).unwrap_or(&vault);
        disk.spare(vault, &vault.join("exports"));
        for other in ["server"].into_iter().chain(NAMES).filter(|other| *other != role) {
            disk.spare(Path::new(other), Path::new("none"));
        }
        *self.disk.lock().unwrap() = Some(disk);
        Ok(())
    }

    /// From now on the disk fails, or not any more.
    pub fn arm(&self, fault: Option<Fault>) {
        if let Some(disk) = &*self.disk.lock().unwrap() {
            disk.arm(fault);
        }
    }

    /// Takes the homes from the disk, as they are; true if it has failed.
    pub fn lift(&self) -> bool {
        let Some(disk) = self.disk.lock().unwrap().take() else { return false };
        let failed = disk.failed();
        let (_, image) = disk.finish();
        let homes = self.work.join("homes");
        let _ = fs::remove_dir_all(&homes);
        image.store(&homes);
        failed
    }

    /// The vault in the copied server's home.
    pub fn vault(&self) -> PathBuf {
        ServerHome::at(&self.home("server")).vault_dir()
    }

    /// The vault as it was prepared.
    pub fn golden_vault(&self) -> PathBuf {
        ServerHome::at(&self.golden("server")).vault_dir()
    }

    /// Fresh copies of all homes.
    pub fn reset(&self) {
        let _ = fs::remove_dir_all(self.work.join("homes"));
        for name in ["server"].into_iter().chain(NAMES) {
            copy(&self.golden(name), &self.home(name));
        }
    }

    /// A command in a role's home, behind a tracer.
    pub fn command(&self, wrap: &[String], role: &str, args: &[&str]) -> Command {
        self.at(wrap, &self.home(role), args)
    }

    fn at(&self, wrap: &[String], home: &Path, args: &[&str]) -> Command {
        let mut words = wrap.to_vec();
        words.push(self.program.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--home").arg(home).args(args);
        command.env_remove("RUST_LOG").env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, wrap: &[String], role: &str, args: &[&str]) -> Done {
        let output = self.command(wrap, role, args).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        Done { code: output.status.code(), said: String::from_utf8_lossy(&said).into_owned() }
    }

    /// Starts the server; or what it said, if it ended before it listened.
    ///
    /// # Errors
    /// It ended.
    pub fn serve(&self, wrap: &[String]) -> Result<Running, Failure> {
        self.start(Daemon::Server, wrap)
    }

    /// Starts a daemon; or what it said, if it ended before it listened.
    ///
    /// # Errors
    /// It ended.
    pub fn start(&self, daemon: Daemon, wrap: &[String]) -> Result<Running, Failure> {
        self.start_at(wrap, &self.home(daemon.role()), daemon)
    }

    fn start_at(&self, wrap: &[String], home: &Path, daemon: Daemon) -> Result<Running, Failure> {
        let args = match daemon {
            Daemon::Server => &["server", "run"][..],
            Daemon::Agent => &["agent", "run", "--listen", &self.address],
        };
        let mut command = self.at(wrap, home, args);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while errors.read_line(&mut said).unwrap_or(0) > 0 {
            if said.contains("listening on ") {
                let said: Arc<Mutex<String>> = Arc::default();
                let all = Arc::clone(&said);
                let listen = move |line: String| *all.lock().unwrap() += &(line + "\n");
                std::thread::spawn(move || errors.lines().map_while(Result::ok).for_each(listen));
                return Ok(Running { child, home: home.to_path_buf(), lock: home.join(daemon.lock()), said });
            }
        }
        let _ = child.wait();
        Err(said)
    }

    /// The version of a client's tree that its next backup saves.
    pub fn next(&self, name: &str) -> u64 {
        let number = NAMES.iter().position(|known| *known == name).unwrap_or(0);
        let rows = self.rows().unwrap_or_default();
        let newest = rows.iter().filter(|row| row.client_name == NAMES[number]).map(|row| row.sequence).max();
        newest.unwrap_or(0) + 1
    }

    fn rows(&self) -> Result<Vec<SnapshotRow>, Failure> {
        let catalog =
            backhaul_store::catalog::Catalog::look(&self.vault()).map_err(|error| error.to_string())?;
        catalog.snapshots().map_err(|error| error.to_string())
    }

    /// Restores every snapshot of the vault at rest: those that are equal, and those that are refused. What is restored as
    /// something else breaks the first of all laws.
    ///
    /// # Errors
    /// The vault does not open, or something wrong was restored.
    pub fn restore_all(
        &self,
        trees: &dyn Fn(&SnapshotRow) -> PathBuf,
    ) -> Result<(BTreeSet<String>, Vec<String>), Failure> {
        let key = ServerHome::at(&self.home("server")).vault_key().map_err(|error| error.to_string())?;
        let local = Local::open_with(&self.vault(), key).map_err(|error| error.to_string())?;
        let (mut equal, mut refused) = (BTreeSet::new(), Vec::new());
        for row in local.vault.snapshots(None).map_err(|error| error.to_string())? {
            let (tree, target) = (trees(&row), self.work.join("restored"));
            let _ = fs::remove_dir_all(&target);
            let name = format!("{} {}", row.client_name, row.sequence);
            match local.restore(&tree, &row, &target) {
                Err(why) => refused.push(format!("{name}: {why}")),
                Ok(()) => match self.stage.difference(&tree, &target) {
                    Some(wrong) => {
                        return Err(format!("snapshot {name} restores to something else: {wrong}"));
                    }
                    None => drop(equal.insert(name)),
                },
            }
        }
        Ok((equal, refused))
    }

    /// The tree that is in a snapshot whose number is that of the version.
    pub fn tree(&self, row: &SnapshotRow) -> PathBuf {
        let number = NAMES.iter().position(|name| *name == row.client_name).unwrap_or(0);
        self.stage.tree(CLIENTS[number], row.sequence)
    }
}
