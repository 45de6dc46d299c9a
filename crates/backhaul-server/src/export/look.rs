//! Are the exports in the vault's directory as they were written?

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use backhaul_store::check::{Damage, Mending, Part};
use backhaul_store::{StoreError, Vault};

use super::{Export, shelf};

/// How the newest export stands: it is the one that a recovery takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest {
    /// As it was written, or there is none yet.
    Whole,
    /// It is damaged: another is to be made.
    Damaged,
}

/// Why an export cannot serve.
enum Flaw {
    /// It is not what was written.
    Damaged(String),
    /// It could not be read now, which says nothing of what is in it.
    Unread(String),
}

fn flaw(vault: &Vault, path: &Path) -> Option<Flaw> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        // The oldest goes when one is made, and this one was listed before.
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            return Some(Flaw::Unread(format!("it cannot be read now, and is left as it is: {error}")));
        }
    };
    match Export::decode(&bytes) {
        Ok(export) if export.vault == vault.descriptor().vault => None,
        Ok(_) => Some(Flaw::Damaged("it is of another vault".to_owned())),
        Err(error) => Some(Flaw::Damaged(error.to_string())),
    }
}

/// Reads all exports. With leave to mend, those that are damaged go to `quarantine/`; whoever asks makes a new one where
/// the newest was.
///
/// # Errors
/// The disk refused to put one aside.
pub fn look(vault: &Vault, mending: Mending, now: u64) -> Result<(Vec<Damage>, Newest), StoreError> {
    let listed = match shelf::list(vault.dir()) {
        Ok(listed) => listed,
        Err(error) => {
            let what = Part::File("exports".to_owned());
            return Ok((vec![Damage { what, why: error.to_string(), mended: None }], Newest::Whole));
        }
    };
    let (mut damage, mut newest) = (Vec::new(), Newest::Whole);
    for (place, (_, path)) in listed.iter().enumerate() {
        let Some(flaw) = flaw(vault, path) else { continue };
        let name = format!("exports/{}", path.file_name().unwrap_or_default().to_string_lossy());
        let mut mended = None;
        let why = match flaw {
            Flaw::Damaged(why) => why,
            Flaw::Unread(why) => {
                damage.push(Damage { what: Part::File(name), why, mended });
                continue;
            }
        };
        if mending == Mending::Mend {
            vault.put_away(&name, now)?;
            mended = Some("it is in quarantine/".to_owned());
        }
        if place == 0 {
            newest = Newest::Damaged;
            mended = mended.map(|how| format!("{how}, and one is made anew"));
        }
        damage.push(Damage { what: Part::File(name), why, mended });
    }
    Ok((damage, newest))
}
