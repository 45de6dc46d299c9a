//! The agent's directory: `config.toml`, `tls/`, `state/`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use backhaul_net::enrol::enrol;
use backhaul_net::join_code::JoinCode;
use backhaul_net::{Identity, private_file};
use backhaul_schedule::policy::Prefix;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::errand::Restores;
use crate::error::AgentError;
use crate::sources::Sources;

/// `config.toml` (schemas/config/agent.json).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The name the server knows this machine by.
    pub client: String,
    /// `HOST:PORT` of the server, best first.
    pub servers: Vec<String>,
    /// What is backed up when nothing is named.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
    /// From where the server may dial, as 10.0.0.0/8; from anywhere if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_from: Vec<String>,
    /// Runs that the server starts by dialling are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refuse_pulls: bool,
    /// What of the paths is saved, and what is done before and after.
    #[serde(default)]
    pub backup: Sources,
    /// Whether the server's operator may have something restored here, and where.
    #[serde(default, skip_serializing_if = "Restores::is_default")]
    pub restore: Restores,
}

impl Config {
    /// True when the server may dial from an address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let contains =
            |prefix: &String| prefix.parse::<Prefix>().is_ok_and(|prefix| prefix.contains(address));
        self.allow_from.is_empty() || self.allow_from.iter().any(contains)
    }
}

/// An agent's directory.
#[derive(Debug, Clone)]
pub struct AgentHome {
    dir: PathBuf,
    home: PathBuf,
}

impl AgentHome {
    /// The agent's part of a home; it need not exist.
    pub fn at(home: &Path) -> Self {
        Self { dir: home.join("agent"), home: home.to_path_buf() }
    }

    /// True when this machine has joined.
    pub fn exists(&self) -> bool {
        self.dir.join("config.toml").exists()
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The whole home, which is never saved.
    pub fn whole(&self) -> PathBuf {
        fs::canonicalize(&self.home).unwrap_or_else(|_| self.home.clone())
    }

    /// The config.
    ///
    /// # Errors
    /// Not joined, or the file is malformed: the unknown key is named.
    pub fn config(&self) -> Result<Config, AgentError> {
        let path = self.dir.join("config.toml");
        let text = fs::read_to_string(&path).map_err(|_| AgentError::NoHome { path: self.dir.clone() })?;
        let config: Config = toml::from_str(&text)
            .map_err(|error| AgentError::File { path: path.clone(), why: error.to_string() })?;
        for prefix in &config.allow_from {
            let wrong = |why: &str| AgentError::File {
                path: path.clone(),
                why: format!("allow_from {prefix:?}: {why}"),
            };
            prefix.parse::<Prefix>().map_err(wrong)?;
        }
        let wrong = |why: String| AgentError::File { path: path.clone(), why: format!("[backup]: {why}") };
        config.backup.check().map_err(wrong)?;
        Ok(config)
    }

    /// Writes the config.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_config(&self, config: &Config) -> Result<(), AgentError> {
        let path = self.dir.join("config.toml");
        let text = toml::to_string(config)
            .map_err(|e| AgentError::File { path: path.clone(), why: e.to_string() })?;
        Ok(private_file::write(&path, text.as_bytes())?)
    }

    /// Enrols this machine; the config comes last: it is what makes this an agent's home.
    ///
    /// # Errors
    /// Already joined, or the server was not reached or refused.
    pub async fn join(&self, code: &JoinCode, paths: Vec<PathBuf>) -> Result<Config, AgentError> {
        if let Ok(config) = self.config() {
            return Err(AgentError::Joined { client: config.client });
        }
        // Before the code is used up: what cannot be written into the config afterwards.
        if let Some(path) = paths.iter().find(|path| path.to_str().is_none()) {
            let why = "a default path must be UTF-8; `backhaul backup PATH` takes any".to_owned();
            return Err(AgentError::File { path: path.clone(), why });
        }
        let enrolled = enrol(code).await?;
        enrolled.agent.save(&self.tls(), "agent")?;
        enrolled.listener.save(&self.tls(), "listener")?;
        let mut servers = vec![enrolled.address.clone()];
        servers.extend(code.addresses.iter().filter(|address| **address != enrolled.address).cloned());
        let config = Config {
            client: enrolled.client,
            servers,
            paths,
            allow_from: Vec::new(),
            refuse_pulls: false,
            backup: Sources::default(),
            restore: Restores::default(),
        };
        self.write_config(&config)?;
        Ok(config)
    }

    /// For dialling the server.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn agent(&self) -> Result<Identity, AgentError> {
        Ok(Identity::load(&self.tls(), "agent")?)
    }

    /// For being dialled.
    ///
    /// # Errors
    /// Its files cannot be read.
    pub fn listener(&self) -> Result<Identity, AgentError> {
        Ok(Identity::load(&self.tls(), "listener")?)
    }

    /// Where earlier runs left what they knew.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Takes the right to back up.
    ///
    /// # Errors
    /// [`AgentError::Busy`] names the process that has it.
    pub fn lock(&self) -> Result<File, AgentError> {
        self.claim("lock", "a backup")
    }

    /// Takes the right to be the daemon.
    ///
    /// # Errors
    /// [`AgentError::Busy`] names the process that has it.
    pub fn lock_daemon(&self) -> Result<File, AgentError> {
        self.claim("daemon.lock", "the agent")
    }

    fn claim(&self, name: &str, what: &'static str) -> Result<File, AgentError> {
        let path = self.dir.join(name);
        let file = |why: std::io::Error| AgentError::File { path: path.clone(), why: why.to_string() };
        let mut options = OpenOptions::new();
        let mut lock =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(file)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            lock.read_to_string(&mut pid).map_err(file)?;
            return Err(AgentError::Busy { what, pid: pid.trim().to_owned() });
        }
        let pid = std::process::id().to_string();
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(pid.as_bytes()))
            .map_err(file)?;
        Ok(lock)
    }

    fn tls(&self) -> PathBuf {
        self.dir.join("tls")
    }
}
