//! Memory has bounds that neither the number of files in a folder nor the size of a file moves. `--bin bounds` of the
//! benchmarks does the same in full size.

use std::fs;
use std::path::Path;

use backhaul_tests::{TestServer, measured, trees};

/// What an agent may take, in MiB.
const BOUND: f64 = 200.0;

/// What ten times as many files may take more, in MiB.
const MORE: f64 = 30.0;

#[test]
fn a_folder_of_many_files_and_a_file_of_many_gigabytes_take_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, out) = (dir.path().join("tree"), dir.path().join("out"));
    fs::create_dir_all(tree.join("many")).unwrap();
    let server = TestServer::new();
    let home = server.client("desk", &[&tree]);
    let what = format!("latest:{}", tree.display());
    let (to, mut peaks) = (out.to_str().unwrap(), Vec::new());
    for files in [0..2_000u32, 2_000..20_000] {
        for i in files {
            fs::write(tree.join(format!("many/{i:07}")), i.to_string()).unwrap();
        }
        let runs = [
            &["-q", "backup"][..],
            &["-q", "backup"],
            &["-q", "restore", &what, "-t", to],
            &["-q", "restore", &what, "-t", to, "--delete"],
        ];
        peaks.push(runs.map(|args| {
            let (done, peak) = measured(home.command(args));
            done.ok();
            assert!(peak < BOUND, "{args:?} took {peak:.0} MiB");
            peak
        }));
        if peaks.len() == 1 {
            let data = [(0, 4_096), (35 << 30, 3_000_000), ((70 << 30) - 5, 5)];
            trees::sparse(&tree.join("sparse"), 70 << 30, &data);
        }
    }
    for (few, many) in peaks[0].iter().zip(peaks[1]) {
        assert!(many < few + MORE, "{peaks:?} MiB");
    }
    assert_eq!(fs::read_dir(out.join("many")).unwrap().count(), 20_000);
    let sparse = |path: &Path| (path.metadata().unwrap().len(), trees::extents(path));
    assert_eq!(sparse(&tree.join("sparse")), sparse(&out.join("sparse")));
}
