//! A large file that has changed a little is restored where there is no room for a second one.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use backhaul_tests::volumes::Volume;
use backhaul_tests::{Home, trees};

const LEN: usize = 60 << 20;

/// A file of which a little is other than it was saved, on a volume of 96 MiB or more; and what it was.
fn edited(home: &Home, volume: &Path) -> Vec<u8> {
    let tree = volume.join("tree");
    fs::create_dir(&tree).unwrap();
    let content = trees::noise(LEN, 5);
    fs::write(tree.join("image"), &content).unwrap();
    home.run(&["-q", "quickstart", tree.to_str().unwrap()]).ok();
    let file = fs::File::options().write(true).open(tree.join("image")).unwrap();
    file.write_all_at(b"changed", 33 << 20).unwrap();
    content
}

fn restored<'a>(tree: &'a str, from: &'a str) -> [&'a str; 5] {
    ["-q", "restore", from, "-t", tree]
}

#[test]
fn in_place_only_what_differs_is_written_and_else_what_was_there_stays() {
    let Some(volume) = Volume::new("tmpfs", 96, "") else { return };
    let (home, tree) = (Home::new(), volume.path().join("tree"));
    let content = edited(&home, &volume.path());
    let inode = || tree.join("image").metadata().unwrap().ino();
    let (before, tree_name) = (inode(), tree.to_str().unwrap());
    let from = format!("latest:{tree_name}");
    let refused = home.run(&restored(tree_name, &from)).expect(3);
    assert!(refused.err.contains("No space left"), "{}", refused.err);
    assert_eq!(&fs::read(tree.join("image")).unwrap()[33 << 20..][..7], b"changed");
    assert_eq!(trees::names(&tree), ["image"]);
    home.run(&[&restored(tree_name, &from)[..], &["--in-place"]].concat()).ok();
    assert!(fs::read(tree.join("image")).unwrap() == content && inode() == before);
    home.run(&["restore", &from, "-t", tree_name, "--in-place", "--to-client", "x", "--client", "y"])
        .expect(2);
}

/// Where files can share their blocks, the new one begins as a copy of the old that takes no room.
#[test]
fn where_blocks_can_be_shared_a_file_is_replaced_in_one_step_without_room_for_two() {
    // Of 192 MiB a part is for metadata; two of the file do not fit.
    let Some(volume) = Volume::new("btrfs", 192, "") else { return };
    let (home, tree) = (Home::new(), volume.path().join("tree"));
    let content = edited(&home, &volume.path());
    let inode = || tree.join("image").metadata().unwrap().ino();
    let before = inode();
    // What is left is less than the file.
    rustix::fs::syncfs(fs::File::open(&tree).unwrap()).unwrap();
    let mut filler = 0;
    while fs::write(volume.path().join(format!("filler-{filler}")), trees::noise(4 << 20, filler)).is_ok() {
        filler += 1;
    }
    for gone in filler.saturating_sub(5)..=filler {
        let _ = fs::remove_file(volume.path().join(format!("filler-{gone}")));
    }
    rustix::fs::syncfs(fs::File::open(&tree).unwrap()).unwrap();
    let tree_name = tree.to_str().unwrap();
    home.run(&restored(tree_name, &format!("latest:{tree_name}"))).ok();
    assert!(fs::read(tree.join("image")).unwrap() == content && inode() != before);
}
