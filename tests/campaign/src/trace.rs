//! strace, as a way to fail or kill a process at one of its system calls.

use std::path::Path;
use std::process::Command;

/// System calls that change what is on disk: between two of them a kill changes nothing.
pub const CHANGES: &str = "write,pwrite64,writev,pwritev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,unlink,\
                           unlinkat,rmdir,mkdir,mkdirat,link,linkat,fallocate,copy_file_range,chmod,fchmod";

/// System calls that others see: what a process does between two of them is nothing to whoever speaks with it.
pub const SENDS: &str = "sendto,sendmsg,sendmmsg";

/// True where strace can be used.
pub fn available() -> bool {
    let tried = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

/// What comes before a command so that something happens at the `nth` (from 1) of each of some system calls, in each of
/// its threads; what it traces goes to `log`.
pub fn inject(calls: &str, what: &str, nth: u64, log: &Path) -> Vec<String> {
    let mut words: Vec<String> = ["strace", "-f", "-qq", "-y", "-s", "8"].map(str::to_owned).to_vec();
    if !what.starts_with("signal") {
        // Faster; but strace 6.1 then sends no signals.
        words.push("--seccomp-bpf".to_owned());
    }
    words.push("-o".to_owned());
    words.push(log.display().to_string());
    words.extend(["-e".to_owned(), format!("trace={calls}")]);
    words.extend(["-e".to_owned(), format!("inject={calls}:{what}:when={nth}")]);
    words
}

/// The calls that failed on purpose and had to do with files below `dir`.
pub fn injected(log: &Path, dir: &Path) -> (usize, Vec<String>) {
    let text =
        std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let dir = dir.display().to_string();
    let all: Vec<&str> = text.lines().filter(|line| line.contains("(INJECTED)")).collect();
    let below = all.iter().filter(|line| line.contains(&dir)).map(|line| (*line).to_owned()).collect();
    (all.len(), below)
}
