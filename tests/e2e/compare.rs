//! What differs between snapshots, and folders as archives.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use backhaul_tests::netns::skipped;
use backhaul_tests::{Home, trees};
use serde_json::json;

use crate::json::assert_fits;

#[test]
fn a_diff_names_what_was_added_removed_and_changed_and_how() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["same", "content", "furtive", "mode", "gone/a", "gone/b", "kind", "moved", "deep/er/same"] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), trees::noise(3_000, name.len() as u64)).unwrap();
    }
    let home = Home::new();
    let path = dir.path().to_str().unwrap();
    home.run(&["-q", "quickstart", path]).ok();
    fs::write(at("content"), trees::noise(3_000, 99)).unwrap();
    let when = fs::metadata(at("furtive")).unwrap().modified().unwrap();
    fs::write(at("furtive"), trees::noise(3_000, 98)).unwrap();
    fs::File::options().write(true).open(at("furtive")).unwrap().set_modified(when).unwrap();
    fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir_all(at("gone")).unwrap();
    fs::remove_file(at("kind")).unwrap();
    std::os::unix::fs::symlink("same", at("kind")).unwrap();
    fs::rename(at("moved"), at("new place")).unwrap();
    home.run(&["-q", "backup", path]).ok();
    let first = home.json(&["snapshots"])[0]["id"].as_str().unwrap()[..12].to_owned();
    let differs = home.json(&["diff", &first]);
    assert_fits("diff.json", &differs);
    let found: Vec<(String, String)> = differs
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let name = row["path"].as_str().unwrap().strip_prefix(path).unwrap().trim_start_matches('/');
            (name.to_owned(), row["change"].as_str().unwrap().to_owned())
        })
        .collect();
    let expected = [
        ("", "metadata"),
        ("content", "content"),
        ("furtive", "content"),
        ("gone", "removed"),
        ("gone/a", "removed"),
        ("gone/b", "removed"),
        ("kind", "removed"),
        ("kind", "kind"),
        ("mode", "metadata"),
        ("moved", "removed"),
        ("new place", "added"),
    ];
    assert_eq!(found, expected.map(|(name, change)| (name.to_owned(), change.to_owned())));
    let lines = home.run(&["diff", &first, &format!("latest:{path}/gone")]).ok().out;
    assert_eq!(lines, format!("- {path}/gone/a\n- {path}/gone/b\n"));
    assert_eq!(home.json(&["diff", "latest", "latest"]), json!([]));
    let near = home.run(&["diff", &first, &format!("latest:{path}/sam")]).expect(1);
    assert!(near.err.contains("same"), "{}", near.err);
}

/// Unpacked by the system's own tar, a folder is what it was.
#[test]
fn a_folder_comes_out_as_a_tar_that_others_unpack() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tree = trees::everything(dir.path());
    let long = tree.join("l".repeat(200));
    fs::create_dir(&long).unwrap();
    fs::write(long.join("m".repeat(200)), b"long").unwrap();
    std::os::unix::fs::symlink("t".repeat(300), tree.join("to far away")).unwrap();
    for name in ["user.a=b", "user.100%25", "user.=%3D="] {
        let set =
            rustix::fs::setxattr(long.join("m".repeat(200)), name, b"odd", rustix::fs::XattrFlags::empty());
        set.unwrap();
    }
    // A tar has none of these.
    for name in ["socket", "deep/socket-too"] {
        fs::remove_file(tree.join(name)).unwrap();
    }
    let home = Home::new();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let what = format!("latest:{}", tree.display());
    let mut dump = home.command(&["dump", &what, "--archive", "tar"]).stdout(Stdio::piped()).spawn().unwrap();
    let unpacked = Command::new("tar")
        .args(["x", "--sparse", "--xattrs", "--xattrs-include=*", "-p", "-C"])
        .arg(out.path())
        .stdin(dump.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(unpacked.success() && dump.wait().unwrap().success());
    let seen = |root: &Path| trees::describe(root, trees::Regard::ButForHoles);
    let (was, is) = (seen(&tree), seen(out.path()));
    // The folder itself is not in it.
    for (name, what) in was.iter().filter(|(name, _)| **name != Path::new("")) {
        assert_eq!(is.get(name), Some(what), "{}", name.display());
    }
    assert_eq!(was.len(), is.len());
    for name in ["sparse", "deep/all hole"] {
        assert_eq!(trees::extents(&out.path().join(name)), trees::extents(&tree.join(name)), "{name}");
    }
}

/// A name that no other program would read back is not changed into another.
#[test]
fn what_a_tar_has_no_place_for_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("letter"), b"dear ana").unwrap();
    let odd = std::ffi::OsStr::from_bytes(b"user.\xff");
    rustix::fs::setxattr(tree.join("letter"), odd, b"odd", rustix::fs::XattrFlags::empty()).unwrap();
    fs::write(tree.join("log"), b"").unwrap();
    let flagged = Command::new("chattr").arg("+d").arg(tree.join("log")).status();
    assert!(flagged.unwrap().success());
    let home = Home::new();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    home.run(&["-q", "backup", "--include-nodump", tree.to_str().unwrap()]).ok();
    let tar = dir.path().join("out.tar");
    let what = format!("latest:{}", tree.display());
    let done = home.run(&["dump", &what, "--archive", "tar", "-o", tar.to_str().unwrap()]).expect(3);
    for said in
        ["letter: the name of an attribute of it is not UTF-8", "log: a tar archive has no inode flags"]
    {
        assert!(done.err.contains(said), "{}", done.err);
    }
    let listed = Command::new("tar").arg("tf").arg(&tar).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "letter\nlog\n");
}

#[test]
fn a_zip_holds_files_folders_and_links_and_what_it_cannot_hold_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    let data = trees::noise(3_000_000, 5);
    fs::write(tree.join("sub/data"), &data).unwrap();
    std::os::unix::fs::symlink("sub/data", tree.join("link")).unwrap();
    rustix::fs::setxattr(tree.join("sub"), "user.author", b"ana", rustix::fs::XattrFlags::empty()).unwrap();
    trees::special(&tree, "pipe", rustix::fs::FileType::Fifo, 0).unwrap();
    let home = Home::new();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let zip = dir.path().join("out.zip");
    let what = format!("latest:{}", tree.display());
    let done = home.run(&["dump", &what, "--archive", "zip", "-o", zip.to_str().unwrap()]).expect(3);
    assert!(done.err.contains("pipe") && done.err.contains("no special files"), "{}", done.err);
    assert!(done.err.contains("sub: a zip archive has no attributes"), "{}", done.err);
    let mut archive = zip::ZipArchive::new(fs::File::open(&zip).unwrap()).unwrap();
    let names: Vec<String> = archive.file_names().map(|name| name.unwrap().into_owned()).collect();
    assert_eq!(names, ["link", "sub/", "sub/data"]);
    let mut found = Vec::new();
    std::io::Read::read_to_end(&mut archive.by_name("sub/data").unwrap(), &mut found).unwrap();
    assert!(found == data);
    assert!(archive.by_name("link").unwrap().is_symlink());

    // To a pipe, and read by a program that is not ours.
    let mut piped = home.command(&["dump", &what, "--archive", "zip"]);
    let piped = piped.stdout(fs::File::create(&zip).unwrap()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(piped.code(), Some(3));
    let script = "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; \
        print([i.filename for i in z.infolist()]); sys.stdout.flush(); print(len(z.read('sub/data')))";
    match Command::new("python3").args(["-c", script]).arg(&zip).output() {
        Ok(read) => {
            let said = String::from_utf8_lossy(&read.stdout);
            assert_eq!(
                said,
                "['link', 'sub/', 'sub/data']\n3000000\n",
                "{}",
                String::from_utf8_lossy(&read.stderr)
            );
        }
        Err(_) => skipped("there is no python3"),
    }

    let folder = home.run(&["dump", &what]).expect(2);
    assert!(folder.err.contains("--archive"), "{}", folder.err);
}

/// The first zip archives had no more than 65,535 entries.
#[test]
fn a_zip_has_room_for_more_files_than_its_first_form() {
    const FILES: usize = 65_600;
    let dir = tempfile::tempdir().unwrap();
    let (tree, zip) = (dir.path().join("tree"), dir.path().join("out.zip"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("first"), "one content").unwrap();
    // Names of few files are saved sooner than files.
    for n in 1..FILES {
        let of = format!("{:02}", n / 40_000);
        if n % 40_000 == 0 || n == 1 {
            fs::write(tree.join(&of), "of many names").unwrap();
        } else {
            fs::hard_link(tree.join(of), tree.join(format!("{n:05}"))).unwrap();
        }
    }
    let count = fs::read_dir(&tree).unwrap().count();
    let home = Home::new();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let what = format!("latest:{}", tree.display());
    home.run(&["dump", &what, "--archive", "zip", "-o", zip.to_str().unwrap()]).ok();
    let mut archive = zip::ZipArchive::new(fs::File::open(&zip).unwrap()).unwrap();
    assert_eq!((archive.len(), count), (FILES, FILES));
    for (name, wanted) in [("00002", "of many names"), ("65599", "of many names"), ("first", "one content")] {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut archive.by_name(name).unwrap(), &mut text).unwrap();
        assert_eq!(text, wanted);
    }
    let script =
        "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); print(len(z.infolist()), z.read('first'))";
    match Command::new("python3").args(["-c", script]).arg(&zip).output() {
        Ok(read) => {
            let (said, why) = (String::from_utf8_lossy(&read.stdout), String::from_utf8_lossy(&read.stderr));
            assert_eq!(said, format!("{FILES} b'one content'\n"), "{why}");
        }
        Err(_) => skipped("there is no python3"),
    }
}

#[test]
fn names_are_found_in_all_snapshots_by_size_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    fs::write(at("letter"), "first").unwrap();
    fs::File::options().write(true).open(at("letter")).unwrap().set_modified(old).unwrap();
    fs::write(at("letter to all"), trees::noise(100_000, 1)).unwrap();
    let (home, path) = (Home::new(), dir.path().to_str().unwrap());
    home.run(&["-q", "quickstart", path]).ok();
    fs::write(at("letter"), "second").unwrap();
    home.run(&["-q", "backup", path]).ok();
    fs::remove_file(at("letter")).unwrap();
    home.run(&["-q", "backup", path]).ok();
    let found = |more: &[&str]| {
        let rows = home.json(&[&["find", "letter*"], more].concat());
        let rows = rows.as_array().unwrap().iter();
        let row = |row: &serde_json::Value| {
            let name = row["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
            (name, row["size"].as_u64().unwrap())
        };
        rows.map(row).collect::<Vec<_>>()
    };
    let named = |name: &str, size| (name.to_owned(), size);
    assert_eq!(found(&[]), [named("letter to all", 100_000)]);
    let all = [named("letter to all", 100_000), named("letter", 6), named("letter", 5)];
    assert_eq!(found(&["--all"]), all, "each version once, the newest first");
    assert_eq!(found(&["--all", "--smaller-than", "5B"]), all[2..]);
    assert_eq!(found(&["--all", "--larger-than", "6B"]), all[..2]);
    assert_eq!(found(&["--all", "--older", "2018-01-01"]), all[2..]);
    assert_eq!(found(&["--all", "--newer", "1d ago", "--smaller-than", "1kB"]), all[1..2]);
    let lines = home.run(&["find", "letter", "--all"]).ok().out;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    home.run(&["find", "letter", "--larger-than", "much"]).expect(2);
}
