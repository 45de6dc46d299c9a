//! Memory that nobody uses goes back to the host of a virtual machine, and comes back page by page, as system time of whoever
//! needs it next: some seconds a gigabyte, the tenth part of that otherwise. So before a step all free memory is taken by the
//! page cache, which gives what it holds to a program that needs it at once.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Its length: more than any memory, and as much as every file system allows.
const SIZE: u64 = 1 << 40;
/// Bytes read at once.
const BLOCK: u64 = 1 << 20;
/// Bytes read before it is looked again how much is free.
const STRIDE: u64 = 256 << 20;

/// A file of nothing, which is read to take memory.
pub struct Memory {
    hole: File,
    next: u64,
}

impl Memory {
    /// `folder`: on a disk, for memory of a file system in memory is not taken by reading holes.
    pub fn new(folder: &Path) -> Self {
        let hole = tempfile::tempfile_in(folder).unwrap();
        hole.set_len(SIZE).unwrap();
        Self { hole, next: 0 }
    }

    /// Takes what is free, until what is read takes the place of what was read before.
    pub fn take(&mut self) {
        let (mut block, mut before) = (vec![0; BLOCK as usize], free());
        loop {
            for _ in 0..STRIDE / BLOCK {
                self.hole.read_exact_at(&mut block, self.next).unwrap();
                self.next = (self.next + BLOCK) % SIZE;
            }
            let now = free();
            if now + STRIDE / 2 > before {
                return;
            }
            before = now;
        }
    }
}

fn free() -> u64 {
    let all = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = all.lines().find(|line| line.starts_with("MemFree:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
