//! In which order a restore reads what a server has: with a real server, by its system calls.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backhaul_tests::netns::skipped;
use backhaul_tests::{TestServer, trees, wait_until};

use crate::restore::saved;

/// Files, each of some 25 KB that do not compress: twenty fill a bundle.
const FILES: usize = 1_200;
/// Versions of the tree: each has its part of the files from a backup of its own, all over the tree.
const VERSIONS: usize = 4;

/// One read of a pack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Read {
    at: String,
    pack: String,
    offset: u64,
    len: u64,
}

/// `12.5 pread64(9</srv/packs/aa/aabb>, ""..., 4096, 64) = 4096`
fn read_of(line: &str) -> Option<Read> {
    let (at, call) = line.split_once(' ')?;
    let (file, rest) = call.split_once("</")?.1.split_once('>')?;
    let pack = file.split_once("/packs/")?.1;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    let offset = arguments.trim_end().trim_end_matches(')').rsplit(", ").next()?;
    Some(Read {
        at: at.to_owned(),
        pack: pack.to_owned(),
        offset: offset.parse().ok()?,
        len: result.trim().parse().ok()?,
    })
}

/// What a process reads of packs while something is done, in the order of time.
fn reads_while(pid: u32, traces: &Path, doing: impl FnOnce()) -> Vec<Read> {
    let prefix = traces.join("trace");
    let mut tracing = Command::new("strace")
        .args(["-ff", "-ttt", "-qq", "-y", "-s", "0", "-e", "trace=pread64", "-p", &pid.to_string(), "-o"])
        .arg(&prefix)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it is traced", || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|task| task.unwrap().path());
        let is_traced = |task: PathBuf| {
            fs::read_to_string(task.join("status")).is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
        };
        threads.into_iter().all(is_traced)
    });
    doing();
    Command::new("kill").arg(tracing.id().to_string()).status().unwrap();
    tracing.wait().unwrap();
    let files = trees::files(traces);
    let lines: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let mut reads: Vec<Read> = lines.iter().flat_map(|text| text.lines()).filter_map(read_of).collect();
    reads.sort();
    reads
}

#[test]
fn a_tree_of_many_versions_comes_back_with_each_pack_read_once() {
    let tried = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !tried.is_ok_and(|status| status.success()) {
        return skipped("nothing can be traced here");
    }
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    let (tree, to, traces) = (dir.path().join("tree"), dir.path().join("to"), dir.path().join("traces"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&traces).unwrap();
    let client = server.client("ana", &[&tree]);
    for version in 0..VERSIONS {
        for file in (0..FILES).filter(|file| version == 0 || file % VERSIONS == version) {
            let seed = (version * FILES + file) as u64;
            fs::write(tree.join(format!("{file:04}")), trees::noise(25_000 + version, seed)).unwrap();
        }
        client.run(&["-q", "backup"]).ok();
    }
    // Nobody else reads them.
    let vault = server.home.path().join("server/vaults/main");
    wait_until("all parity is made", || {
        trees::files(&vault.join("parity")).len() >= trees::files(&vault.join("packs")).len()
    });
    let from = format!("latest:{}", tree.display());
    let reads = reads_while(server.pid().unwrap(), &traces, || {
        client.run(&["-q", "restore", &from, "-t", to.to_str().unwrap()]).ok();
    });
    trees::assert_equal(&tree, &to);

    // Of contents: what is smaller are heads, and folders.
    let contents: Vec<&Read> = reads.iter().filter(|read| read.len > 100_000).collect();
    let mut by_pack: BTreeMap<&str, Vec<&Read>> = BTreeMap::new();
    contents.iter().for_each(|read| by_pack.entry(&read.pack).or_default().push(read));
    let total: u64 = contents.iter().map(|read| read.len).sum();
    assert!(by_pack.len() >= VERSIONS && total > 20_000_000, "{} packs, {total} bytes", by_pack.len());
    // A bundle of which some files are in a batch and others in the next is read in both.
    for (pack, reads) in &by_pack {
        let spans: BTreeSet<(u64, u64)> = reads.iter().map(|read| (read.offset, read.len)).collect();
        assert!(reads.len() <= spans.len() + 1, "{pack}: {reads:?}");
    }
    // Once in the first batch, which is small so that writing begins, and once in that of the rest; several reads are under way
    // where one pack ends and the next begins: 9 were seen. By the names of the files it is 59.
    let switches = contents.windows(2).filter(|pair| pair[0].pack != pair[1].pack).count();
    assert!(switches < 20, "{switches} times from one pack to another in {} reads", contents.len());
}

/// Making a name is what a small file costs, and one disk makes several at a time.
#[test]
fn small_files_are_written_by_several_at_a_time() {
    let tried = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    if !tried.is_ok_and(|status| status.success()) {
        return skipped("nothing can be traced here");
    }
    let dir = tempfile::tempdir().unwrap();
    let (tree, to, traces) = (dir.path().join("tree"), dir.path().join("to"), dir.path().join("traces"));
    fs::create_dir(&tree).unwrap();
    fs::create_dir(&traces).unwrap();
    (0..2_000).for_each(|n| fs::write(tree.join(n.to_string()), format!("file {n}")).unwrap());
    let home = saved(&tree);
    let restore =
        home.command(&["-q", "restore", &format!("latest:{}", tree.display()), "-t", to.to_str().unwrap()]);
    let mut traced = Command::new("strace");
    traced.args(["-ff", "-qq", "-s", "0", "-e", "trace=openat", "-o"]).arg(traces.join("trace"));
    traced.arg(restore.get_program()).args(restore.get_args());
    assert!(traced.status().unwrap().success());
    trees::assert_equal(&tree, &to);
    let made = |file: &PathBuf| fs::read_to_string(file).unwrap().matches("O_CREAT|O_EXCL").count();
    let of_threads: Vec<usize> = trees::files(&traces).iter().map(made).filter(|made| *made > 0).collect();
    assert_eq!(of_threads.iter().sum::<usize>(), 2_000, "{of_threads:?}");
    assert!(of_threads.iter().filter(|made| **made > 100).count() > 1, "{of_threads:?}");
}
