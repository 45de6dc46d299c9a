//! Clocks that are wrong, or ahead: what a process takes for the time of day, by the library of `faketime`.

use std::process::Command;

use crate::netns::skipped;

/// A command that takes the time to be `days` later than it is. None, said aloud, where clocks cannot be turned.
pub fn off_by(days: i64, mut command: Command) -> Option<Command> {
    // The tool itself would stand between a signal and the command: only its environment is used.
    let mut tool = Command::new("faketime");
    let shown = tool.args(["--exclude-monotonic", "-f", &format!("{days:+}d"), "env"]).output();
    let Some(shown) = shown.ok().filter(|shown| shown.status.success()) else {
        skipped("there is no faketime");
        return None;
    };
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    let wanted = |name: &str| ["LD_PRELOAD", "FAKETIME", "FAKETIME_DONT_FAKE_MONOTONIC"].contains(&name);
    command.envs(text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| wanted(name)));
    // Files keep their times: it is the machine that is wrong.
    command.env("NO_FAKE_STAT", "1");
    Some(command)
}
