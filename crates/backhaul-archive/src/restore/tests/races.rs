//! Somebody else works in the target while it is restored: whatever they do, nothing outside of it is touched.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::*;

/// What lies outside, with everything about it that a restore could change.
fn outside(dir: &Path) -> BTreeMap<PathBuf, (u32, u32, u64, i64, Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        let meta = at.symlink_metadata().unwrap();
        let content = if meta.is_file() { fs::read(&at).unwrap() } else { vec![] };
        if meta.is_dir() {
            todo.extend(fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.insert(at, (meta.mode(), meta.uid(), meta.nlink(), meta.mtime(), content));
    }
    all
}

fn canaries(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    for name in ["a", "b", "big", "z", "sub/z", "sub/link2", "sub/deep/f", "empty"] {
        fs::write(dir.join(name), format!("canary {name}")).unwrap();
    }
    fs::set_permissions(dir.join("sub"), fs::Permissions::from_mode(0o500)).unwrap();
}

/// Swaps folders and files of the target for links that lead outside, and back, as fast as it can.
fn meddle(target: &Path, outside: &Path, over: &AtomicBool) {
    let home = target.join("home/ana");
    let mut turn = 0u32;
    while !over.load(Ordering::Relaxed) {
        turn = turn.wrapping_add(1);
        // Nothing here is a link now.
        let _ = fs::create_dir_all(home.join("extra/deep"));
        for name in ["sub", "a", "big", "many", "link1", "extra"] {
            let (at, aside) = (home.join(name), target.join(format!("aside {name}")));
            // All of this may fail: the restore works here, too.
            if turn.is_multiple_of(2) {
                if fs::rename(&at, &aside).is_ok() {
                    let _ = symlink(outside.join(if name == "extra" { "sub" } else { name }), &at);
                }
            } else if at.is_symlink() {
                let _ = fs::remove_file(&at);
                let _ = fs::rename(&aside, &at);
            }
        }
        if turn.is_multiple_of(7) {
            let _ = fs::rename(&home, target.join("aside ana"));
            let _ = symlink(outside, &home);
            let _ = fs::remove_file(&home);
            let _ = fs::rename(target.join("aside ana"), &home);
        }
    }
}

#[test]
fn a_target_that_changes_under_the_restore_leads_nowhere() {
    let sample = sample();
    let (temp, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (target, canary) = (temp.path().join("target"), out.path().join("canary"));
    fs::create_dir(&canary).unwrap();
    canaries(&canary);
    let before = outside(&canary);
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let meddler = scope.spawn(|| meddle(&target, &canary, over));
        for i in 0..12 {
            let overwrite = if i % 3 == 2 { Overwrite::IfChanged } else { Overwrite::Always };
            let request = RestoreRequest {
                delete: i % 2 == 1,
                verify: i % 4 == 0,
                overwrite,
                id_key: Some(sample.source.key.clone()),
                ..RestoreRequest::to(target.clone())
            };
            // It may well fail, and says so; that is all.
            let _ = restore(&sample.source, sample.root, None, &request);
        }
        over.store(true, Ordering::Relaxed);
        meddler.join().unwrap();
    });
    let after = outside(&canary);
    for (path, was) in &before {
        assert_eq!(after.get(path), Some(was), "{}", path.display());
    }
    assert_eq!(after.len(), before.len(), "{:?}", after.keys());
    // When they are gone, all is well again.
    fs::remove_dir_all(&target).unwrap();
    let done = restore(&sample.source, sample.root, None, &request(&target, Overwrite::Always)).unwrap();
    assert_eq!(done.errors, []);
}

/// What the walk did not see is not replaced: neither by what is written at once nor by what is moved into place, and links.
#[test]
fn what_comes_after_the_walk_has_looked_stays() {
    let (temp, mut source) = (tempfile::tempdir().unwrap(), Source::new());
    let large: Vec<Piece> = (0..9).map(|i| source.chunk(&noise(200_000, i + 40))).collect();
    let content = Content::Flist(source.flist(&large));
    let files = BTreeMap::from([
        (b"large".to_vec(), Item::File(content, 1_800_000, None)),
        (b"link".to_vec(), Item::Link(b"somewhere")),
        (b"small".to_vec(), Item::File(Content::Inline(b"small".to_vec()), 5, None)),
        (b"whole".to_vec(), Item::File(Content::Inline(b"whole".to_vec()), 5, None)),
    ]);
    let root = source.tree(files);
    let (writes, to) = (temp.path().join("to"), temp.path().join("to"));
    fs::create_dir(&to).unwrap();
    let intrude = move |_: Act, path: &Path| {
        if !path.ends_with("whole") && path.symlink_metadata().is_err() {
            fs::write(writes.join(path.file_name().unwrap()), "theirs").unwrap();
        }
    };
    let mut request = request(&to, Overwrite::Always);
    request.tell = Some(std::sync::Arc::new(intrude));
    let done = restore(&source, root, None, &request).unwrap();
    for name in ["large", "small"] {
        assert_eq!(fs::read(to.join(name)).unwrap(), b"theirs", "{name}");
    }
    assert_eq!(fs::read(to.join("whole")).unwrap(), b"whole");
    assert_eq!(done.errors.len(), 2, "{:?}", done.errors);
    assert!(done.errors.iter().all(|(_, why)| why.contains("has come there meanwhile")), "{:?}", done.errors);
    let there = fs::read_dir(&to).unwrap().count();
    assert_eq!(there, 4, "nothing of ours is left");
}
