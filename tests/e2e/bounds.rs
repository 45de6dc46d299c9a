//! Memory has bounds that neither the number of files in a folder nor the size of a file moves. `--bin bounds` of the
//! benchmarks does the same in full size.

use std::fs;
use std::path::Path;

use backhaul_tests::{TestServer, measured, trees};

/// What an agent may take, in MiB.
const BOUND: f64 = 200.0;

#[test]
fn a_folder_of_many_files_and_a_file_of_many_gigabytes_take_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, out) = (dir.path().join("tree"), dir.path().join("out"));
    fs::create_dir_all(tree.join("many")).unwrap();
    for i in 0..20_000u32 {
        fs::write(tree.join(format!("many/{i:07}")), i.to_string()).unwrap();
    }
    trees::sparse(&tree.join("sparse"), 70 << 30, &[(0, 4_096), (35 << 30, 3_000_000), ((70 << 30) - 5, 5)]);
    let server = TestServer::new();
    let home = server.client("desk", &[&tree]);
    let what = format!("latest:{}", tree.display());
    for args in [
        &["-q", "backup"][..],
        &["-q", "restore", &what, "-t", out.to_str().unwrap()],
        &["-q", "restore", &what, "-t", out.to_str().unwrap(), "--delete"],
    ] {
        let (done, peak) = measured(home.command(args));
        done.ok();
        assert!(peak < BOUND, "{args:?} took {peak:.0} MiB");
    }
    assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), 20_000);
    let sparse = |path: &Path| (path.metadata().unwrap().len(), trees::extents(path));
    assert_eq!(sparse(&tree.join("sparse")), sparse(&out.join("sparse")));
}
