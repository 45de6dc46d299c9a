//! A server stands up again: from the data directory and the recovery key alone.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul_net::private_file;
use backhaul_object::ids::VaultId;
use backhaul_object::keys::VaultKey;
use backhaul_store::check::Mending;
use backhaul_store::{StoreError, Vault, rebuild, repair};

use super::{Export, File, shelf};
use crate::error::ServerError;
use crate::fleet::Fleet;
use crate::home::ServerHome;
use crate::keyring::{self, RecoveryKey, random};

/// The fleet database's name in an export.
pub(super) const FLEET: &str = "fleet.sqlite";
const CONFIG: &str = "config.toml";

/// What was recovered.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// From which export.
    pub export: PathBuf,
    /// When that was made, seconds since 1970.
    pub made_at: u64,
    /// Exports that were newer, and could not be used.
    pub damaged: Vec<(PathBuf, String)>,
    /// Clients that the server knows again.
    pub clients: u64,
    /// Names of clients that have snapshots and joined after the export: they must join anew.
    pub unknown: Vec<String>,
    /// Snapshots in the vault.
    pub snapshots: u64,
    /// Whether catalog and index were made anew.
    pub rebuilt: Rebuilt,
}

/// Whether catalog and index were made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebuilt {
    /// They were lost, or damaged.
    Yes,
    /// They were there.
    No,
}

/// Whether the vault's packs are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packs {
    /// They are there; if most are not, their folder is not mounted.
    Expected,
    /// Those that are not there will not come back.
    Lost,
}

/// Makes a server in `home` from the vault in `dir`, which stays where it is. Until the last file is written there is no
/// server, and the same can be done again.
///
/// # Errors
/// There is a server already, no vault, no export that can be used, the wrong key, or no packs where there should be.
pub fn recover(
    dir: &Path,
    key: &RecoveryKey,
    home: &ServerHome,
    packs: Packs,
    now: u64,
) -> Result<Recovered, ServerError> {
    if home.exists() {
        return Err(ServerError::Exists { path: home.dir().to_path_buf() });
    }
    let dir = fs::canonicalize(dir).map_err(|_| StoreError::NotAVault { path: dir.to_path_buf() })?;
    repair::restore_descriptor(&dir, now)?;
    if !dir.join("vault.desc").is_file() {
        return Err(StoreError::NotAVault { path: dir }.into());
    }
    let Chosen { path: export, made_at, vault_key, files, keyring, vault, damaged } = choose(&dir, key)?;
    let (opened, rebuilt) = open_vault(&dir, packs, now)?;
    if opened.descriptor().vault != vault {
        let why = "it is the export of another vault".to_owned();
        return Err(ServerError::File { path: export, why });
    }
    let rows = opened.snapshots(None)?;
    drop(opened);
    place_vault(&dir, home)?;
    for file in files.iter().filter(|file| file.name != CONFIG) {
        write(home, file)?;
    }
    keyring::rewrap(home.dir(), &vault_key, &keyring)?;
    let fleet = Fleet::open(&home.dir().join(FLEET))?;
    // It has just been opened.
    if let Some(wrap) = keyring::recovery_wrap(&keyring) {
        fleet.note_recovery_wrap(&keyring::digest(wrap))?;
    }
    fleet.fail_open(None, "the server was lost", now)?;
    let clients = fleet.clients()?;
    drop(fleet);
    let mut unknown: Vec<String> = rows
        .iter()
        .filter(|row| clients.iter().all(|client| client.id != row.client))
        .map(|row| row.client_name.clone())
        .collect();
    unknown.sort();
    unknown.dedup();
    // The config comes last: it is what makes this a server's home.
    for file in files.iter().filter(|file| file.name == CONFIG) {
        write(home, file)?;
    }
    let (clients, snapshots) = (clients.len() as u64, rows.len() as u64);
    Ok(Recovered { export, made_at, damaged, clients, unknown, snapshots, rebuilt })
}

/// The newest export that can be used, opened.
struct Chosen {
    path: PathBuf,
    made_at: u64,
    vault_key: VaultKey,
    files: Vec<File>,
    keyring: Vec<u8>,
    vault: VaultId,
    damaged: Vec<(PathBuf, String)>,
}

fn read(path: &Path) -> Result<Export, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    Export::decode(&bytes).map_err(|error| error.to_string())
}

/// The vault key, and the newest keyring that the recovery key opens. It is the same vault key in all exports: where a
/// wrap of it was damaged before it was exported, that of an older export opens the newer one, too.
fn unlock(
    dir: &Path,
    exports: &[(u64, PathBuf)],
    key: &RecoveryKey,
) -> Result<(VaultKey, Vec<u8>), ServerError> {
    let (mut shut, mut damaged) = (None, None);
    for (_, path) in exports {
        match read(path) {
            Ok(export) => match keyring::open_with_recovery(&export.keyring, key) {
                Some(vault_key) => return Ok((vault_key, export.keyring)),
                None => shut = shut.or(Some(path)),
            },
            Err(why) => damaged = damaged.or(Some((path, why))),
        }
    }
    if let Some(path) = shut {
        let why = "it is another server's, or was mistyped";
        return Err(ServerError::WrongRecoveryKey { path: path.clone(), why });
    }
    Err(no_export(dir, damaged.as_ref().map(|(path, why)| (path.as_path(), why.as_str()))))
}

fn no_export(dir: &Path, damaged: Option<(&Path, &str)>) -> ServerError {
    let why = match damaged {
        None => "it holds no export of a server (`exports/`); the first is made within two minutes after a client is added"
            .to_owned(),
        Some((path, why)) => format!("no export in it can be used; {}: {why}", path.display()),
    };
    ServerError::File { path: dir.to_path_buf(), why }
}

fn choose(dir: &Path, key: &RecoveryKey) -> Result<Chosen, ServerError> {
    let exports = shelf::list(dir)?;
    let (vault_key, keyring) = unlock(dir, &exports, key)?;
    let mut damaged = Vec::new();
    for (_, path) in exports {
        match read(&path).and_then(|export| Ok((export.open(&vault_key).map_err(|e| e.to_string())?, export)))
        {
            Ok((files, Export { made_at, vault, .. })) => {
                return Ok(Chosen { path, made_at, vault_key, files, keyring, vault, damaged });
            }
            Err(why) => damaged.push((path, why)),
        }
    }
    Err(no_export(dir, damaged.first().map(|(path, why)| (path.as_path(), why.as_str()))))
}

/// Opens the vault; where catalog or index are lost, they are made anew.
fn open_vault(dir: &Path, packs: Packs, now: u64) -> Result<(Vault, Rebuilt), ServerError> {
    match Vault::open(dir) {
        Ok(vault) => Ok((vault, Rebuilt::No)),
        Err(StoreError::Damaged { .. } | StoreError::Catalog(_) | StoreError::Io { .. }) => {
            let way = match packs {
                Packs::Expected => rebuild::rebuild,
                Packs::Lost => rebuild::rebuild_from_what_is_left,
            };
            way(dir, random()?, Mending::Mend, now)?;
            Ok((Vault::open(dir)?, Rebuilt::Yes))
        }
        Err(error) => Err(error.into()),
    }
}

/// Leads to the vault from where the server looks for it, unless it is there.
fn place_vault(dir: &Path, home: &ServerHome) -> Result<(), ServerError> {
    let place = home.vault_dir();
    if fs::canonicalize(&place).is_ok_and(|there| there == dir) {
        return Ok(());
    }
    let failed = |error: std::io::Error| ServerError::File {
        path: place.clone(),
        why: format!("{error}; it should lead to {}", dir.display()),
    };
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    std::os::unix::fs::symlink(dir, &place).map_err(failed)
}

fn write(home: &ServerHome, file: &File) -> Result<(), ServerError> {
    let path = home.dir().join(&file.name);
    if file.name == FLEET {
        // What a server before wrote ahead does not belong to this one.
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(home.dir().join(format!("{FLEET}{suffix}")));
        }
    }
    Ok(private_file::write(&path, &file.content)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// The keyring was damaged, and exported so for long enough that only the oldest export has the wrap whole.
    #[test]
    fn a_wrap_of_any_export_opens_the_newest_and_only_where_none_opens_is_the_key_wrong() {
        let (home, vault) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (vault_key, recovery) = keyring::create(home.path()).unwrap();
        let good = keyring::read(home.path()).unwrap();
        let put = |keyring: Vec<u8>, day: u64| {
            let files = [File { name: CONFIG.to_owned(), content: day.to_le_bytes().to_vec() }];
            let head = (VaultId([1; 16]), day * 86_400, keyring);
            let export = Export::seal(head, &files, &vault_key, random().unwrap()).unwrap();
            shelf::put(vault.path(), &export.encode()).unwrap().path
        };
        let oldest = put(good.clone(), 1);
        let mut rotten = good.clone();
        *rotten.last_mut().unwrap() ^= 1;
        put(rotten, 2);
        let newest = put(good[..65].to_vec(), 3);
        let chosen = choose(vault.path(), &recovery).unwrap();
        assert_eq!((&chosen.path, chosen.files[0].content[0], &chosen.keyring), (&newest, 3, &good));
        assert!(chosen.damaged.is_empty());

        fs::write(&newest, b"BHEX").unwrap();
        let chosen = choose(vault.path(), &recovery).unwrap();
        assert_eq!((chosen.files[0].content[0], &chosen.damaged[0].0), (2, &newest));
        let other = RecoveryKey::parse(&"7".repeat(64)).unwrap();
        assert!(matches!(choose(vault.path(), &other), Err(ServerError::WrongRecoveryKey { .. })));
        fs::remove_file(oldest).unwrap();
        assert!(matches!(choose(vault.path(), &recovery), Err(ServerError::WrongRecoveryKey { .. })));
    }
}
