//! Versions of a file, saved into memory one after the other.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::VaultId;
use backhaul_object::keys::VaultKey;

use super::*;
use crate::backup::{BackupProgress, BackupRequest, Saved, backup, excludes, joints};
use crate::memory::Memory;
use crate::restore::{RestoreRequest, restore};

/// A folder with a file, what its agent knows, and a vault.
struct Scene {
    dir: tempfile::TempDir,
    memory: Memory,
    generation: u8,
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 24) as u8
    };
    (0..len).map(next).collect()
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        let memory = Memory::new(VaultKey::new([1; 32]).id_key());
        Self { dir, memory, generation: 1 }
    }

    fn parameters(&self, patches: Patches) -> VaultParameters {
        let key = VaultKey::new([1; 32]);
        VaultParameters {
            descriptor: Descriptor::managed(VaultId([2; 16])),
            id_key: key.id_key(),
            chunker_key: key.chunker_key(),
            generation: [self.generation; 16],
            patches,
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("tree/database")
    }

    fn signatures(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.dir.path().join("state").join(FOLDER)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    fn save_with(&self, patches: Patches) -> (Saved, u64, u64) {
        let state = self.dir.path().join("state");
        let request = BackupRequest {
            paths: vec![self.dir.path().join("tree")],
            exclude: excludes::Excludes::default(),
            skip: vec![],
            joints: joints::Joints::default(),
            one_file_system: false,
            state: Some(&state),
            // Later than every stamp: nothing is racy.
            now: &|| i64::MAX / 2,
            progress: Arc::new(BackupProgress::default()),
        };
        let before = {
            let held = self.memory.held.lock().unwrap();
            (held.bytes, held.patches)
        };
        let saved = backup(&request, &self.parameters(patches), &self.memory).unwrap();
        let held = self.memory.held.lock().unwrap();
        (saved, held.bytes - before.0, held.patches - before.1)
    }

    /// Writes a version and saves it: that is what it comes back as. The bytes that were sent, and how many of the objects were
    /// patches.
    fn save(&self, content: &[u8]) -> (u64, u64) {
        fs::write(self.file(), content).unwrap();
        let (mut saved, bytes, patches) = self.save_with(Patches::Taken);
        saved.state.take().unwrap().accept().unwrap();
        let to = tempfile::tempdir().unwrap();
        let tree = self.dir.path().join("tree");
        let request = RestoreRequest::to(to.path().to_path_buf());
        let done = restore(&self.memory, saved.root, Some(tree.as_os_str().as_bytes()), &request).unwrap();
        assert_eq!(done.errors, vec![]);
        assert!(fs::read(to.path().join("database")).unwrap() == content, "it comes back as it was");
        (bytes, patches)
    }
}

const LEN: usize = 12 << 20;

/// Rewrites so many pages of 4 KiB.
fn rewrite(content: &mut [u8], seed: u64, pages: usize) {
    for n in 0..pages {
        let page = (seed * 7_919 + n as u64 * 104_729) as usize % (content.len() / 4_096);
        content[page * 4_096..][..4_096].copy_from_slice(&noise(seed * 1_000 + n as u64 + 1, 4_096));
    }
}

#[test]
fn only_what_changed_is_sent_wherever_it_has_moved_to() {
    let scene = Scene::new();
    let mut content = noise(1, LEN);
    let (whole, patches) = scene.save(&content);
    assert!(whole > LEN as u64 && patches == 0);
    rewrite(&mut content, 1, 30);
    let (sent, patches) = scene.save(&content);
    assert!(sent < 300_000 && patches > 3, "{sent} {patches}");
    // Moved, and changed once more.
    content.splice(1_000..1_000, noise(7, 777));
    rewrite(&mut content, 2, 30);
    let (sent, patches) = scene.save(&content);
    assert!(sent < 500_000 && patches > 3, "{sent} {patches}");
    // Half of it is new.
    content[..LEN / 2].copy_from_slice(&noise(9, LEN / 2));
    let (sent, _) = scene.save(&content);
    assert!(sent > LEN as u64 / 2 && sent < LEN as u64 * 7 / 10, "{sent}");
    let (sent, patches) = scene.save(&content);
    assert!(sent < 10_000 && patches == 0, "the same once more: {sent}");
}

/// A patch is always of whole chunks, so it grows from version to version; it costs less to begin anew before it has cost as
/// much as the chunk once more.
#[test]
fn after_some_versions_chunks_are_sent_whole_again() {
    let scene = Scene::new();
    let mut content = noise(1, LEN);
    scene.save(&content);
    let sent: Vec<u64> = (1..=12)
        .map(|version| {
            rewrite(&mut content, version, 90);
            scene.save(&content).0
        })
        .collect();
    assert!(sent.iter().sum::<u64>() < 12 * LEN as u64 / 4, "{sent:?}");
    assert!(sent.iter().max().unwrap() > &(LEN as u64 / 4), "{sent:?}");
    assert!(sent.windows(2).any(|pair| pair[1] < pair[0] / 2), "{sent:?}");
}

#[test]
fn a_file_that_is_not_large_is_signed_once_it_has_changed() {
    let scene = Scene::new();
    let mut content = noise(1, 2 << 20);
    scene.save(&content);
    assert_eq!(scene.signatures().len(), 0);
    rewrite(&mut content, 1, 2);
    assert_eq!(scene.save(&content).1, 0);
    assert_eq!(scene.signatures().len(), 1);
    rewrite(&mut content, 2, 2);
    assert!(scene.save(&content).1 > 0);
}

#[test]
fn what_is_lost_or_damaged_costs_whole_chunks_once() {
    let mut scene = Scene::new();
    let mut content = noise(1, LEN);
    scene.save(&content);
    let mut version = 1;
    let mut next = |scene: &Scene| {
        rewrite(&mut content, version, 20);
        version += 1;
        scene.save(&content).1
    };
    assert!(next(&scene) > 0);
    let path = scene.signatures().pop().unwrap();
    fs::remove_dir_all(path.parent().unwrap()).unwrap();
    assert_eq!(next(&scene), 0, "lost");
    assert!(next(&scene) > 0);
    // From the begin, or from the end. What is wrong between may be of a chunk late in the file, or of none that changes.
    for at in [2, 4, 10, 30, 100, 70_000, -2_000, -11, -1_isize] {
        let mut bytes = fs::read(&path).unwrap();
        let len = bytes.len() as isize;
        bytes[((at + len) % len) as usize] ^= 1;
        fs::write(&path, bytes).unwrap();
        let patches = next(&scene);
        assert!(patches == 0 || [100, 70_000, -2_000].contains(&at), "{at}");
        next(&scene);
        assert!(next(&scene) > 0, "{at}");
    }
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(next(&scene), 0, "cut short");
    assert!(next(&scene) > 0);
    scene.generation = 2;
    assert_eq!(next(&scene), 0, "of another time");
    assert!(next(&scene) > 0);
}

/// It is asked for each base whether it is there; if one is not, the file begins anew.
#[test]
fn a_base_that_is_gone_is_not_built_on() {
    let scene = Scene::new();
    let mut content = noise(1, LEN);
    scene.save(&content);
    let gone: Vec<_> = {
        let held = scene.memory.held.lock().unwrap();
        let chunks = held.objects.iter().filter(|(_, object)| object.kind == Kind::Chunk);
        chunks.map(|(id, _)| *id).collect()
    };
    gone.iter().for_each(|id| drop(scene.memory.held.lock().unwrap().objects.remove(id)));
    rewrite(&mut content, 1, 30);
    assert_eq!(scene.save(&content).1, 0);
    rewrite(&mut content, 2, 30);
    assert_eq!(scene.save(&content).1, 0, "it was not believed any more");
    rewrite(&mut content, 3, 30);
    assert!(scene.save(&content).1 > 0);
}

#[test]
fn a_server_that_takes_no_patches_gets_none_and_nothing_is_kept_for_it() {
    let scene = Scene::new();
    let mut content = noise(1, LEN);
    for version in 0..3 {
        fs::write(scene.file(), &content).unwrap();
        let (mut saved, bytes, patches) = scene.save_with(Patches::Refused);
        saved.state.take().unwrap().accept().unwrap();
        assert!(patches == 0 && bytes > 3 << 20);
        rewrite(&mut content, version, 60);
    }
    assert_eq!(scene.signatures().len(), 0);
}

#[test]
fn when_there_is_no_room_what_never_changed_goes_first_and_then_the_oldest() {
    let scene = Scene::new();
    let state = scene.dir.path().join("state");
    let mut drafts = Drafts::open(&state, &scene.parameters(Patches::Taken)).unwrap();
    let make = |path: &[u8], size: u64, past| {
        let mut reading = drafts.begin(path, size, past, KnownTo::Sink)?;
        let content = noise(size, 1 << 20);
        let (id, proof) = backhaul_object::seal::identify_content(&drafts.id_key, &content);
        assert!(reading.chunk(0, (id, proof), &content).is_none());
        reading.finish();
        Some(drafts.path(&drafts.name(path)))
    };
    let mut paths = Vec::new();
    for (n, past) in [Past::Changed, Past::New, Past::Changed, Past::New].into_iter().enumerate() {
        let path = make(&[n as u8], (9 << 20) + n as u64, past).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(100 * n as u64)).unwrap();
        paths.push(path);
    }
    let one = fs::metadata(&paths[0]).unwrap().len();
    let left = || paths.iter().map(|path| path.exists()).collect::<Vec<_>>();
    let mut with_room = |room: u64| {
        drafts.room = room;
        drafts.make_room();
        left()
    };
    assert_eq!(with_room(4 * one), [true; 4]);
    assert_eq!(with_room(3 * one), [true, false, true, true]);
    assert_eq!(with_room(2 * one), [true, false, true, false]);
    assert_eq!(with_room(one), [false, false, true, false]);
    assert!(
        drafts.begin(b"new", 9 << 20, Past::New, KnownTo::Sink).is_none(),
        "no room for what never changed"
    );
    assert!(drafts.begin(b"new", 1 << 20, Past::Changed, KnownTo::Sink).is_none());
}
