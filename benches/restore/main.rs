//! Restores of a folder beside those of other programs, all in turn on the same data: `tar x`, `cp -a`, restic, rustic, borg
//! and bupstash, as far as they are on the PATH; and over a copy in which one file of a hundred was changed: by a line at its
//! end, and then by one in the place of its beginning.
//!
//! `cargo run --release -p backhaul-benches --bin restore -- FOLDER [ROUNDS]` prints tab-separated rows: program,
//! step, round, seconds, peak memory of the measured process in MiB, and of the server; then the median of each, and how
//! they stand to each other. Each round begins with another program. All is on the file system of temporary files (`TMPDIR`);
//! everything is in the page cache and written back before each measurement; none waits until its own is. One copy is made
//! before the first that counts: a disk may take the first tree after a pause ten times as fast as those that follow.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backhaul_tests::{Home, TestServer, trees};

/// How often the memory of a running process is looked at; the kernel keeps the peak itself.
const LOOK: Duration = Duration::from_millis(2);
/// What is measured: into an empty folder, and over a tree that is there.
const FULL: &str = "full";
const GROWN: &str = "one in a hundred has grown";
const EDITED: &str = "one in a hundred edited";
/// Who is there everywhere.
const COPY: &str = "cp -a";
/// One file of so many is changed.
const CHANGED: usize = 100;

#[allow(clippy::print_stderr, reason = "usage")]
fn main() {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next() else {
        eprintln!("usage: restore FOLDER [ROUNDS]");
        std::process::exit(2);
    };
    let folder = std::fs::canonicalize(folder).unwrap();
    let rounds: usize = args.next().map_or(3, |text| text.parse().unwrap());
    let scratch = tempfile::tempdir().unwrap();
    let bench = Bench { folder, scratch: scratch.path().to_owned() };
    let mut all: BTreeMap<(String, &str), Vec<f64>> = BTreeMap::new();
    println!("program\tstep\tround\tseconds\tpeak_MiB\tserver_peak_MiB");
    let mut programs = bench.programs();
    let copying = programs.iter().position(|program| program.name == COPY).unwrap();
    bench.measure(&programs[copying]);
    for round in 1..=rounds {
        programs.rotate_left(1);
        for program in &programs {
            for (step, seconds, memory) in bench.measure(program) {
                println!("{}\t{step}\t{round}\t{seconds:.2}\t{memory}", program.name);
                all.entry((program.name.to_owned(), step)).or_default().push(seconds);
            }
        }
    }
    let mut medians = BTreeMap::new();
    for ((program, step), mut seconds) in all {
        seconds.sort_by(f64::total_cmp);
        println!("{program}\t{step}\tmedian\t{:.2}", seconds[seconds.len() / 2]);
        medians.insert((program, step), seconds[seconds.len() / 2]);
    }
    compare(&medians);
}

/// Prints how long ours takes beside each of the others, and over what is there beside a whole one.
fn compare(medians: &BTreeMap<(String, &str), f64>) {
    let ours = |step| medians[&("backhaul".to_owned(), step)];
    println!("ratio\tto");
    for ((program, _), seconds) in medians.iter().filter(|((program, _), _)| program != "backhaul") {
        println!("{:.2}\t{program}", ours(FULL) / seconds);
    }
    for step in [GROWN, EDITED] {
        println!("{:.2}\ta whole restore, for {step}", ours(step) / ours(FULL));
    }
}

/// What restores, from what it has saved before.
struct Program<'p> {
    name: &'static str,
    /// Given the folder to restore into.
    command: Box<dyn Fn(&Path) -> Command + 'p>,
    /// Where the tree lies in what it has restored, for a restore over it.
    in_place: bool,
    server: Option<u32>,
}

struct Bench {
    folder: PathBuf,
    scratch: PathBuf,
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn peak_of(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}

impl Bench {
    /// Those that are here, each with the folder saved.
    fn programs(&self) -> Vec<Program<'_>> {
        let mut programs = vec![self.backhaul(), self.tar(), self.cp()];
        programs.extend(is_there("restic").then(|| self.restic()));
        programs.extend(is_there("rustic").then(|| self.rustic()));
        programs.extend(is_there("borg").then(|| self.borg()));
        programs.extend(is_there("bupstash").then(|| self.bupstash()));
        programs
    }

    fn at(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    fn backhaul(&self) -> Program<'_> {
        // Both run as long as the process does.
        let server: &'static TestServer = Box::leak(Box::new(TestServer::new()));
        let home: &'static Home = Box::leak(Box::new(server.client("bench", &[&self.folder])));
        home.run(&["-q", "backup", "--still", "off"]).ok();
        let what = format!("latest:{}", self.folder.display());
        let command = move |out: &Path| home.command(&["-q", "restore", &what, "-t", out.to_str().unwrap()]);
        Program { name: "backhaul", command: Box::new(command), in_place: true, server: server.pid() }
    }

    fn tar(&self) -> Program<'_> {
        let archive = self.at("tree.tar");
        run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&self.folder).arg("."));
        let command = move |out: &Path| {
            let mut command = Command::new("tar");
            command.arg("-xpf").arg(&archive).arg("-C").arg(out);
            command
        };
        Program { name: "tar x", command: Box::new(command), in_place: false, server: None }
    }

    fn cp(&self) -> Program<'_> {
        let command = |out: &Path| {
            let mut command = Command::new("cp");
            command.arg("-a").arg(self.folder.join(".")).arg(out);
            command
        };
        Program { name: COPY, command: Box::new(command), in_place: false, server: None }
    }

    fn restic(&self) -> Program<'_> {
        let (repo, cache) = (self.at("restic"), self.at("restic-cache"));
        let restic = move |args: &[&str]| {
            let mut command = Command::new("restic");
            command
                .env("RESTIC_REPOSITORY", &repo)
                .env("RESTIC_PASSWORD", "x")
                .env("RESTIC_CACHE_DIR", &cache);
            command.args(args);
            command
        };
        run(&mut restic(&["init", "-q", "--repository-version", "2"]));
        run(restic(&["backup", "-q"]).arg(&self.folder));
        let command =
            move |out: &Path| restic(&["restore", "latest", "-q", "--target", out.to_str().unwrap()]);
        Program { name: "restic", command: Box::new(command), in_place: false, server: None }
    }

    fn rustic(&self) -> Program<'_> {
        let (repo, cache) = (self.at("rustic"), self.at("rustic-cache"));
        let rustic = move |args: &[&str]| {
            let mut command = Command::new("rustic");
            command
                .env("RUSTIC_REPOSITORY", &repo)
                .env("RUSTIC_PASSWORD", "x")
                .env("RUSTIC_CACHE_DIR", &cache)
                .env("RUSTIC_NO_PROGRESS", "true")
                .args(args);
            command
        };
        run(&mut rustic(&["init"]));
        run(rustic(&["backup"]).arg(&self.folder));
        let command = move |out: &Path| rustic(&["restore", "latest", out.to_str().unwrap()]);
        Program { name: "rustic", command: Box::new(command), in_place: false, server: None }
    }

    fn borg(&self) -> Program<'_> {
        let (repo, base) = (self.at("borg"), self.at("borg-base"));
        let borg = move |args: &[&str]| {
            let mut command = Command::new("borg");
            command
                .env("BORG_REPO", &repo)
                .env("BORG_PASSPHRASE", "x")
                .env("BORG_BASE_DIR", &base)
                .args(args);
            command
        };
        run(&mut borg(&["init", "-e", "repokey-blake2"]));
        run(borg(&["create", "-C", "zstd,3", "::one"]).arg(&self.folder));
        let command = move |out: &Path| {
            let mut command = borg(&["extract", "::one"]);
            command.current_dir(out);
            command
        };
        Program { name: "borg", command: Box::new(command), in_place: false, server: None }
    }

    fn bupstash(&self) -> Program<'_> {
        let dir = self.at("bupstash");
        std::fs::create_dir(&dir).unwrap();
        let key = dir.join("key");
        let bupstash = move |args: &[&str]| {
            let mut command = Command::new("bupstash");
            command.args(args).env("HOME", &dir);
            for (name, file) in
                [("REPOSITORY", "vault"), ("KEY", "key"), ("SEND_LOG", "log"), ("QUERY_CACHE", "cache")]
            {
                command.env(format!("BUPSTASH_{name}"), dir.join(file));
            }
            command
        };
        run(&mut bupstash(&["init"]));
        run(bupstash(&["new-key", "-o"]).arg(&key));
        run(bupstash(&["put", "-q", "--compression", "zstd:3", "name=one"]).arg(&self.folder));
        let command =
            move |out: &Path| bupstash(&["restore", "-q", "--into", out.to_str().unwrap(), "name=one"]);
        Program { name: "bupstash", command: Box::new(command), in_place: false, server: None }
    }

    /// Restores into an empty folder and, if it can be compared, over a changed one.
    fn measure(&self, program: &Program<'_>) -> Vec<(&'static str, f64, String)> {
        let out = self.at("out");
        std::fs::create_dir(&out).unwrap();
        let mut rows = vec![self.timed(program, FULL, &out)];
        if program.in_place {
            for (step, from) in [(GROWN, SeekFrom::End(0)), (EDITED, SeekFrom::Start(0))] {
                change(&out, from);
                rows.push(self.timed(program, step, &out));
            }
        }
        std::fs::remove_dir_all(&out).unwrap();
        rows
    }

    fn timed(&self, program: &Program<'_>, step: &'static str, out: &Path) -> (&'static str, f64, String) {
        write_back();
        let mut command = (program.command)(out);
        let start = Instant::now();
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut peak: f64 = 0.0;
        let status = loop {
            peak = peak.max(peak_of(child.id()).unwrap_or(0.0));
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(LOOK);
        };
        let seconds = start.elapsed().as_secs_f64();
        assert!(status.success(), "{command:?}");
        let server =
            program.server.and_then(peak_of).map_or_else(|| "-".to_owned(), |mib| format!("{mib:.0}"));
        (step, seconds, format!("{peak:.0}\t{server}"))
    }
}

fn write_back() {
    run(&mut Command::new("sync"));
}

/// Writes a line into one file in a hundred.
fn change(out: &Path, from: SeekFrom) {
    let mut files = trees::files(out);
    files.sort();
    for path in files.iter().step_by(CHANGED) {
        if let Ok(mut file) = std::fs::File::options().write(true).open(path) {
            file.seek(from).unwrap();
            file.write_all(b"changed\n").unwrap();
        }
    }
}
