//! What each stage of a first backup takes by itself, and its share of all of them together: where the next bottleneck is.
//!
//! `cargo run --release -p backhaul-benches --bin stages -- [FOLDER] [ROUNDS]` reads at most 128 MiB of a folder (default:
//! the sources of Backhaul) into memory and does one stage after the other with all of it, alone, in one thread (QUIC:
//! both ends); the least processor time of some rounds (default 5) counts. Prints tab-separated figures; the share is of
//! the processor time of both ends together. What a real run does beside the stages (queues, threads) is not in it.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark ends at the first surprise")]

mod quic;
mod sample;
mod vault;

use std::path::PathBuf;

use backhaul_object::seal::{Packer, Unpacker, identify_content};
use backhaul_object::{Compressed, Sealed};

use sample::{Named, Sample};

/// Most bytes that are taken of a folder.
const SAMPLE_MAX: u64 = 128 << 20;

/// What a stage takes.
struct Stage {
    name: &'static str,
    what: &'static str,
    seconds: f64,
}

/// Processor seconds of this process so far.
fn cpu() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Does something some times; the least processor time of it.
fn least<T>(rounds: usize, mut work: impl FnMut() -> T) -> f64 {
    let once = |_| {
        let start = cpu();
        std::hint::black_box(work());
        cpu() - start
    };
    (0..rounds).map(once).fold(f64::INFINITY, f64::min)
}

fn seal(sample: &Sample, objects: &[Compressed]) -> Vec<Sealed> {
    let key = sample.key.data_key();
    let one = |(object, n): (&Compressed, u64)| {
        let mut nonce = [0; 24];
        nonce[..8].copy_from_slice(&n.to_le_bytes());
        object.clone().seal(&key, nonce).unwrap()
    };
    objects.iter().zip(0..).map(one).collect()
}

fn stages(sample: &Sample, rounds: usize) -> Vec<Stage> {
    let key = sample.key.id_key();
    let mut stages = Vec::new();
    let mut add = |name, what, seconds| stages.push(Stage { name, what, seconds });
    // The folder may have more than was taken of it.
    let part = sample.len() as f64 / sample.walk() as f64;
    add("walk", "names and stamps of all files", part * least(rounds, || sample.walk()));
    add("read", "all of them", least(rounds, || sample.read()));
    add("chunk", "what is too large for a bundle", least(rounds, || sample.cut()));
    let identify = |content: &Named| identify_content(&key, &content.content).0.prefix() & 1;
    let hash = || sample.contents().map(identify).sum::<u64>();
    add("hash", "ids and proofs of contents", least(rounds, hash));
    add("bundle", "small contents put together", least(rounds, || sample.bundles()));
    let (bundles, mut packer) = (sample.bundles(), Packer::of_backups().unwrap());
    let compress = least(rounds, || sample.compress(&bundles, &mut packer));
    add("compress", "bundles and chunks", compress);
    let compressed = sample.compress(&bundles, &mut packer);
    let questions = least(rounds, || vault::questions(sample));
    add("have/want", "asked and answered, both ends; nothing is known", questions);
    add("QUIC", "sent and received, both ends", least(rounds, || quic::carry(&compressed)));
    let mut unpacker = Unpacker::new().unwrap();
    let verify = || {
        for object in &compressed {
            let opened = object.open(&key, &mut unpacker).unwrap();
            unpacker.recycle(opened);
        }
    };
    add("verify", "decompressed and hashed again", least(rounds, verify));
    add("seal", "encrypted", least(rounds, || seal(sample, &compressed)));
    let sealed = seal(sample, &compressed);
    add("pack append", "written, hashed and synced", least(rounds, || vault::append(&sealed)));
    add(
        "index insert",
        "objects and members; it is in the appending, too",
        least(rounds, || vault::insert(&sealed)),
    );
    stages
}

fn main() {
    let mut args = std::env::args().skip(1);
    let sources = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates"));
    let folder = args.next().map_or(sources, PathBuf::from);
    let rounds = args.next().map_or(5, |rounds| rounds.parse().unwrap());
    let sample = Sample::of(&folder, SAMPLE_MAX);
    let mb = sample.bytes() as f64 / 1e6;
    println!("{} files, {mb:.1} MB", sample.len());
    println!("stage\tms\tMB of files/s\tshare\tof what");
    let stages = stages(&sample, rounds);
    // The index is in the appending already.
    let all: f64 =
        stages.iter().filter(|stage| stage.name != "index insert").map(|stage| stage.seconds).sum();
    for Stage { name, what, seconds } in &stages {
        println!("{name}\t{:.1}\t{:.0}\t{:.1} %\t{what}", seconds * 1e3, mb / seconds, 100.0 * seconds / all);
    }
    println!("together\t{:.1}\t{:.0}\t100 %\tboth ends", all * 1e3, mb / all);
    let (hit, miss) = vault::look_up(rounds);
    println!("index look-up, 2,048 of 1,000,000 objects: {hit:.2} ms known, {miss:.2} ms unknown");
}
