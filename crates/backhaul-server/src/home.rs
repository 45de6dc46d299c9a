//! The server's directory: `config.toml`, `tls/`, `keyring`, `fleet.sqlite`, `vaults/main/`.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use backhaul_net::authority::Authority;
use backhaul_net::{Identity, Role};
use backhaul_object::descriptor::Descriptor;
use backhaul_object::ids::VaultId;
use backhaul_object::keys::VaultKey;
use backhaul_schedule::policy::units;
use backhaul_store::atomic::AtomicFile;
use backhaul_store::{StoreError, Vault};
use serde::{Deserialize, Serialize};

use crate::alerts::config as alerts;
use crate::error::ServerError;
use crate::fleet::Fleet;
use crate::keyring::{self, RecoveryKey, random};
use crate::scrub;

/// The one vault there is so far.
pub const MAIN_VAULT: &str = "main";
/// Where a server listens unless told otherwise.
pub const DEFAULT_LISTEN: &str = "0.0.0.0:4455";

/// `config.toml` (schemas/config/server.json).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// UDP address to listen on.
    pub listen: String,
    /// Names or addresses under which clients reach this server, best first.
    pub names: Vec<String>,
    /// When the night's chores are done.
    #[serde(default, skip_serializing_if = "Nightly::is_usual")]
    pub nightly: Nightly,
    /// Who is told of alerts.
    #[serde(default, skip_serializing_if = "alerts::Config::is_empty")]
    pub alerts: alerts::Config,
    /// How the vault is read over.
    #[serde(default, skip_serializing_if = "scrub::Config::is_empty")]
    pub scrub: scrub::Config,
}

/// `[nightly]`: when the server exports itself, forgets what the policies do not keep, and gives back its room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nightly {
    /// `HH:MM` by this machine's clock, or `never`.
    #[serde(default = "Nightly::usual_time")]
    pub at: String,
    /// Bytes a second that the prune may read and write, as `100MB`, or `none`.
    #[serde(default = "Nightly::usual_limit", skip_serializing_if = "Nightly::is_usual_limit")]
    pub limit: String,
}

impl Default for Nightly {
    fn default() -> Self {
        Self { at: Self::usual_time(), limit: Self::usual_limit() }
    }
}

impl Nightly {
    fn usual_time() -> String {
        "02:00".to_owned()
    }

    /// Half of what a single hard disk can do: backups go on beside it.
    fn usual_limit() -> String {
        "100MB".to_owned()
    }

    fn is_usual_limit(text: &String) -> bool {
        *text == Self::usual_limit()
    }

    fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// The time of day; none for never.
    pub fn time(&self) -> Option<jiff::civil::Time> {
        self.at.parse().ok()
    }

    /// Bytes a second for the prune; none is as fast as it can.
    pub fn rate(&self) -> Option<u64> {
        units::size(&self.limit)
    }

    fn check(&self) -> Result<(), String> {
        if self.at != "never" && self.time().is_none() {
            return Err(format!("nightly.at = {:?}: say a time of day, as 02:00, or never", self.at));
        }
        if self.limit != "none" && self.rate().is_none() {
            return Err(format!("nightly.limit = {:?}: say bytes a second, as 100MB, or none", self.limit));
        }
        Ok(())
    }
}

impl Config {
    /// `HOST:PORT` for join codes; a name may bring its own port.
    pub fn addresses(&self) -> Vec<String> {
        let port = self.listen.rsplit(':').next().unwrap_or("4455");
        let has_port = |name: &str| {
            name.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'))
        };
        self.names.iter().map(|n| if has_port(n) { n.clone() } else { format!("{n}:{port}") }).collect()
    }
}

/// A server's directory.
#[derive(Debug, Clone)]
pub struct ServerHome {
    dir: PathBuf,
}

impl ServerHome {
    /// The server's part of a home; it need not exist.
    pub fn at(home: &Path) -> Self {
        Self { dir: home.join("server") }
    }

    /// True when there is a server.
    pub fn exists(&self) -> bool {
        self.dir.join("config.toml").exists()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes a server: CA, certificates, keys, vault, fleet, config. `now` is seconds since 1970.
    ///
    /// # Errors
    /// There is one already, or something cannot be written.
    pub fn init(&self, config: &Config, now: u64) -> Result<RecoveryKey, ServerError> {
        if self.exists() {
            return Err(ServerError::Exists { path: self.dir.clone() });
        }
        let file = |path: &Path, error: std::io::Error| ServerError::File {
            path: path.into(),
            why: error.to_string(),
        };
        fs::create_dir_all(&self.dir).map_err(|error| file(&self.dir, error))?;
        if fs::read_dir(&self.dir).map_err(|error| file(&self.dir, error))?.next().is_some() {
            let why = "it holds files that no server made; choose another --home".to_owned();
            return Err(ServerError::File { path: self.dir.clone(), why });
        }
        let tls = self.tls();
        let authority = Authority::create(now)?;
        authority.save(&tls)?;
        for (role, name) in ROLES {
            authority.issue_own(role, "server", now)?.save(&tls, name)?;
        }
        let (_, recovery) = keyring::create(&self.dir)?;
        let descriptor = Descriptor::managed(VaultId(random()?));
        drop(Vault::create(&self.vault_dir(), &descriptor, random()?)?);
        let fleet = Fleet::open(&self.dir.join("fleet.sqlite"))?;
        if let Some(wrap) = keyring::recovery_wrap(&keyring::read(&self.dir)?) {
            fleet.note_recovery_wrap(&keyring::digest(wrap))?;
        }
        // The config comes last: it is what makes this a server's home.
        let path = self.dir.join("config.toml");
        let text = toml::to_string(config)
            .map_err(|e| ServerError::File { path: path.clone(), why: e.to_string() })?;
        AtomicFile::new(&path)
            .and_then(|new| new.commit(text.as_bytes()))
            .map_err(|error| file(&path, error))?;
        Ok(recovery)
    }

    /// The config.
    ///
    /// # Errors
    /// No server here, or the file is malformed: the unknown key is named.
    pub fn config(&self) -> Result<Config, ServerError> {
        let path = self.dir.join("config.toml");
        let text = fs::read_to_string(&path).map_err(|_| ServerError::NoHome { path: self.dir.clone() })?;
        let config: Config = toml::from_str(&text)
            .map_err(|error| ServerError::File { path: path.clone(), why: error.to_string() })?;
        let checked = config
            .alerts
            .check()
            .and_then(|()| config.scrub.cycle())
            .and_then(|_| config.scrub.quarantine().map(drop));
        match checked.and_then(|()| config.nightly.check()) {
            Ok(()) => Ok(config),
            Err(why) => Err(ServerError::File { path, why }),
        }
    }

    /// The fleet.
    ///
    /// # Errors
    /// No server here, or SQLite.
    pub fn fleet(&self) -> Result<Fleet, ServerError> {
        self.config()?;
        Fleet::open(&self.dir.join("fleet.sqlite"))
    }

    /// The CA.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn authority(&self) -> Result<Authority, ServerError> {
        Ok(Authority::load(&self.tls())?)
    }

    /// One of the server's identities.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn identity(&self, role: Role) -> Result<Identity, ServerError> {
        let name = ROLES.iter().find(|(known, _)| *known == role).map_or("server", |(_, name)| name);
        Ok(Identity::load(&self.tls(), name)?)
    }

    /// The vault key.
    ///
    /// # Errors
    /// It cannot be unwrapped.
    pub fn vault_key(&self) -> Result<VaultKey, ServerError> {
        keyring::open(&self.dir)
    }

    /// Where the vault is.
    pub fn vault_dir(&self) -> PathBuf {
        self.dir.join("vaults").join(MAIN_VAULT)
    }

    /// Takes the server's lock.
    ///
    /// # Errors
    /// No server here, or another process has it.
    pub fn lock(&self) -> Result<File, ServerError> {
        self.config()?;
        Ok(backhaul_store::vault::lock(&self.dir)?)
    }

    /// Opens the vault.
    ///
    /// # Errors
    /// In use, or damaged.
    pub fn vault(&self) -> Result<Vault, StoreError> {
        Vault::open(&self.vault_dir())
    }

    fn tls(&self) -> PathBuf {
        self.dir.join("tls")
    }
}

const ROLES: [(Role, &str); 3] =
    [(Role::Server, "server"), (Role::ServerDialler, "dialler"), (Role::Operator, "operator")];
