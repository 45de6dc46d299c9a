//! A repository in daily use: trees that change every day, a backup of each, and every night retention, reclaim
//! and a check. Days pass in seconds, by clocks that are ahead. At the end every snapshot that is still listed
//! must restore to the tree as it was on its day.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dice::Dice;
use crate::trees::{Regard, describe, noise};
use crate::{Daemon, Done, Home, clocks, free_port};

/// What a month is made of.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many days pass.
    pub days: u32,
    /// Chooses the changes of every day.
    pub seed: u64,
    /// One client for each: copied first, then changed day by day.
    pub trees: Vec<PathBuf>,
    /// Every n-th night, and the last, the check reads all data.
    pub read_data_every: u32,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Snapshots that were made.
    pub made: usize,
    /// Snapshots that are still listed; each was restored and compared.
    pub restored: usize,
    /// Bytes that reclaim said it gave back.
    pub bytes_freed: u64,
    /// Bytes in the vault at the end.
    pub bytes_left: u64,
}

/// Little is kept, so that much goes.
const POLICY: &str = "[policy.default]\nwindow = { from = \"00:00\", to = \"00:01\", tz = \"UTC\" }\nspread = \"1m\"\n\
                      keep = { last = 2, daily = 4, weekly = 2, grace = \"2d\" }\n";

type Description = BTreeMap<PathBuf, String>;

struct Client {
    name: String,
    home: Home,
    tree: PathBuf,
    /// By snapshot id.
    seen: BTreeMap<String, Description>,
}

struct World {
    server: Home,
    clients: Vec<Client>,
    day: u32,
    _dir: tempfile::TempDir,
}

/// Lives through a plan, and says each day on `log` what was done. None, said aloud, where clocks cannot be turned.
pub fn live(plan: &Plan, log: &mut dyn Write) -> Option<Outcome> {
    clocks::off_by(0, Command::new("true"))?;
    let mut world = World::new(plan);
    let mut outcome = Outcome { made: 0, restored: 0, bytes_freed: 0, bytes_left: 0 };
    for day in 0..plan.days {
        world.day = day;
        let daemon = world.open();
        for number in 0..world.clients.len() {
            if day > 0 {
                change(&world.clients[number].tree, plan.seed ^ (u64::from(day) << 32 | number as u64));
            }
            world.backup(number);
            outcome.made += 1;
        }
        let whole = (day + 1) % plan.read_data_every == 0 || day + 1 == plan.days;
        let (freed, line) = world.night(whole);
        outcome.bytes_freed += freed;
        let _ = writeln!(log, "day {day}: {line}");
        daemon.terminate();
    }
    let daemon = world.open();
    outcome.restored = (0..world.clients.len()).map(|number| world.compare(number)).sum();
    daemon.terminate();
    let vault = world.server.path().join("server/vaults/main/packs");
    let sizes = crate::trees::files(&vault).into_iter().filter_map(|file| file.metadata().ok());
    outcome.bytes_left = sizes.map(|meta| meta.len()).sum();
    Some(outcome)
}

impl World {
    fn new(plan: &Plan) -> Self {
        let (server, dir) = (Home::new(), tempfile::tempdir().unwrap());
        let listen = format!("127.0.0.1:{}", free_port());
        server.run(&["server", "init", "--listen", &listen, "--name", "127.0.0.1"]).ok();
        let policy = dir.path().join("policy.toml");
        fs::write(&policy, POLICY).unwrap();
        server.run(&["policy", "apply", policy.to_str().unwrap()]).ok();
        let mut world = Self { server, clients: Vec::new(), day: 0, _dir: dir };
        let daemon = world.open();
        for (number, source) in plan.trees.iter().enumerate() {
            let (name, home) = (format!("desk-{number}"), Home::new());
            let tree = world._dir.path().join(&name);
            let copied = Command::new("cp").arg("-a").arg(source).arg(&tree).status().unwrap();
            assert!(copied.success(), "{} cannot be copied", source.display());
            let added = world.server.json(&["client", "add", &name]);
            home.run(&["join", added["join_code"].as_str().unwrap(), tree.to_str().unwrap()]).ok();
            world.clients.push(Client { name, home, tree, seen: BTreeMap::new() });
        }
        daemon.terminate();
        world
    }

    fn open(&self) -> Daemon {
        Daemon::start(self.today(&self.server, &["server", "run"]))
    }

    /// A command on the present day.
    fn today(&self, home: &Home, args: &[&str]) -> Command {
        clocks::off_by(i64::from(self.day), home.command(args)).expect("it was there before")
    }

    fn run(&self, home: &Home, args: &[&str]) -> Done {
        Done::of(self.today(home, args)).ok()
    }

    fn backup(&mut self, number: usize) {
        let client = &self.clients[number];
        let done = self.run(&client.home, &["--json", "backup"]).json();
        let id = done["snapshot"].as_str().unwrap().to_owned();
        let seen = describe(&client.tree, Regard::All);
        self.clients[number].seen.insert(id, seen);
    }

    /// Retention, reclaim and a check: bytes freed, and all that in a line.
    fn night(&self, whole: bool) -> (u64, String) {
        let forgotten = self.run(&self.server, &["--json", "forget", "--policy"]).json();
        let pruned = self.run(&self.server, &["--json", "prune"]).json();
        let check: &[&str] = if whole { &["check", "--read-data"] } else { &["check"] };
        self.run(&self.server, check);
        let freed = pruned["bytes_freed"].as_u64().unwrap();
        let listed: usize = self.clients.iter().map(|client| self.listed(client).len()).sum();
        assert_eq!(forgotten["held"], 0, "a day's work is no reason for a brake: {forgotten}");
        let dropped = &forgotten["forgotten"];
        (freed, format!("{listed} snapshots listed, {dropped} forgotten, {freed} bytes freed"))
    }

    fn listed(&self, client: &Client) -> Vec<String> {
        let rows = self.run(&self.server, &["--json", "snapshots", "--client", &client.name]).json();
        let ids = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned());
        ids.collect()
    }

    /// Restores every snapshot that is listed, and says how many.
    fn compare(&self, number: usize) -> usize {
        let client = &self.clients[number];
        let listed = self.listed(client);
        for id in &listed {
            let out = tempfile::tempdir().unwrap();
            let (from, to) = (format!("{id}:{}", client.tree.display()), out.path().join("tree"));
            self.run(&client.home, &["restore", &from, "-t", to.to_str().unwrap()]);
            let (was, is) = (&client.seen[id], describe(&to, Regard::All));
            for (path, what) in was {
                assert_eq!(is.get(path), Some(what), "{} of {}, snapshot {id}", path.display(), client.name);
            }
            assert_eq!(was.len(), is.len(), "too much in snapshot {id} of {}", client.name);
        }
        listed.len()
    }
}

/// A day's work on a tree: files edited in place, appended to, written anew, copied, removed; folders renamed.
fn change(tree: &Path, seed: u64) {
    let mut dice = Dice::of(seed, 0);
    let files: Vec<PathBuf> = crate::trees::files(tree)
        .into_iter()
        .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file()))
        .collect();
    for path in &files {
        if dice.below(50) != 0 {
            continue;
        }
        let size = path.metadata().unwrap().len();
        let amount = dice.below(20_000) as usize + 1;
        match dice.below(5) {
            0 => {
                let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
                file.write_all(&noise(amount, dice.roll())).unwrap();
            }
            1 if size > 0 => {
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                let at = dice.below(size);
                std::os::unix::fs::FileExt::write_all_at(&file, &noise(amount, dice.roll()), at).unwrap();
            }
            2 => drop(fs::copy(path, path.with_extension(format!("copy{}", dice.below(1_000))))),
            3 => fs::remove_file(path).unwrap(),
            _ => fs::write(path, noise(amount, dice.roll())).unwrap(),
        }
    }
    let fresh = tree.join(format!("day-{seed:x}"));
    fs::create_dir_all(&fresh).unwrap();
    for number in 0..20 {
        let len = dice.below(30_000) as usize;
        fs::write(fresh.join(format!("{number}")), noise(len, dice.roll())).unwrap();
    }
    // A folder of another day: many at once would look like somebody who encrypts everything, and put a brake on.
    let old = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap().path()).filter(|path| *path != fresh);
    let mut old: Vec<PathBuf> = old
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"day-")))
        .collect();
    old.sort();
    if let Some(folder) = old.get(dice.below(old.len() as u64 * 2) as usize) {
        fs::rename(folder, tree.join(format!("day-{:x}-moved", dice.roll()))).unwrap();
    }
}
