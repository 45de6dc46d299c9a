//! What the machine itself can do: the tools of everyday, neither encrypted nor deduplicated.

use std::path::PathBuf;
use std::process::Command;

use super::{Place, Program};
use crate::Step;

/// Their names here.
pub const ALL: [&str; 3] = ["tar|zstd", "rsync", "cp"];

pub struct Plain {
    name: &'static str,
    place: Place,
}

impl Plain {
    pub fn new(name: &'static str, place: Place) -> Self {
        Self { name, place }
    }

    fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-ec", script, "sh"])
            .arg(&self.place.live)
            .arg(self.place.repository())
            .arg(self.place.out());
        command
    }
}

impl Program for Plain {
    fn name(&self) -> &'static str {
        self.name
    }

    fn command(&mut self, step: Step) -> Option<Command> {
        // $1 is what is saved, $2 where it is kept, $3 where it is restored.
        let script = match (self.name, step) {
            ("tar|zstd", Step::First) => r#"tar -C "$1" -cf - . | zstd -q -3 -T2 > "$2/tree.tar.zst""#,
            ("tar|zstd", Step::Restore) => r#"zstd -dcq "$2/tree.tar.zst" | tar -C "$3" -xpf -"#,
            ("rsync", Step::First | Step::Again) => r#"rsync -a "$1/" "$2/""#,
            ("cp", Step::Restore) => r#"cp -a "$1/." "$3""#,
            _ => return None,
        };
        Some(self.shell(script))
    }

    fn repository(&self) -> PathBuf {
        self.place.repository()
    }

    fn clear(&self) {
        self.place.clear();
    }
}
