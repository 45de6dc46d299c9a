//! Whole backups of temporary folders into memory, restored and compared.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::time::{SystemTime, UNIX_EPOCH};

use backhaul_object::ids::VaultId;
use backhaul_object::keys::VaultKey;

use super::*;
use crate::browse::{Located, Tree};
use crate::memory::Memory;
use crate::restore::{Overwrite, RestoreRequest, restore, verify_restored};

mod stalls;

fn parameters() -> VaultParameters {
    let key = VaultKey::new([1; 32]);
    VaultParameters {
        descriptor: Descriptor::managed(VaultId([2; 16])),
        id_key: key.id_key(),
        chunker_key: key.chunker_key(),
        generation: [3; 16],
        patches: Patches::Refused,
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

fn save(
    tree: &Path,
    state: Option<&Path>,
    sink: &dyn ObjectSink,
    now: impl Fn() -> i64 + Sync,
) -> Result<Saved, BackupError> {
    save_with(&parameters(), tree, state, sink, now)
}

fn save_with(
    parameters: &VaultParameters,
    tree: &Path,
    state: Option<&Path>,
    sink: &dyn ObjectSink,
    now: impl Fn() -> i64 + Sync,
) -> Result<Saved, BackupError> {
    let request = BackupRequest {
        paths: vec![tree.to_path_buf()],
        exclude: excludes::Excludes::default(),
        skip: vec![],
        one_file_system: false,
        joints: joints::Joints::default(),
        state,
        now: &now,
        progress: Arc::default(),
    };
    backup(&request, parameters, sink)
}

/// The saved folder itself: the directories above it belong to others, who touch them.
fn saved_at(sink: &Memory, saved: &Saved, tree: &Path) -> Located {
    Tree::new(sink, saved.root).lookup(tree.as_os_str().as_bytes()).unwrap()
}

fn restored_equals(sink: &Memory, root: ObjectId, tree: &Path) {
    let out = tempfile::tempdir().unwrap();
    let request = RestoreRequest {
        verify: true,
        overwrite: Overwrite::Always,
        ..RestoreRequest::to(out.path().to_path_buf())
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

/// Of small files the former version is a member of a bundle, of others chunks; later it is what the patch before was made of.
#[test]
fn what_was_edited_goes_as_a_patch_of_what_was_in_its_place() {
    let (tree, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| tree.path().join(name);
    for n in 0..60 {
        fs::write(at(&format!("{n:02}")), noise(8_000 + 1_000 * n, n as u64 + 1)).unwrap();
    }
    fs::write(at("middling"), noise(3 << 20, 99)).unwrap();
    let edit = |name: &str, at: usize| {
        let mut content = fs::read(tree.path().join(name)).unwrap();
        content.splice(at..at, *b"edited");
        fs::write(tree.path().join(name), content).unwrap();
    };
    let parameters = VaultParameters { patches: Patches::Helped, ..parameters() };
    let mut sink = Memory::new(parameters.id_key.clone());
    sink.signs = Some(parameters.chunker_key.clone());
    let save = |sink: &Memory| {
        let before = sink.held.lock().unwrap().bytes;
        let mut saved = save_with(&parameters, tree.path(), Some(state.path()), sink, later).unwrap();
        saved.state.take().unwrap().accept().unwrap();
        restored_equals(sink, saved.root, tree.path());
        let held = sink.held.lock().unwrap();
        (held.patches, held.bytes - before)
    };
    assert_eq!(save(&sink).0, 0);
    for n in (0..60).step_by(2) {
        edit(&format!("{n:02}"), 4_000);
    }
    edit("middling", 1 << 20);
    let (patches, bytes) = save(&sink);
    assert!((30..=33).contains(&patches), "{patches}");
    assert!(bytes < 120_000, "{bytes}");
    for n in (0..60).step_by(3) {
        edit(&format!("{n:02}"), 2_000);
    }
    let (after, bytes) = save(&sink);
    assert!(after >= patches + 20 && bytes < 80_000, "{after} {bytes}");
    // What has nothing in common with what it was goes with other small files, and so does what is too small to be worth it.
    for n in 0..20 {
        fs::write(at(&format!("{n:02}")), noise(20_000, 1_000 + n)).unwrap();
        fs::write(at(&format!("{}", n + 20)), noise(900, 2_000 + n)).unwrap();
    }
    let puts = sink.held.lock().unwrap().puts;
    assert_eq!(save(&sink).0, after);
    assert!(sink.held.lock().unwrap().puts - puts < 8);
    // Who does not answer costs bytes only.
    sink.signs = None;
    edit("40", 9);
    assert_eq!(save(&sink).0, after);
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

/// A directory's leaf is written anew with each change in it: what is small is not in there with its content.
#[test]
fn one_edit_among_small_files_does_not_send_the_others() {
    let (tree, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sink = Memory::new(parameters().id_key);
    for i in 0..300 {
        fs::write(tree.path().join(format!("{i:03}")), noise(300, i + 1)).unwrap();
    }
    save(tree.path(), Some(state.path()), &sink, later).unwrap().state.unwrap().accept().unwrap();
    let before = sink.held.lock().unwrap().bytes;
    fs::write(tree.path().join("007"), noise(301, 999)).unwrap();
    let saved = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    let sent = sink.held.lock().unwrap().bytes - before;
    assert!(before > 300 * 300 && sent < 30_000, "{before} bytes at first, then {sent}");
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
    // It was read, and was what it was.
    assert_eq!((again.figures.files_unmodified, again.figures.bytes_read), (1, 4));
    again.state.unwrap().accept().unwrap();
    let third = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!((third.figures.files_unmodified, third.figures.bytes_read), (1, 0));
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
fn holes_are_neither_read_nor_sent_and_come_back_as_holes() {
    let (tree, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sparse = |name: &str, len: u64, data: &[(u64, usize)]| {
        let file = fs::File::create(tree.path().join(name)).unwrap();
        file.set_len(len).unwrap();
        for (at, bytes) in data {
            file.write_all_at(&noise(*bytes, *at), *at).unwrap();
        }
    };
    sparse("nothing", 8 << 30, &[]);
    sparse("small", 90_000, &[(65_536, 4_096)]);
    sparse("ends", 6 << 30, &[(0, 4_096), (3 << 30, 2_000_000), ((6 << 30) - 4_096, 4_096)]);
    let many: Vec<(u64, usize)> = (0..400).map(|i| (i << 20, 4_096)).collect();
    sparse("many", 400 << 20, &many);
    let sink = Memory::new(parameters().id_key);
    let saved = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!(saved.figures.errors, []);
    assert!(saved.figures.bytes_read < 4_000_000, "{:?}", saved.figures);
    assert_eq!(saved.totals.bytes, (8 << 30) + 90_000 + (6 << 30) + (400 << 20));
    saved.state.unwrap().accept().unwrap();
    let again = save(tree.path(), Some(state.path()), &sink, later).unwrap();
    assert_eq!((again.root, again.figures.files_unmodified, again.figures.bytes_read), (saved.root, 4, 0));

    let out = tempfile::tempdir().unwrap();
    let request = RestoreRequest {
        verify: true,
        overwrite: Overwrite::Always,
        ..RestoreRequest::to(out.path().to_owned())
    };
    let from = tree.path().as_os_str().as_bytes();
    let done = restore(&sink, saved.root, Some(from), &request).unwrap();
    assert_eq!(done.errors, []);
    for name in ["nothing", "small", "ends", "many"] {
        let (was, is) = (tree.path().join(name), out.path().join(name));
        assert_eq!(extents(&was), extents(&is), "{name}");
        let room = |path: &Path| path.metadata().unwrap().blocks();
        assert_eq!(room(&was), room(&is), "{name}");
    }
    // Data where there should be none is a difference; zeros are not.
    let file = fs::File::options().write(true).open(out.path().join("nothing")).unwrap();
    file.write_all_at(&[0; 4_096], 5 << 30).unwrap();
    assert_eq!(verify_restored(&sink, saved.root, Some(from), &request).unwrap().errors, []);
    file.write_all_at(&[1], 5 << 30).unwrap();
    let differs = verify_restored(&sink, saved.root, Some(from), &request).unwrap().errors;
    assert_eq!(differs.len(), 1, "{differs:?}");
    assert!(differs[0].1.contains("differs from the snapshot after byte 5368709120"), "{differs:?}");
}

/// The runs of data of a file and what is in them, by the system's own word.
fn extents(path: &Path) -> Vec<(u64, Vec<u8>)> {
    let file = fs::File::open(path).unwrap();
    let (mut at, mut all) = (0, Vec::new());
    while let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) {
        at = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(data)).unwrap();
        let mut bytes = vec![0; (at - data) as usize];
        file.read_exact_at(&mut bytes, data).unwrap();
        all.push((data, bytes));
    }
    all.push((file.metadata().unwrap().len(), Vec::new()));
    all
}

#[test]
fn what_is_not_there_is_named() {
    let tree = tempfile::tempdir().unwrap();
    let sink = Memory::new(parameters().id_key);
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
