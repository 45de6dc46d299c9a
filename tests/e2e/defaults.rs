//! What is left out without being asked: on a machine of a test's own, with homes, caches, trash and swap files where the list
//! expects them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use backhaul_tests::netns::skipped;
use backhaul_tests::volumes::Volume;
use backhaul_tests::{Done, Home, binary};

/// The list, written down once more: who adds to it says here what is meant by it.
const DEFAULTS: [&str; 8] = [
    "/home/*/.cache/",
    "/root/.cache/",
    "/home/*/.local/share/Trash/",
    "/root/.local/share/Trash/",
    "/var/cache/apt/archives/*.deb",
    "/swapfile",
    "/swap.img",
    "/lost+found/",
];

/// What of a machine it leaves out, each by a pattern of its own,
const LEFT_OUT: [&str; 8] = [
    "/home/ana/.cache/thumbnails/t.png",
    "/root/.cache/pip/wheel",
    "/home/ana/.local/share/Trash/files/old",
    "/root/.local/share/Trash/files/old",
    "/var/cache/apt/archives/vim_9.deb",
    "/swapfile",
    "/swap.img",
    "/lost+found/#12",
];

/// and what it must not.
const KEPT: [&str; 10] = [
    "/home/.cache",
    "/home/ana/.local/share/letters",
    "/home/ana/letter",
    "/home/ana/src/.cache/of-a-project",
    "/home/ana/swapfile",
    "/root/note",
    "/srv/ana/.cache/f",
    "/srv/lost+found/f",
    "/var/cache/apt/archives/lock",
    "/var/lib/x.deb",
];

/// Runs a command with another root, in which the programs of this one are.
const WITHIN: &str = r#"
root=$1; home=$2; program=$3; shift 3
for dir in /bin /sbin /lib /lib32 /lib64 /usr /proc; do
    [ -e $dir ] || continue
    mkdir -p "$root$dir" && mount --rbind $dir "$root$dir" || exit 99
done
mkdir -p "$root$home" && mount --bind "$home" "$root$home" || exit 99
touch "$home/program" && mount --bind "$program" "$root$home/program" || exit 99
exec chroot "$root" "$home/program" "$@"
"#;

/// A machine's root, and the home of the program on it.
struct Machine {
    root: Volume,
    home: Home,
}

impl Machine {
    /// None, said aloud, where nothing can be mounted.
    fn new() -> Option<Self> {
        let (root, home) = (Volume::new("tmpfs", 16, "")?, Home::new());
        let first = root.path().join("first");
        fs::create_dir(&first).unwrap();
        home.run(&["-q", "quickstart", first.to_str().unwrap()]).ok();
        fs::remove_dir(&first).unwrap();
        let machine = Self { root, home };
        for path in LEFT_OUT.iter().chain(&KEPT) {
            let path = machine.at(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "content").unwrap();
        }
        if machine.run(&["--version"]).code != 0 {
            skipped("a root of one's own needs chroot, and mounts in a namespace");
            return None;
        }
        Some(machine)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn run(&self, args: &[&str]) -> Done {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", WITHIN, "sh"]);
        command.arg(self.root.path()).arg(self.home.path()).arg(binary());
        command.arg("--home").arg(self.home.path()).args(args);
        Done::of(command)
    }

    /// Saves all of it, but for what is of the machine below: what of the files above is in the snapshot.
    fn saved(&self, more: &[&str]) -> (BTreeSet<String>, String) {
        let done = self.run(&[&["backup", "/", "-x"], more].concat()).ok();
        (self.listed("/"), done.out)
    }

    fn listed(&self, path: &str) -> BTreeSet<String> {
        let rows = self.home.json(&["ls", "-R", &format!("latest:{path}")]);
        let paths = rows.as_array().unwrap().iter().map(|row| row["path"].as_str().unwrap().to_owned());
        paths.filter(|path| LEFT_OUT.iter().chain(&KEPT).any(|known| known == path)).collect()
    }

    fn configure(&self, line: &str) {
        let path = self.home.path().join("agent/config.toml");
        let mut config: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        config["backup"].as_table_mut().unwrap().extend(line.parse::<toml::Table>().unwrap());
        fs::write(path, config.to_string()).unwrap();
    }
}

fn set(paths: &[&str]) -> BTreeSet<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

#[test]
fn caches_trash_and_swap_files_are_left_out_unless_somebody_wants_them() {
    let Some(machine) = Machine::new() else { return };
    let everything = set(&[&KEPT[..], &LEFT_OUT].concat());
    let (found, said) = machine.saved(&[]);
    assert_eq!(found, set(&KEPT));
    assert!(said.contains("left out 8 by pattern"), "{said}");

    // All of the list, or one of it, is taken back: for a run, or in the config for all.
    let (found, said) = machine.saved(&["--no-default-excludes"]);
    assert_eq!(found, everything);
    assert!(!said.contains("by pattern"), "{said}");
    let one = [&KEPT[..], &LEFT_OUT[1..2]].concat();
    assert_eq!(machine.saved(&["--exclude", "!/root/.cache/"]).0, set(&one));
    machine.configure("exclude = ['!/swapfile']");
    assert_eq!(machine.saved(&[]).0, set(&[&KEPT[..], &["/swapfile"]].concat()));
    machine.configure("default_excludes = false");
    assert_eq!(machine.saved(&[]).0, everything);
    machine.configure("default_excludes = true");

    // What is named itself is wanted.
    for path in ["/root/.cache", "/home/ana/.local/share/Trash/files", "/swap.img"] {
        machine.run(&["-q", "backup", path]).ok();
        let below: Vec<&str> =
            LEFT_OUT.into_iter().filter(|known| Path::new(known).starts_with(path)).collect();
        assert_eq!((machine.listed(path), below.len()), (set(&below), 1), "{path}");
    }
}

/// By the help of the command that leaves it out.
#[test]
fn the_list_of_what_is_left_out_is_shown() {
    let help = Home::new().run(&["backup", "--help"]).ok().out;
    let list = help.split("Left out by default:").nth(1).and_then(|rest| rest.split("\n  and ").next());
    let shown: Vec<&str> = list.unwrap().split_whitespace().collect();
    assert_eq!(shown, DEFAULTS, "{help}");
}
