//! The object index at size: inserts, look-ups of a batch, opening, and the pass for what a client owns.
//!
//! `cargo run --release -p backhaul-benches --bin index -- [OBJECTS]` makes a vault of that many tiny objects
//! (default 10,000,000; every 100th refers to the 99 before it) and prints tab-separated figures, with the bar where there is
//! one. With `mark OBJECTS` it marks a generated index of that many.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

use backhaul_object::codec::Write as _;
use backhaul_object::descriptor::Descriptor;
use backhaul_object::header::{Compressor, Header};
use backhaul_object::ids::{ClientId, SessionId, VaultId};
use backhaul_object::{Kind, ObjectId, Proof, Reference, Sealed};
use backhaul_store::catalog::Catalog;
use backhaul_store::check::Mending;
use backhaul_store::index::{Edge, Index, Scan};
use backhaul_store::reclaim::mark::close;
use backhaul_store::{Bits, Ordinal, Vault, rebuild};
use bytes::Bytes;

/// Prefixes in one question of an agent.
const BATCH: u64 = 2_048;
const BATCHES: u64 = 50;
/// Objects between two flushes.
const FLUSH: u64 = 50_000;

fn id(n: u64) -> ObjectId {
    let mut id = [0; 32];
    // Ids are hashes: neighbours must not lie side by side.
    id[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    id[8..16].copy_from_slice(&n.to_le_bytes());
    ObjectId(id)
}

fn object(n: u64) -> Sealed {
    let parent = n % 100 == 99;
    let references =
        if parent { (n - 99..n).map(|child| Reference::whole(id(child))).collect() } else { vec![] };
    let header = Header {
        kind: if parent { Kind::Node } else { Kind::Chunk },
        id: id(n),
        proof: Proof([7; 16]),
        compressor: Compressor::Raw,
        plain_len: 8,
        references,
        provides: vec![],
    };
    Sealed { header, body: Bytes::from_static(&[0; 49]) }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [what, count] if what == "mark" => mark(count.parse().unwrap()),
        [what, count, dir] if what == "mark-here" => mark_here(count.parse().unwrap(), Path::new(dir)),
        _ => life(args.first().map_or(10_000_000, |text| text.parse().unwrap())),
    }
}

fn life(count: u64) {
    let dir = tempfile::tempdir().unwrap();
    let vault = Vault::create(dir.path(), &Descriptor::managed(VaultId([1; 16])), [1; 16]).unwrap();
    let client = ClientId([2; 16]);
    println!("step\tobjects\tseconds\tper_second");
    let row = |step: &str, objects: u64, since: Instant| {
        let seconds = since.elapsed().as_secs_f64();
        println!("{step}\t{objects}\t{seconds:.3}\t{:.0}", objects as f64 / seconds);
    };
    let start = Instant::now();
    let mut session = vault.begin(SessionId([3; 16]), client);
    for n in 0..count {
        let sealed = object(n);
        let edges: Vec<Edge> = vault.resolve(&sealed.header.references).unwrap();
        session.append(&sealed, &edges).unwrap();
        if n % FLUSH == FLUSH - 1 {
            session.flush().unwrap();
        }
    }
    drop(session);
    row("insert (with packs and flushes)", count, start);
    let batch = |what: &str, which: &dyn Fn(u64) -> u64, bar: &str| batches(&vault, what, which, bar);
    batch("look up a batch, present, anywhere", &|n| n * 7_919 % count, "bar: 5 ms");
    batch("look up a batch, present, side by side", &|n| n % count, "");
    batch("look up a batch, absent", &|n| count + n, "bar: 5 ms");
    evict(&dir.path().join("index"));
    batch("look up a batch, side by side, index not in the page cache before", &|n| n % count, "");
    drop(vault);
    sizes(dir.path());
    let start = Instant::now();
    let vault = Vault::open(dir.path()).unwrap();
    row("open", count, start);
    let start = Instant::now();
    let owned = vault.owned(client).unwrap();
    row("what a client owns", count, start);
    assert!(owned.has(Ordinal(count / 2)));
    let start = Instant::now();
    vault.owned(ClientId([9; 16])).unwrap();
    row("what a new client owns", count, start);
    within(&vault, &dir.path().join("index"), count);
    drop(vault);
    let packs = trees(&dir.path().join("packs")) as f64 / f64::from(1 << 20);
    let start = Instant::now();
    rebuild::rebuild(dir.path(), [2; 16], Mending::Look, 1).unwrap();
    row("rebuild", count, start);
    println!(
        "rebuild\t{packs:.0} MiB of packs\t{:.0} MiB/s\tbar: 200",
        packs / start.elapsed().as_secs_f64()
    );
}

fn batches(vault: &Vault, what: &str, which: &dyn Fn(u64) -> u64, bar: &str) {
    let mut times: Vec<f64> = (0..BATCHES)
        .map(|round| {
            let start = Instant::now();
            for n in 0..BATCH {
                vault.find(id(which(round * BATCH + n)).prefix()).unwrap();
            }
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let (median, worst) = (times[BATCHES as usize / 2], times[BATCHES as usize - 1]);
    println!("{what}\t{BATCH}\t{median:.2} ms median, {worst:.2} ms worst of {BATCHES}\t{bar}");
}

/// Look-ups where the page cache has room for no more than 64 MiB of the index, in a control group of this process's own. What the
/// process has in memory already, the tables of the index among it, is not counted there.
fn within(vault: &Vault, index: &Path, count: u64) {
    const ROOM: usize = 64 << 20;
    let groups = Path::new("/sys/fs/cgroup/memory");
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.split_once(":memory:")).map_or("", |(_, own)| own);
    let before = groups.join(own.trim_start_matches('/')).join("cgroup.procs");
    let group = groups.join(format!("backhaul-bench-{}", std::process::id()));
    let confined = std::fs::create_dir(&group)
        .and_then(|()| std::fs::write(group.join("memory.limit_in_bytes"), ROOM.to_string()))
        .and_then(|()| std::fs::write(group.join("cgroup.procs"), std::process::id().to_string()));
    if let Err(error) = confined {
        let _ = std::fs::remove_dir(group);
        return println!("look up within 64 MiB\tnot measured: {error}");
    }
    evict(index);
    batches(vault, "look up a batch, present, anywhere, 64 MiB of page cache", &|n| n * 7_919 % count, "");
    batches(vault, "look up a batch, present, side by side, 64 MiB of page cache", &|n| n % count, "");
    batches(vault, "look up a batch, absent, 64 MiB of page cache", &|n| count + n, "");
    std::fs::write(before, std::process::id().to_string()).unwrap();
    std::fs::remove_dir(group).unwrap();
}

/// What the index takes on the disk and in memory.
fn sizes(root: &Path) {
    let (_, counts) = Catalog::open(&root.join("catalog.sqlite")).unwrap().meta().unwrap().unwrap();
    let files = std::fs::read_dir(root.join("index")).unwrap().map(Result::unwrap);
    let mut bytes = 0;
    for file in files {
        let len = file.metadata().unwrap().len();
        println!("  {}\t{len}", file.file_name().display());
        bytes += len;
    }
    let each = bytes as f64 / counts.objects as f64;
    println!("index on disk\t{}\t{each:.2} bytes an object\tbar: 40", counts.objects);
    let index = Index::open(&root.join("index"), &counts).unwrap();
    let mib = index.memory() as f64 / f64::from(1 << 20);
    println!("index in memory\t{}\t{mib:.1} MiB\tbar: 64 at 10,000,000", counts.objects);
}

/// Bytes of all files below a folder.
fn trees(dir: &Path) -> u64 {
    let of = |entry: std::fs::DirEntry| match entry.file_type().unwrap().is_dir() {
        true => trees(&entry.path()),
        false => entry.metadata().unwrap().len(),
    };
    std::fs::read_dir(dir).unwrap().map(|entry| of(entry.unwrap())).sum()
}

/// Drops what the page cache has of some files.
fn evict(dir: &Path) {
    for file in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let mut dd = std::process::Command::new("dd");
        dd.arg(format!("if={}", file.path().display())).args(["iflag=nocache", "count=0", "status=none"]);
        assert!(dd.status().unwrap().success());
    }
}

/// `index mark OBJECTS`: a mark of that many objects, in a process of its own.
///
/// Every 50th object refers to the 49 before it, to the parent before, and to 50 others anywhere below: two references
/// an object, half of them as far apart as can be.
fn mark(count: u64) {
    let dir = tempfile::tempdir().unwrap();
    generate(dir.path(), count);
    let program = std::env::current_exe().unwrap();
    let mut child = std::process::Command::new(program);
    child.arg("mark-here").arg(count.to_string()).arg(dir.path());
    assert!(child.status().unwrap().success());
}

fn generate(dir: &Path, count: u64) {
    let mut parents = BufWriter::new(File::create(dir.join("parents")).unwrap());
    let mut references = BufWriter::new(File::create(dir.join("references")).unwrap());
    let (mut end, mut dice) = (0_u64, 1_u64);
    let mut out = Vec::new();
    for n in (49..count).step_by(50) {
        out.clear();
        let near = (n - 49..n).chain((n > 99).then(|| n - 50));
        let far = (0..50).map(|_| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (dice >> 24) % n
        });
        near.chain(far).for_each(|to| out.put_varint((n - to) << 1));
        references.write_all(&out).unwrap();
        end += out.len() as u64;
        parents.write_all(&n.to_le_bytes()).unwrap();
        parents.write_all(&end.to_le_bytes()).unwrap();
    }
    parents.into_inner().unwrap().sync_all().unwrap();
    references.into_inner().unwrap().sync_all().unwrap();
}

fn mark_here(count: u64, dir: &Path) {
    let start = Instant::now();
    let scan = Scan::open(dir, count, count / 50).unwrap();
    let mut live = Bits::sized(count);
    live.add(Ordinal(count / 50 * 50 - 1));
    close(&scan, &mut live, &mut |_| Ok(())).unwrap();
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(live.count(), count / 50 * 50, "from the last parent everything is reached");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: u64 = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    println!("step\tobjects\treached\tseconds\tpeak_MiB");
    println!("mark\t{count}\t{}\t{seconds:.2}\t{}", live.count(), kib / 1024);
}
