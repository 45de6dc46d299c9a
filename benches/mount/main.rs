//! A mounted snapshot: time to the first byte of files that nobody has read yet, to list a folder, and how fast a large
//! file comes.
//!
//! `cargo run --release -p backhaul-benches --bin mount -- [FILES]` as root prints tab-separated rows: what, milliseconds
//! at the median and at worst, or MB a second. The mount itself is warm: it has been looked into once.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Instant;

use backhaul_tests::mounts::{Mount, can_mount};
use backhaul_tests::{TestServer, trees};

/// Bytes of the large file.
const LARGE: usize = 256 << 20;
/// Files whose first byte is read.
const PROBES: usize = 200;

fn main() {
    if !can_mount() {
        return;
    }
    let files: usize = std::env::args().nth(1).map_or(20_000, |text| text.parse().unwrap());
    let (dir, point) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = dir.path().canonicalize().unwrap();
    for i in 0..files {
        let folder = tree.join(format!("{:03}", i % 200));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("{i:06}")), trees::noise(2_000 + i % 20_000, i as u64)).unwrap();
    }
    fs::write(tree.join("large"), trees::noise(LARGE, 1)).unwrap();
    let server = TestServer::new();
    let client = server.client("desk", &[&tree]);
    client.run(&["-q", "backup"]).ok();
    let _mount = Mount::on(&client, point.path(), &[]);
    let mounted = point.path().join("desk/latest").join(tree.strip_prefix("/").unwrap());
    first_byte(&mounted.join("000/000000"));
    println!("what\tmedian_ms\tworst_ms");
    let step = (files / PROBES).max(1);
    let probes = (1..PROBES).map(|n| n * step + n % 7).filter(|i| *i < files);
    let path = |i: usize| mounted.join(format!("{:03}/{i:06}", i % 200));
    row("first byte of a small file", probes.map(|i| first_byte(&path(i))).collect());
    row("first byte of a large file", vec![first_byte(&mounted.join("large"))]);
    row("list a folder of 100", (0..200).map(|n| listed(&mounted.join(format!("{n:03}")))).collect());
    let start = Instant::now();
    let bytes =
        std::io::copy(&mut fs::File::open(mounted.join("large")).unwrap(), &mut std::io::sink()).unwrap();
    println!("what\tMB_per_s");
    println!(
        "read {} MiB straight on\t{:.0}",
        bytes >> 20,
        bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
    );
}

fn first_byte(path: &Path) -> f64 {
    let start = Instant::now();
    fs::File::open(path).unwrap().read_exact(&mut [0]).unwrap();
    start.elapsed().as_secs_f64() * 1e3
}

fn listed(path: &Path) -> f64 {
    let start = Instant::now();
    for entry in fs::read_dir(path).unwrap() {
        entry.unwrap().metadata().unwrap();
    }
    start.elapsed().as_secs_f64() * 1e3
}

fn row(what: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    println!("{what}\t{:.2}\t{:.2}", times[times.len() / 2], times[times.len() - 1]);
}
