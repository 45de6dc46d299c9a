//! Memory of an agent that saves and restores a folder of a million files, and a sparse file of 70 GB with data all over.
//!
//! `cargo run --release -p backhaul-benches --bin bounds -- [FILES] [GB] [SCRATCH]` prints tab-separated rows: what, step,
//! seconds, peak memory in MiB.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use backhaul_tests::{TestServer, measured, trees};

/// Islands of data in the file, and the size of each.
const ISLANDS: u64 = 700;
const ISLAND: usize = 300_000;

fn main() {
    let mut args = std::env::args().skip(1);
    let files: u32 = args.next().map_or(1_000_000, |text| text.parse().unwrap());
    let gb: u64 = args.next().map_or(70, |text| text.parse().unwrap());
    let scratch = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let scratch = tempfile::tempdir_in(scratch).unwrap();
    println!("what\tstep\tseconds\tpeak_MiB");
    let many = scratch.path().join("many");
    std::fs::create_dir(&many).unwrap();
    for i in 0..files {
        std::fs::write(many.join(format!("{i:07}")), i.to_string()).unwrap();
    }
    through(&format!("{files} files in a folder"), &many, scratch.path());
    std::fs::remove_dir_all(&many).unwrap();
    let sparse = scratch.path().join("sparse");
    std::fs::create_dir(&sparse).unwrap();
    let len = gb * 1_000_000_000;
    let islands: Vec<(u64, usize)> = (0..ISLANDS).map(|i| (len / ISLANDS * i, ISLAND)).collect();
    trees::sparse(&sparse.join("image"), len, &islands);
    through(&format!("a sparse file of {gb} GB"), &sparse, scratch.path());
}

fn through(what: &str, folder: &Path, scratch: &Path) {
    // Until the times of the last change prove that there was none after it.
    std::thread::sleep(std::time::Duration::from_secs(61));
    let server = TestServer::new();
    let home = server.client("bench", &[folder]);
    let (from, out) = (format!("latest:{}", folder.display()), scratch.join("out"));
    let to = out.to_str().unwrap();
    for (step, args) in [
        ("backup", &["-q", "backup", "--still", "off"][..]),
        ("again", &["-q", "backup", "--still", "off"]),
        ("restore", &["-q", "restore", &from, "-t", to]),
        ("restore over it", &["-q", "restore", &from, "-t", to]),
    ] {
        let start = Instant::now();
        let (done, peak) = measured(home.command(args));
        done.ok();
        println!("{what}\t{step}\t{:.1}\t{peak:.0}", start.elapsed().as_secs_f64());
    }
    std::fs::remove_dir_all(&out).unwrap();
}
