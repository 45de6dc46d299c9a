//! Every single-bit flip, cut and zeroed block of every file of a vault, and its absence: noticed or harmless, and mended.
//!
//! Cases have numbers, the same each time; whoever does all of them notes down which are done, and goes on from there.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use backhaul_store::check::Mending;
use backhaul_store::{StoreError, Vault};

use crate::golden::{self, Golden, holds};
use crate::local::Failure;
use crate::mend::{check, mend};

/// Cases that are noted down together.
const CHUNK: u64 = 1_000;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    Flip(usize),
    Cut(usize),
    Zero(usize),
    Remove,
}

/// How many harms there are to a file of a length.
fn harms(len: usize) -> u64 {
    (len * 9 + len.div_ceil(512) + 1) as u64
}

fn harm(len: usize, number: u64) -> Harm {
    let number = number as usize;
    match number {
        n if n < len * 8 => Harm::Flip(n),
        n if n < len * 9 => Harm::Cut(n - len * 8),
        n if n < len * 9 + len.div_ceil(512) => Harm::Zero(n - len * 9),
        _ => Harm::Remove,
    }
}

fn strike(path: &Path, harm: Harm) {
    let mut bytes = fs::read(path).unwrap();
    match harm {
        Harm::Flip(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
        Harm::Cut(len) => bytes.truncate(len),
        Harm::Zero(block) => {
            let end = bytes.len().min((block + 1) * 512);
            bytes[block * 512..end].fill(0);
        }
        Harm::Remove => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

/// What came of many cases.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Files damaged.
    pub cases: u64,
    /// Damage that was noticed.
    pub noticed: u64,
    /// Of each file: cases, noticed.
    pub files: BTreeMap<String, (u64, u64)>,
    /// Laws broken, with what leads there again.
    pub broken: Vec<String>,
}

/// All cases.
pub struct Flips {
    golden: [Golden; 4],
    /// Which vault, which file, how long it is, and the number of its first case.
    files: Vec<(usize, PathBuf, usize, u64)>,
    /// How many.
    pub cases: u64,
}

impl Flips {
    /// Makes the vaults, below a directory.
    pub fn new(dir: &Path) -> Self {
        let golden = golden::make(dir);
        let (mut files, mut cases) = (Vec::new(), 0);
        for (number, vault) in golden.iter().enumerate() {
            for name in &vault.names {
                let len = fs::metadata(vault.home.join(name)).unwrap().len() as usize;
                files.push((number, name.clone(), len, cases));
                cases += harms(len);
            }
        }
        Self { golden, files, cases }
    }

    /// The same for the same cases. What is in the files is not in it: SQLite salts its log.
    fn sum(&self) -> String {
        let mut sum = blake3::Hasher::new();
        for (number, name, len, _) in &self.files {
            sum.update(&number.to_le_bytes()).update(name.as_os_str().as_encoded_bytes());
            sum.update(&len.to_le_bytes());
        }
        sum.finalize().to_hex()[..16].to_owned()
    }

    /// The numbers of so many cases of each file, or of all if there are not as many: the last is that it is not there.
    pub fn of_each(&self, count: u64) -> impl Iterator<Item = u64> {
        self.files.iter().flat_map(move |(_, _, len, first)| {
            let (all, last) = (harms(*len), count.max(2) - 1);
            (0..=last.min(all - 1)).map(move |n| first + n * (all - 1) / last.min(all - 1))
        })
    }

    /// The cases of these numbers, in a directory of their own.
    pub fn some(&self, cases: impl Iterator<Item = u64>, work: &Path) -> Outcome {
        let mut outcome = Outcome::default();
        for number in cases {
            let at = self.files.partition_point(|(_, _, _, first)| *first <= number) - 1;
            let (vault, name, len, first) = &self.files[at];
            let harm = harm(*len, number - first);
            let noticed = one(&self.golden[*vault], name, harm, work);
            outcome.cases += 1;
            let file = outcome.files.entry(format!("{vault} {}", name.display())).or_default();
            file.0 += 1;
            match noticed {
                Ok(noticed) => {
                    outcome.noticed += u64::from(noticed);
                    file.1 += u64::from(noticed);
                }
                Err(why) => {
                    outcome.broken.push(format!("case {number}, {harm:?} of {}: {why}", name.display()))
                }
            }
        }
        outcome
    }

    /// All cases, by so many threads; `list` says which are done.
    ///
    /// # Errors
    /// The list cannot be kept, or is of other files.
    pub fn all(&self, list: &Path, threads: usize, work: &Path) -> Result<Outcome, Failure> {
        let said = |error: std::io::Error| format!("{}: {error}", list.display());
        let head = format!("{} {}", self.sum(), self.cases);
        let before = fs::read_to_string(list).unwrap_or_default();
        if !before.is_empty() && before.lines().next() != Some(&head) {
            return Err(format!("{} is of other files", list.display()));
        }
        let mut file = OpenOptions::new().append(true).create(true).open(list).map_err(said)?;
        if before.is_empty() {
            writeln!(file, "{head}").map_err(said)?;
        }
        let done: Vec<(u64, u64, u64)> = before.lines().filter_map(read).collect();
        let (next, file) = (AtomicU64::new(0), Mutex::new((file, Outcome::default())));
        for (_, cases, noticed) in &done {
            let mut held = file.lock().unwrap();
            held.1.cases += cases;
            held.1.noticed += noticed;
        }
        std::thread::scope(|scope| {
            for thread in 0..threads.max(1) {
                let (next, file, done) = (&next, &file, &done);
                scope.spawn(move || {
                    let work = work.join(format!("flips-{thread}"));
                    loop {
                        let chunk = next.fetch_add(1, Ordering::Relaxed);
                        if chunk * CHUNK >= self.cases {
                            return;
                        }
                        if done.iter().any(|(number, ..)| *number == chunk) {
                            continue;
                        }
                        let end = ((chunk + 1) * CHUNK).min(self.cases);
                        let outcome = self.some(chunk * CHUNK..end, &work);
                        let mut held = file.lock().unwrap();
                        let (cases, noticed) = (outcome.cases, outcome.noticed);
                        for why in &outcome.broken {
                            let _ = writeln!(held.0, "broken {why}");
                        }
                        let _ = writeln!(held.0, "done {chunk} {cases} {noticed}");
                        held.1.cases += cases;
                        held.1.noticed += noticed;
                    }
                });
            }
        });
        let mut outcome = file.into_inner().unwrap().1;
        let after = fs::read_to_string(list).map_err(said)?;
        outcome.broken =
            after.lines().filter_map(|line| line.strip_prefix("broken ")).map(str::to_owned).collect();
        Ok(outcome)
    }
}

fn read(line: &str) -> Option<(u64, u64, u64)> {
    let mut words = line.strip_prefix("done ")?.split(' ').map(|word| word.parse().ok());
    Some((words.next()??, words.next()??, words.next()??))
}

/// An export that can be used is one that was made: it says what the server was.
fn exports_are(golden: &Golden, root: &Path) -> Result<(), Failure> {
    let found = golden::exports(root).map_err(|why| format!("an export: {why}"))?;
    match found.iter().find(|(number, words)| golden.exports.get(number) != Some(words)) {
        Some((number, words)) => Err(format!("export {number} is something else: {words}")),
        None => Ok(()),
    }
}

/// True when it was noticed. What is not noticed must be of no consequence.
fn is_noticed(root: &Path, golden: &Golden) -> Result<bool, Failure> {
    let vault = match Vault::open(root) {
        Ok(vault) => vault,
        Err(StoreError::Io { source, .. }) => return Err(format!("opening: {source}")),
        Err(_) => return Ok(true),
    };
    match check(&vault, Mending::Look) {
        Err(StoreError::Io { source, .. }) => Err(format!("checking: {source}")),
        Err(_) => Ok(true),
        Ok(report) if !report.is_sound() => Ok(true),
        Ok(_) => match holds(&vault) {
            Ok(held) if held == golden.holds => {
                exports_are(golden, root).map(|()| false).map_err(|why| format!("not noticed: {why}"))
            }
            Ok(_) => Err("not noticed, and something else is there".to_owned()),
            Err(error) => Err(format!("not noticed: {error}")),
        },
    }
}

fn one(golden: &Golden, name: &Path, harm: Harm, work: &Path) -> Result<bool, Failure> {
    let is_pack = name.starts_with("packs");
    // A pack may lose more than its parity makes good.
    let hope = match harm {
        Harm::Flip(_) => Hope::Whole,
        _ if is_pack => Hope::Named,
        _ => Hope::Whole,
    };
    if name.starts_with("index") {
        let pruned = |root: &Path| {
            strike(&root.join(name), harm);
            golden::prune_twice(root);
        };
        judge(golden, &pruned, hope, work).map_err(|why| format!("after two prunes: {why}"))?;
    }
    judge(golden, &|root| strike(&root.join(name), harm), hope, work)
}

/// How far something can be mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hope {
    /// Everything is as it was.
    Whole,
    /// What is lost is named.
    Named,
}

/// Does harm to a copy of a vault: true when it was noticed.
///
/// # Errors
/// It was not and is of consequence, or was not mended as far as it could be.
pub fn judge(golden: &Golden, harm: &dyn Fn(&Path), hope: Hope, work: &Path) -> Result<bool, Failure> {
    golden.lay(work);
    harm(work);
    if !is_noticed(work, golden)? {
        // It is sound, and all is there: nothing is to be mended.
        return Ok(false);
    }
    golden.lay(work);
    harm(work);
    let (report, vault) = mend(work).map_err(|error| format!("mending: {error}"))?;
    let is_named = !report.is_sound() || !report.unreadable.is_empty();
    match hope {
        Hope::Named if is_named => return Ok(true),
        Hope::Whole if !report.is_sound() => return Err(format!("not mended: {:?}", report.damage)),
        _ => {}
    }
    if holds(&vault).map_err(|error| format!("what was mended: {error}"))? != golden.holds {
        return Err("mended, and not as it was".to_owned());
    }
    exports_are(golden, work).map_err(|why| format!("mended, and then: {why}"))?;
    match check(&vault, Mending::Look) {
        Ok(report) if report.damage.is_empty() => Ok(true),
        Ok(report) => Err(format!("mended, and then: {:?}", report.damage)),
        Err(error) => Err(format!("mended, and then: {error}")),
    }
}
