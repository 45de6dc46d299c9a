//! What a backup does to what it saves: it leaves no trace there, starts nothing, and is not led elsewhere.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backhaul_tests::netns::skipped;
use backhaul_tests::volumes::Volume;
use backhaul_tests::{Home, trees, wait_until};
use rustix::fs::{CWD, FileType, RenameFlags, Timespec, Timestamps, UTIME_OMIT};

/// Most that a backup takes that waits for nothing.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_file_that_is_read_keeps_the_time_of_its_last_access() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("letter");
    fs::write(&path, trees::noise(300_000, 1)).unwrap();
    // So long ago that reading would change it.
    let times = Timestamps {
        last_access: Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 },
        last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
    let home = Home::new();
    home.run(&["-q", "quickstart", dir.path().to_str().unwrap()]).ok();
    let saved = path.metadata().unwrap().atime();
    // The proof of a quickstart reads the originals; a backup does not.
    rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
    fs::File::options().append(true).open(&path).unwrap().set_len(300_001).unwrap();
    home.run(&["-q", "backup", dir.path().to_str().unwrap()]).ok();
    assert_eq!(path.metadata().unwrap().atime(), 1_000_000_000, "after the first it was {saved}");
    // Otherwise this could not fail.
    fs::read(&path).unwrap();
    assert_ne!(path.metadata().unwrap().atime(), 1_000_000_000);
}

/// Whoever opens what waits to be mounted is held up until that is done, and here nobody does it.
#[test]
fn what_is_mounted_when_somebody_looks_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, point) = (dir.path().join("tree"), dir.path().join("tree/point"));
    fs::create_dir_all(&point).unwrap();
    fs::write(tree.join("letter"), "dear ana").unwrap();
    let home = Home::new();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    // Whom the kernel takes for the one who mounts, so that it holds up all others.
    let mut nobody = Command::new("sleep").arg("600").process_group(0).stdout(Stdio::null()).spawn().unwrap();
    let (asked, asks) = std::io::pipe().unwrap();
    let options = format!("fd=0,pgrp={},minproto=5,maxproto=5,direct", nobody.id());
    let mounted = Command::new("mount")
        .args(["-t", "autofs", "-o", &options, "backhaul-test"])
        .arg(&point)
        .stdin(Stdio::from(OwnedFd::from(asks)))
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        nobody.kill().unwrap();
        nobody.wait().unwrap();
        return skipped("no autofs can be mounted here");
    }
    let mut backup = home.command(&["--json", "backup", tree.to_str().unwrap()]);
    let mut backup = backup.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while backup.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
    }
    let is_over = backup.try_wait().unwrap().is_some();
    // Nobody answers any more: whoever waits is let go.
    drop(asked);
    Command::new("umount").arg("-l").arg(&point).status().unwrap();
    nobody.kill().unwrap();
    nobody.wait().unwrap();
    let done = backup.wait_with_output().unwrap();
    assert!(is_over, "it waits for somebody to mount something");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("not mounted now"));
    let listed = home.run(&["ls", "-l", &format!("latest:{}", tree.display())]).ok().out;
    assert!(listed.contains("letter") && listed.contains("point"), "{listed}");
}

/// Somebody who may write to a folder swaps things in it for links to what only root may read.
#[test]
fn a_link_that_takes_the_place_of_something_is_not_followed() {
    const SECRET: &str = "the secret of another";
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), SECRET).unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    for n in 0..200 {
        fs::write(at("folder").join(format!("{n:03}")), format!("file {n}")).unwrap();
        fs::write(at(&format!("file-{n:03}")), "my own, and just as long as the other").unwrap();
    }
    symlink(outside.path(), at("to-folder")).unwrap();
    symlink(outside.path().join("secret"), at("to-file")).unwrap();
    let (home, stop) = (Home::new(), AtomicBool::new(false));
    let path = dir.path().to_str().unwrap();
    home.run(&["-q", "quickstart", path]).ok();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let swap = |one: &str, other: &str| {
                rustix::fs::renameat_with(CWD, at(one), CWD, at(other), RenameFlags::EXCHANGE).unwrap();
            };
            while !stop.load(Ordering::Relaxed) {
                swap("folder", "to-folder");
                for n in (0..200).step_by(10) {
                    swap(&format!("file-{n:03}"), "to-file");
                }
            }
        });
        for _ in 0..8 {
            let done = home.run(&["-q", "backup", path]);
            assert!(matches!(done.code, 0 | 3), "{}", done.err);
        }
        stop.store(true, Ordering::Relaxed);
    });
    for row in home.json(&["snapshots"]).as_array().unwrap() {
        let out = tempfile::tempdir().unwrap();
        let id = row["id"].as_str().unwrap();
        home.run(&["-q", "restore", &format!("{id}:{path}"), "-t", out.path().to_str().unwrap()]).ok();
        for file in trees::files(out.path()).iter().filter(|file| file.symlink_metadata().unwrap().is_file())
        {
            assert_ne!(fs::read_to_string(file).unwrap(), SECRET, "{}", file.display());
        }
    }
}

/// Whoever opens a pipe waits for its other end, and here there is none; and folders go while they are walked.
#[test]
fn what_goes_or_becomes_a_pipe_under_way_holds_nothing_up_and_takes_nothing_along() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for n in 0..100 {
        fs::write(at(&format!("file-{n:03}")), format!("file {n}")).unwrap();
        fs::create_dir_all(at(&format!("folder-{n:03}/in"))).unwrap();
        fs::write(at(&format!("folder-{n:03}/stays")), format!("stays {n}")).unwrap();
    }
    trees::special(dir.path(), "pipe", FileType::Fifo, 0).unwrap();
    let (home, stop, path) = (Home::new(), AtomicBool::new(false), dir.path().to_str().unwrap());
    home.run(&["-q", "quickstart", path]).ok();
    let runs: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for n in (0..100).step_by(5) {
                    let (file, folder) = (at(&format!("file-{n:03}")), at(&format!("folder-{n:03}/in")));
                    rustix::fs::renameat_with(CWD, &file, CWD, at("pipe"), RenameFlags::EXCHANGE).unwrap();
                    fs::remove_dir(&folder).unwrap();
                    std::thread::yield_now();
                    fs::create_dir(&folder).unwrap();
                }
            }
        });
        let one = |_| {
            let mut command = home.command(&["--json", "backup", path]);
            let mut backup = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let begun = Instant::now();
            while backup.try_wait().unwrap().is_none() && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(5));
            }
            let is_over = backup.try_wait().unwrap().is_some();
            // One that waits for a pipe does not end by itself.
            let _ = backup.kill();
            (is_over, backup.wait_with_output().unwrap())
        };
        let runs = (0..10).map(one).collect();
        stop.store(true, Ordering::Relaxed);
        runs
    });
    for (is_over, done) in runs {
        assert!(is_over, "it waits for the other end of a pipe");
        let said = String::from_utf8_lossy(&done.stdout);
        assert!(matches!(done.status.code(), Some(0 | 3)), "{said}");
        let done: serde_json::Value = serde_json::from_str(&said).unwrap();
        for error in done["errors"].as_array().unwrap() {
            let meddled =
                ["/file-", "/in", "/pipe"].iter().any(|part| error["path"].as_str().unwrap().contains(part));
            assert!(meddled, "{error}");
        }
        let (id, out) = (done["snapshot"].as_str().unwrap(), tempfile::tempdir().unwrap());
        home.run(&["-q", "restore", &format!("{id}:{path}"), "-t", out.path().to_str().unwrap()]).ok();
        for n in 0..100 {
            let kept = |name: String| fs::read_to_string(out.path().join(name)).unwrap();
            assert_eq!(kept(format!("folder-{n:03}/stays")), format!("stays {n}"));
            if n % 5 != 0 {
                assert_eq!(kept(format!("file-{n:03}")), format!("file {n}"));
            }
        }
    }
}

/// True while a process is in the middle of a file.
fn is_within(pid: u32, path: &Path) -> bool {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let of_file = entries.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path));
    let numbers: Vec<_> = of_file.map(|entry| entry.file_name().into_string().unwrap()).collect();
    numbers.iter().any(|number| {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap_or_default();
        let place = info.lines().find_map(|line| line.strip_prefix("pos:")).unwrap_or("0").trim().to_owned();
        place.parse::<u64>().unwrap() > 0
    })
}

/// What happens to a file of which a part is read already: it is named, what was saved of it was there, and the next run has it.
#[test]
fn a_file_that_becomes_another_while_it_is_read_is_named() {
    const SIZE: usize = 48 << 20;
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (tree, home) = (dir.path().join("tree"), Home::new());
    let (file, before) = (tree.join("large"), trees::noise(SIZE, 1));
    // Outside of the tree: another thread may be about to read what lies in it.
    let spare = dir.path().join("spare");
    fs::create_dir(&tree).unwrap();
    fs::write(&spare, "not touched").unwrap();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let open = || fs::File::options().write(true).open(&file).unwrap();
    let changes: [(&str, &dyn Fn(), usize); 5] = [
        ("shrunk", &|| open().set_len(SIZE as u64 - 4_096).unwrap(), SIZE - 4_096),
        ("emptied", &|| open().set_len(0).unwrap(), 0),
        ("grown", &|| open().set_len(SIZE as u64 + 4_096).unwrap(), SIZE + 4_096),
        ("rewritten", &|| open().write_all_at(b"another end", SIZE as u64 - 11).unwrap(), SIZE),
        ("replaced", &|| fs::rename(&spare, &file).unwrap(), 11),
    ];
    for (what, change, len) in changes {
        fs::write(&file, &before).unwrap();
        let mut command = home.command(&["--json", "backup", tree.to_str().unwrap()]);
        let backup = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&backup);
        wait_until("it reads the file", || is_within(backup.id(), &file));
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        change();
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        let done = backup.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(3), "{what}: {}", String::from_utf8_lossy(&done.stderr));
        let done: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
        let errors = done["errors"].as_array().unwrap();
        assert_eq!((errors.len(), errors[0]["path"].as_str()), (1, file.to_str()), "{what}: {done}");
        assert!(errors[0]["error"].as_str().unwrap().contains("changed while it was read"), "{what}: {done}");

        let now = fs::read(&file).unwrap();
        assert_eq!(now.len(), len, "{what}");
        let (to, from) = (out.path().join(what), format!("latest:{}", tree.display()));
        home.run(&["-q", "restore", &from, "-t", to.to_str().unwrap()]).ok();
        let saved = fs::read(to.join("large")).unwrap();
        assert!(!saved.is_empty() && saved.len() <= SIZE, "{what}: {} bytes", saved.len());
        let was_there = |(at, byte): (usize, &u8)| before.get(at) == Some(byte) || now.get(at) == Some(byte);
        assert!(saved.iter().enumerate().all(was_there), "{what}: something was saved that never was there");
        home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
        home.run(&["-q", "restore", &from, "-t", to.to_str().unwrap(), "--delete"]).ok();
        trees::assert_equal(&tree, &to);
    }
}

/// Two writes of the same length within one step of the clock of a file system leave size and times as they were.
#[test]
fn what_changes_again_within_one_step_of_a_coarse_clock_is_saved() {
    // Times of whole seconds.
    let Some(volume) = Volume::new("ext2 -I 128", 64, "") else { return };
    let (tree, home) = (volume.path().join("tree"), Home::new());
    fs::create_dir(&tree).unwrap();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let file = tree.join("f");
    let times = || fs::metadata(&file).map(|meta| (meta.mtime(), meta.mtime_nsec(), meta.ctime())).unwrap();
    let dump = || home.run(&["dump", &format!("latest:{}", file.display())]).ok().out;
    let mut tried = 0;
    for n in 0..20 {
        fs::write(&file, format!("one {n:02}")).unwrap();
        let before = times();
        home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
        fs::write(&file, format!("two {n:02}")).unwrap();
        // Else the times tell.
        if times() != before {
            continue;
        }
        tried += 1;
        std::thread::sleep(Duration::from_millis(2_100));
        home.run(&["-q", "backup", tree.to_str().unwrap()]).ok();
        assert_eq!(dump(), format!("two {n:02}"));
        if tried == 2 {
            return;
        }
    }
    panic!("only {tried} times both writes were within one second");
}

/// Whoever has a file mapped into memory moves its times with the first write only, until what was written goes to the disk.
#[test]
fn what_is_written_through_a_map_of_memory_is_saved() {
    const WRITER: &str = "import mmap, sys\nf = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0)\n\
        for line in sys.stdin:\n    m[0:3] = line.strip().encode(); print('written', flush=True)";
    let dir = tempfile::tempdir().unwrap();
    let (tree, home) = (dir.path().join("tree"), Home::new());
    let file = tree.join("database");
    fs::create_dir(&tree).unwrap();
    fs::write(&file, "new, and of one page").unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", WRITER]).arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut writer) = python.spawn() else { return skipped("there is no python3") };
    let mut said = BufReader::new(writer.stdout.take().unwrap());
    let mut write = |text: &str| {
        writeln!(writer.stdin.as_mut().unwrap(), "{text}").unwrap();
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        assert_eq!(line, "written\n");
    };
    write("one");
    // Long enough for the times of all file systems.
    std::thread::sleep(Duration::from_millis(2_500));
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let times = || fs::metadata(&file).map(|meta| (meta.mtime(), meta.mtime_nsec(), meta.ctime())).unwrap();
    let before = times();
    write("two");
    let is_silent = times() == before;
    let saved = home.json(&["backup", tree.to_str().unwrap()]);
    let dumped = home.run(&["dump", &format!("latest:{}", file.display())]).ok().out;
    drop(writer.stdin.take());
    writer.wait().unwrap();
    assert_eq!(dumped, "two, and of one page", "{saved}");
    assert_eq!(saved["files_changed"], 1, "{saved}");
    if !is_silent {
        skipped("the system has written it to the disk meanwhile: its times told");
    }
}

/// On two file systems, the same inode numbers are not the same files.
#[test]
fn names_of_one_file_are_those_of_one_file_system() {
    let volumes = [Volume::new("tmpfs", 4, ""), Volume::new("tmpfs", 4, "")];
    let [Some(one), Some(other)] = &volumes else { return };
    let made = |volume: &Volume, text: &str| {
        fs::write(volume.path().join("first"), text).unwrap();
        fs::hard_link(volume.path().join("first"), volume.path().join("second")).unwrap();
        volume.path().join("first").metadata().unwrap().ino()
    };
    if made(one, "on the one") != made(other, "on the other") {
        return skipped("two new file systems do not number their files alike");
    }
    let (home, out) = (Home::new(), tempfile::tempdir().unwrap());
    let paths = [one.path(), other.path()];
    let names = paths.each_ref().map(|path| path.to_str().unwrap());
    home.run(&["-q", "quickstart", names[0], names[1]]).ok();
    home.run(&["-q", "restore", "latest", "-t", out.path().to_str().unwrap()]).ok();
    let back = |path: &Path| out.path().join(path.strip_prefix("/").unwrap());
    for path in &paths {
        trees::assert_equal(path, &back(path));
        assert_eq!(back(path).join("first").metadata().unwrap().nlink(), 2);
    }
}
