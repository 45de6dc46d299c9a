//! Whole backups of temporary folders into memory, restored and compared.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{SystemTime, UNIX_EPOCH};

use backhaul_object::ids::VaultId;
use backhaul_object::keys::VaultKey;

use super::*;
use crate::browse::{Located, Tree};
use crate::memory::Memory;
use crate::restore::{Overwrite, RestoreProgress, RestoreRequest, restore, verify_restored};

fn parameters() -> VaultParameters {
    let key = VaultKey::new([1; 32]);
    VaultParameters {
        descriptor: Descriptor::managed(VaultId([2; 16])),
        id_key: key.id_key(),
        chunker_key: key.chunker_key(),
        generation: [3; 16],
    }
}

fn clock() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as i64
}

/// Later than every stamp: nothing is racy.
fn later() -> i64 {
    clock() + 60_000_000_000
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3_like(seed, &mut out);
    out
}

fn blake3_like(seed: u64, out: &mut [u8]) {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in out {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *byte = (x >> 24) as u8;
    }
}

fn tree() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("deep/er/est")).unwrap();
    fs::write(at("empty"), b"").unwrap();
    fs::write(at("tiny"), b"tiny").unwrap();
    fs::write(at("deep/er/est/small"), noise(5_000, 1)).unwrap();
    fs::write(at("deep/twin"), noise(5_000, 1)).unwrap();
    fs::write(at("huge"), noise(20_000_000, 2)).unwrap();
    fs::write(at("large"), noise(700_000, 3)).unwrap();
    for i in 0..300 {
        fs::write(at(&format!("deep/{i:03}.txt")), noise(600 + i * 40, i as u64 + 10)).unwrap();
    }
    fs::hard_link(at("large"), at("deep/large-too")).unwrap();
    symlink("../tiny", at("deep/link")).unwrap();
    let strange = dir.path().join(OsStr::from_bytes(b"not-\xff-utf8"));
    fs::write(strange, b"strange").unwrap();
    fs::set_permissions(at("tiny"), fs::Permissions::from_mode(0o4751)).unwrap();
    dir
}

fn save(tree: &Path, state: Option<&Path>, sink: &Memory, now: fn() -> i64) -> Result<Saved, BackupError> {
    let request = BackupRequest {
        paths: vec![tree.to_path_buf()],
        exclude: vec![],
        skip: vec![],
        one_file_system: false,
        state,
        now: &now,
        progress: Arc::default(),
    };
    backup(&request, &parameters(), sink)
}

/// The saved folder itself: the directories above it belong to others, who touch them.
fn saved_at(sink: &Memory, saved: &Saved, tree: &Path) -> Located {
    Tree::new(sink, saved.root).lookup(tree.as_os_str().as_bytes()).unwrap()
}

fn restored_equals(sink: &Memory, root: ObjectId, tree: &Path) {
    let out = tempfile::tempdir().unwrap();
    let request = RestoreRequest {
        target: out.path().to_path_buf(),
        verify: true,
        dry_run: false,
        overwrite: Overwrite::Always,
        progress: Arc::new(RestoreProgress::default()),
    };
    let from = tree.as_os_str().as_bytes();
    let done = restore(sink, root, Some(from), &request).unwrap();
    assert_eq!(done.errors, vec![]);
    let diff = std::process::Command::new("diff").arg("-r").arg(tree).arg(out.path()).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    let back = RestoreRequest { target: tree.to_path_buf(), ..request };
    assert_eq!(verify_restored(sink, root, Some(from), &back).unwrap().errors, vec![]);
}

#[test]
fn everything_comes_back_and_nothing_is_sent_twice() {
    let (tree, state) = (tree(), tempfile::tempdir().unwrap());
    let sink = Memory::new(parameters().id_key);
    let mut first = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!(first.figures.errors, vec![]);
    assert_eq!(first.figures.files_new, 308);
    restored_equals(&sink, first.root, tree.path());
    first.state.take().unwrap().accept().unwrap();

    let (puts, asked) = {
        let held = sink.held.lock().unwrap();
        (held.puts, held.asked)
    };
    let second = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!((second.figures.files_unmodified, second.figures.bytes_read), (308, 0));
    let before = saved_at(&sink, &first, tree.path());
    assert_eq!(saved_at(&sink, &second, tree.path()), before);
    let after = {
        let held = sink.held.lock().unwrap();
        (held.puts, held.asked)
    };
    assert!(after.0 - puts <= 1 && after.1 == asked, "an unchanged tree asks nothing and sends no content");

    let third = save(tree.path(), None, &sink, later).unwrap();
    assert_eq!(
        saved_at(&sink, &third, tree.path()),
        before,
        "without state everything is read, to the same end"
    );
    assert!(third.figures.objects_known > 300 && third.figures.bytes_sent < 100_000);
}

#[test]
fn one_edit_sends_one_file_and_its_directories() {
    let (tree, state) = (tree(), tempfile::tempdir().unwrap());
    let sink = Memory::new(parameters().id_key);
    save(tree.path(), Some(state.path()), &sink, later).unwrap().state.unwrap().accept().unwrap();
    let puts = sink.held.lock().unwrap().puts;
    fs::write(tree.path().join("deep/007.txt"), noise(9_000, 99)).unwrap();
    let saved = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!((saved.figures.files_changed, saved.figures.bytes_read), (1, 9_000));
    assert!(sink.held.lock().unwrap().puts - puts < 8);
    restored_equals(&sink, saved.root, tree.path());
}

/// A second edit within one tick of the clock leaves size and stamps as they were.
#[test]
fn a_file_whose_stamps_prove_nothing_is_read_again() {
    let (tree, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sink = Memory::new(parameters().id_key);
    fs::write(tree.path().join("f"), b"same").unwrap();
    save(tree.path(), Some(state.path()), &sink, || 0).unwrap().state.unwrap().accept().unwrap();
    let again = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!((again.figures.files_changed, again.figures.bytes_read), (1, 4));
    again.state.unwrap().accept().unwrap();
    let third = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!(third.figures.files_unmodified, 1);
}

#[test]
fn a_cut_run_carries_on_where_it_was() {
    let (tree, state) = (tree(), tempfile::tempdir().unwrap());
    for i in 0..3_000 {
        fs::write(tree.path().join(format!("deep/more-{i:05}")), noise(2_000, 1_000 + i)).unwrap();
    }
    let sink = Memory::new(parameters().id_key);
    sink.held.lock().unwrap().breaks_after = Some(14);
    assert!(matches!(save(tree.path(), Some(state.path()), &sink, later), Err(BackupError::Transfer(_))));
    let sent = sink.held.lock().unwrap().puts;
    sink.held.lock().unwrap().breaks_after = None;
    let saved = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert!(saved.figures.files_unmodified > 100, "{:?}", saved.figures);
    restored_equals(&sink, saved.root, tree.path());
    let whole = Memory::new(parameters().id_key);
    let reference = save(tree.path(), None, &whole, later).unwrap();
    assert!(saved.figures.objects_sent + sent <= reference.figures.objects_sent + 8, "little is sent twice");
}

#[test]
fn what_cannot_be_kept_or_read_is_named_and_the_rest_is_saved() {
    let tree = tempfile::tempdir().unwrap();
    fs::write(tree.path().join("good"), b"good").unwrap();
    fs::File::create(tree.path().join("holes")).unwrap().set_len(10_000_000).unwrap();
    let sink = Memory::new(parameters().id_key);
    let saved = save(tree.path(), None, &sink, later).unwrap();
    let not_kept =
        |kind: &str| saved.figures.not_kept.iter().find(|(known, _)| known == kind).map(|(_, n)| *n);
    assert_eq!(not_kept("holes of sparse files"), Some(1));
    assert_eq!(saved.totals.files, 2);
    let missing = save(&tree.path().join("nothing"), None, &sink, later).err().unwrap();
    assert!(matches!(missing, BackupError::Path { .. }));
}

/// Programs can set a file's time back; they cannot set back the change time, or give a file another's inode.
#[test]
fn an_edit_that_keeps_size_and_time_is_seen_and_so_is_a_file_moved_over_another() {
    let (tree, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sink = Memory::new(parameters().id_key);
    let at = |name: &str| tree.path().join(name);
    let set_back = |name: &str| {
        let file = fs::File::options().write(true).open(at(name)).unwrap();
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000)).unwrap();
    };
    for name in ["edited", "replaced", "same"] {
        fs::write(at(name), noise(4_000, 1)).unwrap();
        set_back(name);
    }
    save(tree.path(), Some(state.path()), &sink, later).unwrap().state.unwrap().accept().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(at("edited"), noise(4_000, 2)).unwrap();
    set_back("edited");
    fs::write(at("new"), noise(4_000, 3)).unwrap();
    set_back("new");
    fs::rename(at("new"), at("replaced")).unwrap();
    let saved = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!((saved.figures.files_changed, saved.figures.files_unmodified), (2, 1));
    restored_equals(&sink, saved.root, tree.path());
}
