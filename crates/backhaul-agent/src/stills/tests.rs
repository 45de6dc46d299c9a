//! Stills of all kinds with tools that only say what they are asked: none of them is there when tests run.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Mutex;

use super::*;

/// Answers by the beginning of what is asked, and notes all of it.
#[derive(Default)]
struct Script {
    answers: Vec<(&'static str, Result<&'static str, Refusal>)>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn new(answers: &[(&'static str, Result<&'static str, Refusal>)]) -> Self {
        Self { answers: answers.to_vec(), asked: Mutex::default() }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Tools for Script {
    async fn ask(&self, program: &str, args: &[&str]) -> Result<Vec<u8>, Refusal> {
        let line = format!("{program} {}", args.join(" "));
        let found = self.answers.iter().find(|(start, _)| line.starts_with(start));
        self.asked.lock().unwrap().push(line);
        match found {
            Some((_, answer)) => answer.clone().map(|text| text.as_bytes().to_vec()),
            None => Err(Refusal::Missing(program.to_owned())),
        }
    }
}

fn wanted(path: &str, real: &str) -> Wanted {
    Wanted { path: path.into(), real: real.into() }
}

fn mounts(lines: &str) -> Mounts {
    Mounts::parse(format!("26 1 254:0 / / rw - ext4 /dev/vda rw\n{lines}").as_bytes())
}

/// Path as walked, live path, and unit with the place in it, of each spot.
fn shown(spots: &[Spot]) -> Vec<String> {
    let show = |spot: &Spot| {
        let unit = match &spot.unit {
            None if spot.is_fixed => "fixed".to_owned(),
            None => "-".to_owned(),
            Some(Unit::Btrfs { device, subvolume }) => format!("{device}[{}]", subvolume.display()),
            Some(Unit::Zfs { dataset, at }) => format!("{dataset} at {}", at.display()),
            Some(Unit::Lvm { device, kind }) => format!("{kind} on {device}"),
        };
        format!(
            "{} {} {unit} {:?}",
            spot.path.display(),
            spot.live.display(),
            spot.below.display().to_string()
        )
    };
    spots.iter().map(show).collect()
}

#[test]
fn every_part_of_every_file_system_below_is_found_where_it_is_seen() {
    let mounts = mounts(
        "40 26 0:39 /@home /home rw - btrfs /dev/sdb rw\n\
         41 40 0:39 /@cache /home/ana/.cache rw - btrfs /dev/sdb rw\n\
         42 26 0:50 / /tank rw - zfs tank rw\n\
         43 42 0:51 /in /tank/bound rw - zfs tank/other rw\n\
         44 40 8:1 / /home/disk rw - xfs /dev/mapper/vg-disk rw\n\
         45 40 0:60 / /home/net rw - nfs4 server:/x rw\n",
    );
    let subvolume = |path: &str, is_fixed: bool| plan::Subvolume { path: path.into(), is_fixed };
    let all = [
        subvolume("@home", false),
        subvolume("@home/ana/work", false),
        subvolume("@home/ana/work/old", true),
        subvolume("@home/ana/.cache/hidden", false),
        subvolume("@cache", false),
        subvolume("@", false),
    ];
    let subvolumes = Subvolumes::from([("/dev/sdb".to_owned(), all.to_vec())]);
    let wanted =
        [wanted("/people", "/home"), wanted("/tank/x", "/tank/x"), wanted("/tank/bound", "/tank/bound")];
    let spots = plan::spots(&mounts, &wanted, &subvolumes, Reach::Everything);
    assert_eq!(
        shown(&spots),
        [
            "/people /home /dev/sdb[@home] \"\"",
            "/people/ana/.cache /home/ana/.cache /dev/sdb[@cache] \"\"",
            "/people/disk /home/disk xfs on /dev/mapper/vg-disk \"\"",
            "/people/net /home/net - \"\"",
            "/people/ana/work /home/ana/work /dev/sdb[@home/ana/work] \"\"",
            "/people/ana/work/old /home/ana/work/old fixed \"\"",
            "/tank/x /tank/x tank at /tank \"x\"",
            // Only a part of it is mounted: there is no `.zfs` to read it by.
            "/tank/bound /tank/bound - \"\"",
        ]
    );
    let stay = plan::spots(&mounts, &wanted, &subvolumes, Reach::OneFileSystem);
    let units: Vec<_> = stay.iter().filter(|spot| spot.unit.is_some()).map(|spot| spot.is_named).collect();
    assert_eq!(units, [true, true], "what is not entered needs no still");
    // A folder deep in a subvolume, and the top one.
    let deep = plan::spots(
        &mounts,
        &[wanted_one("/home/ana/work/deep"), wanted_one("/home/bob")],
        &subvolumes,
        Reach::Everything,
    );
    assert_eq!(
        shown(&deep),
        [
            "/home/ana/work/deep /home/ana/work/deep /dev/sdb[@home/ana/work] \"deep\"",
            "/home/bob /home/bob /dev/sdb[@home] \"bob\"",
        ]
    );
}

fn wanted_one(path: &str) -> Wanted {
    wanted(path, path)
}

/// Two datasets of one pool in folders of a test's own; a snapshot is there as soon as it is said to be.
struct Pool {
    dir: tempfile::TempDir,
    mounts: Mounts,
}

fn pool() -> Pool {
    let dir = tempfile::tempdir().unwrap();
    let real = std::fs::canonicalize(dir.path()).unwrap();
    for path in ["tank/inner", "home"] {
        std::fs::create_dir_all(real.join(path)).unwrap();
    }
    let tank = real.join("tank").display().to_string();
    let mounts = mounts(&format!(
        "42 26 0:50 / {tank} rw - zfs tank rw\n43 42 0:51 / {tank}/inner rw - zfs tank/in rw\n"
    ));
    Pool { dir, mounts }
}

impl Pool {
    async fn take(&self, tools: &Script, still: Still, paths: &[&str]) -> Result<Stills, String> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| self.dir.path().join(path)).collect();
        let want = Want { still, paths: &paths, one_file_system: false };
        let home = self.dir.path().join("home");
        Maker { tools, home: &home, mounts: self.mounts.clone() }.take(&want).await
    }

    async fn release(&self, tools: &Script, stills: Stills) -> Vec<String> {
        let home = self.dir.path().join("home");
        Maker { tools, home: &home, mounts: Mounts::default() }.release(stills).await
    }

    fn ledger(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("home/stills.json")).unwrap_or_default()
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[tokio::test]
async fn what_a_tool_refuses_is_a_warning_or_if_required_the_end_and_leaves_nothing() {
    let pool = pool();
    let refusing = Script::new(&[
        ("zfs snapshot", Err(Refusal::Said("zfs: permission denied".to_owned()))),
        ("zfs destroy", Err(Refusal::Said("zfs: could not find any snapshots to destroy".to_owned()))),
    ]);
    if !is_root() {
        let stills = pool.take(&refusing, Still::Auto, &["tank"]).await.unwrap();
        assert!(stills.warnings.is_empty() && refusing.asked().is_empty(), "nobody else is asked for it");
        return;
    }
    let stills = pool.take(&refusing, Still::Auto, &["tank"]).await.unwrap();
    assert!(stills.joints.is_empty() && stills.of.is_empty() && stills.since.is_none());
    assert_eq!(stills.warnings.len(), 2, "{:?}", stills.warnings);
    assert!(stills.warnings[0].contains("permission denied"), "{:?}", stills.warnings);
    let why = pool.take(&refusing, Still::Require, &["tank"]).await.err().unwrap();
    assert!(why.contains("tank") && why.contains("permission denied"), "{why}");
    let missing = Script::default();
    let stills = pool.take(&missing, Still::Auto, &["tank"]).await.unwrap();
    assert!(stills.warnings.iter().any(|why| why.contains("zfs is not installed")), "{:?}", stills.warnings);
    // It could be there all the same, as far as anybody knows: the next run looks.
    assert!(pool.ledger().contains("tank@backhaul-"));
    let asked = refusing.asked();
    assert!(asked[0].starts_with("zfs snapshot tank@backhaul-") && asked[0].contains(" tank/in@backhaul-"));
    let off = Script::new(&[("zfs destroy", Ok(""))]);
    let stills = pool.take(&off, Still::Off, &["tank"]).await.unwrap();
    assert!(stills.warnings.is_empty(), "{:?}", stills.warnings);
    assert_eq!(off.asked().len(), 2, "what was left is removed also when no stills are wanted");
    assert_eq!(pool.ledger(), "");
}

/// The tool says that it has made one; here it is made by hand.
#[tokio::test]
async fn a_still_is_read_in_the_place_of_its_dataset_and_removed_afterwards() {
    if !is_root() {
        return;
    }
    let pool = pool();
    let tools = Script::new(&[("zfs snapshot", Ok("")), ("zfs destroy", Ok(""))]);
    let tank = pool.dir.path().join("tank");
    // Not there: that the tool said so is not enough.
    let stills = pool.take(&tools, Still::Auto, &["tank"]).await.unwrap();
    assert!(stills.of.is_empty() && stills.warnings.len() == 2, "{:?}", stills.warnings);
    assert!(pool.ledger().contains("tank/in@backhaul-"), "{}", pool.ledger());
    let name = pool.ledger().split("tank@").nth(1).unwrap().split('"').next().unwrap().to_owned();
    assert_eq!(pool.release(&tools, stills).await, Vec::<String>::new());
    assert_eq!(pool.ledger(), "");
    assert_eq!(tools.asked().iter().filter(|line| line.starts_with("zfs destroy")).count(), 2);
    for at in [tank.join(".zfs"), tank.join("inner/.zfs")] {
        std::fs::create_dir_all(at.join("snapshot")).unwrap();
        // Names go by the second and the process; all of the near future are there.
        let (stem, rest) = name.rsplit_once('-').unwrap();
        let (stem, second) = stem.rsplit_once('-').unwrap();
        for later in 0..200 {
            let second = second.parse::<u64>().unwrap() + later;
            std::fs::create_dir(at.join(format!("snapshot/{stem}-{second}-{rest}"))).unwrap();
        }
    }
    let stills = pool.take(&tools, Still::Require, &["tank"]).await.unwrap();
    assert!(stills.warnings.is_empty(), "{:?}", stills.warnings);
    assert_eq!(
        stills.of,
        [format!("{} (ZFS)", tank.display()), format!("{} (ZFS)", tank.join("inner").display())]
    );
    assert!(!stills.joints.is_empty() && stills.since.is_some());
    let kept = Script::new(&[("zfs destroy", Err(Refusal::Said("zfs: dataset is busy".to_owned())))]);
    let left = pool.release(&kept, stills).await;
    assert!(
        left.len() == 2 && left[0].contains("the next backup tries again: zfs: dataset is busy"),
        "{left:?}"
    );
    assert!(pool.ledger().contains("tank/in@backhaul-"));
}

#[tokio::test]
async fn a_ledger_that_cannot_be_read_is_not_written_over() {
    let pool = pool();
    let path = pool.dir.path().join("home/stills.json");
    std::fs::write(&path, "{\"version\":2,\"stills\":[]}").unwrap();
    let tools = Script::default();
    let stills = pool.take(&tools, Still::Auto, &["tank"]).await.unwrap();
    assert!(stills.warnings[0].contains("version 2"), "{:?}", stills.warnings);
    assert!(pool.take(&tools, Still::Require, &["tank"]).await.is_err());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"version\":2,\"stills\":[]}");
}
