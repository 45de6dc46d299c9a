//! What is saved, and what must come back: the campaign's own idea of the truth, outside of what is tested.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use backhaul_object::ids::ClientId;
use backhaul_tests::dice::Dice;
use backhaul_tests::trees::{Regard, describe, noise};

/// Two clients that have much in common.
pub const CLIENTS: [ClientId; 2] = [ClientId([1; 16]), ClientId([2; 16])];
/// One more, whose large file changes in place; only one story is of it.
pub const WRITER: ClientId = ClientId([3; 16]);
/// Versions of each client's tree; snapshot `n` is of version `n` modulo this.
pub const VERSIONS: u64 = 12;

/// Everything about a tree that must come back.
pub type Described = BTreeMap<PathBuf, String>;

/// The trees of both clients, in all versions.
pub struct Stage {
    dir: PathBuf,
    described: BTreeMap<PathBuf, Described>,
}

impl Stage {
    /// Makes the trees below a directory, or finds them there.
    pub fn at(dir: &Path) -> Self {
        let mut stage = Self { dir: dir.to_path_buf(), described: BTreeMap::new() };
        // A folder of this name must be there, though what is in it is read elsewhere.
        fs::create_dir_all(stage.name(WRITER, 0)).unwrap();
        for client in CLIENTS.into_iter().chain([WRITER]) {
            for version in 0..VERSIONS {
                let tree = stage.tree(client, version);
                if !tree.exists() {
                    match client {
                        WRITER => plant_database(&tree, version),
                        _ => plant(&tree, client, version),
                    }
                }
                stage.described.insert(tree.clone(), describe(&tree, Regard::ButForHoles));
            }
        }
        stage
    }

    /// Knows where the trees are, and not what is in them.
    pub fn names(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf(), described: BTreeMap::new() }
    }

    /// Where all trees are.
    pub fn trees(&self) -> PathBuf {
        self.dir.join("trees")
    }

    /// The tree that is in a client's snapshot.
    pub fn tree(&self, client: ClientId, sequence: u64) -> PathBuf {
        self.trees().join(format!("{}/{}", client.0[0], sequence % VERSIONS))
    }

    /// What it is called in that snapshot: what changes in place has the same name each time.
    pub fn name(&self, client: ClientId, sequence: u64) -> PathBuf {
        match client {
            WRITER => self.dir.join(format!("trees/{}/live", client.0[0])),
            _ => self.tree(client, sequence),
        }
    }

    /// How what was restored differs from a tree that was saved.
    pub fn difference(&self, tree: &Path, restored: &Path) -> Option<String> {
        let Some(want) = self.described.get(tree) else {
            return Some("nobody knows what was in it".to_owned());
        };
        let found = describe(restored, Regard::ButForHoles);
        let lost = want.iter().find(|(name, what)| found.get(*name) != Some(what));
        let more = found.keys().find(|name| !want.contains_key(*name));
        lost.map(|(name, what)| format!("{}: {what}, restored as {:?}", name.display(), found.get(name)))
            .or_else(|| more.map(|name| format!("{} is too much", name.display())))
    }
}

/// Small files, a larger one, a link, folders; about a third differs from version to version.
fn plant(tree: &Path, client: ClientId, version: u64) {
    let mut dice = Dice::of(u64::from(client.0[0]), version);
    let common = Dice::of(99, 0).roll();
    fs::create_dir_all(tree.join("letters/old")).unwrap();
    for i in 0..6u64 {
        // Half of them are the same in all versions and at both clients.
        let seed = if i % 2 == 0 { common + i } else { dice.roll() };
        fs::write(tree.join(format!("letters/{i}")), noise(300 + 900 * i as usize, seed)).unwrap();
    }
    fs::write(tree.join("letters/old/tiny"), format!("tiny {version}")).unwrap();
    fs::write(tree.join("empty"), b"").unwrap();
    fs::write(tree.join("picture"), noise(150_000, common + version / 3)).unwrap();
    fs::write(tree.join("journal"), noise(20_000, dice.roll())).unwrap();
    std::os::unix::fs::symlink("letters/0", tree.join("link")).unwrap();
}

/// A file that is large enough for patches, in which a page is rewritten from version to version.
fn plant_database(tree: &Path, version: u64) {
    const PAGE: usize = 4_096;
    fs::create_dir_all(tree).unwrap();
    let mut pages = noise(150 * PAGE, Dice::of(98, 0).roll());
    let at = (version as usize * 7 % 150) * PAGE;
    pages[at..at + PAGE].copy_from_slice(&noise(PAGE, version));
    fs::write(tree.join("database"), pages).unwrap();
    fs::write(tree.join("note"), format!("note {version}")).unwrap();
}
