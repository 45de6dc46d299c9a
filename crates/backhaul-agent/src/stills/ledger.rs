//! The stills that there are, written down before each is made and crossed out when it is gone: what a run that was killed
//! has left behind, the next one removes.

use std::io;
use std::path::PathBuf;

use backhaul_net::private_file;
use serde::{Deserialize, Serialize};

/// What one still is, to whoever removes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Trace {
    /// A snapshot in the folder of stills.
    Btrfs { device: String, name: String },
    /// By its full name.
    Zfs { snapshot: String },
    /// By its group and name.
    Lvm { volume: String },
}

/// The file.
#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    traces: Vec<Trace>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    version: u8,
    stills: Vec<Trace>,
}

impl Ledger {
    /// As it was left. A file that cannot be read is a reason to make no stills: what it names would be forgotten.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let traces = match std::fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Written>(&bytes)? {
                Written { version: 1, stills } => stills,
                Written { version, .. } => {
                    return Err(io::Error::other(format!("version {version} is of a later program")));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, traces })
    }

    /// All that it names.
    pub(super) fn traces(&self) -> &[Trace] {
        &self.traces
    }

    /// Writes some down.
    pub(super) fn add(&mut self, traces: &[Trace]) -> io::Result<()> {
        self.traces.extend_from_slice(traces);
        self.write()
    }

    /// Crosses one out.
    pub(super) fn strike(&mut self, trace: &Trace) -> io::Result<()> {
        self.traces.retain(|one| one != trace);
        self.write()
    }

    fn write(&self) -> io::Result<()> {
        if self.traces.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let text = serde_json::to_vec(&Written { version: 1, stills: self.traces.clone() })?;
        private_file::write(&self.path, &text).map_err(io::Error::other)
    }
}
