//! A story told by a process of its own: it can be killed, its disk can fail, and what it had said counts.
//!
//! The process says each step on standard output, a line each. Whoever records below it lets it go on line by line, so
//! that it is known between which operations a step was said.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backhaul_object::ids::ClientId;
use clap::ValueEnum;

use crate::laws::Which;
use crate::local::Failure;
use crate::stage::Stage;
use crate::story::{Story, Told};

/// The program that tells: this one, or one that was built otherwise.
#[derive(Debug, Clone)]
pub struct Teller {
    /// The binary `campaign`.
    pub program: PathBuf,
    /// A law that the teller breaks on purpose.
    pub breach: Option<String>,
}

/// What became of a telling.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Steps, in order.
    pub told: Vec<Told>,
    /// The exit code; none when it was killed.
    pub code: Option<i32>,
    /// What it said on standard error.
    pub complaint: String,
}

impl Teller {
    /// The command that tells a story to the vault at `dir`. `wrap` goes before it (a tracer).
    pub fn command(&self, wrap: &[String], story: Story, dir: &Path, work: &Path) -> Command {
        let mut words = wrap.to_vec();
        words.push(self.program.display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--work").arg(work).arg("tell").arg(name(story)).arg(dir);
        command.env("RUST_BACKTRACE", "0");
        if let Some(breach) = &self.breach {
            command.env("BACKHAUL_BREACH", breach);
        }
        command
    }

    /// Tells a story to its end; `hear` is called while the teller waits.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn tell(
        &self,
        wrap: &[String],
        story: Story,
        (dir, work): (&Path, &Path),
        hear: &mut dyn FnMut(Told),
    ) -> Result<Ending, Failure> {
        let mut command = self.command(wrap, story, dir, work);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", self.program.display()))?;
        let (mut input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        let mut errors = child.stderr.take().unwrap();
        let listener = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = errors.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let mut told = Vec::new();
        for word in output.lines().map_while(Result::ok).filter_map(|line| read(&line)) {
            hear(word);
            told.push(word);
            // Whoever was killed meanwhile does not read it.
            let _ = input.write_all(b"\n");
        }
        let status = child.wait().map_err(|error| error.to_string())?;
        Ok(Ending { told, code: status.code(), complaint: listener.join().unwrap() })
    }
}

fn name(story: Story) -> String {
    story.to_possible_value().unwrap().get_name().to_owned()
}

/// The teller's side: tells a story and says each step; returns when it has ended.
///
/// # Errors
/// A step failed.
pub fn tell(story: Story, dir: &Path, work: &Path) -> Result<(), Failure> {
    let stage = Stage::names(work);
    story.run(dir, &stage, work, &|told| {
        say(&write(told));
        let _ = std::io::stdin().lock().read_line(&mut String::new());
    })
}

/// Says a line in one write, and again if that was the call that had to fail: whoever listens waits for it.
fn say(line: &str) {
    let line = format!("{line}\n");
    for _ in 0..2 {
        if rustix::io::write(std::io::stdout(), line.as_bytes()).is_ok() {
            return;
        }
    }
}

fn write(told: Told) -> String {
    let which = |word: &str, (client, sequence): Which| format!("{word} {} {sequence}", client.0[0]);
    match told {
        Told::Committing(snapshot) => which("committing", snapshot),
        Told::Committed(snapshot) => which("committed", snapshot),
        Told::Forgetting(snapshot) => which("forgetting", snapshot),
        Told::Damaged => "damaged".to_owned(),
        Told::Mended => "mended".to_owned(),
        Told::Losing => "losing".to_owned(),
        Told::Named => "named".to_owned(),
        Told::Healed => "healed".to_owned(),
        Told::Making => "making".to_owned(),
        Told::Made => "made".to_owned(),
        Told::Rebuilding => "rebuilding".to_owned(),
        Told::Rebuilt => "rebuilt".to_owned(),
        Told::Compacted => "compacted".to_owned(),
    }
}

/// A step, from the line in which it was said.
pub fn read(line: &str) -> Option<Told> {
    let mut words = line.split(' ');
    let word = words.next()?;
    let mut which = || Some((ClientId([words.next()?.parse().ok()?; 16]), words.next()?.parse().ok()?));
    match word {
        "committing" => which().map(Told::Committing),
        "committed" => which().map(Told::Committed),
        "forgetting" => which().map(Told::Forgetting),
        "damaged" => Some(Told::Damaged),
        "mended" => Some(Told::Mended),
        "losing" => Some(Told::Losing),
        "named" => Some(Told::Named),
        "healed" => Some(Told::Healed),
        "making" => Some(Told::Making),
        "made" => Some(Told::Made),
        "rebuilding" => Some(Told::Rebuilding),
        "rebuilt" => Some(Told::Rebuilt),
        "compacted" => Some(Told::Compacted),
        _ => None,
    }
}
