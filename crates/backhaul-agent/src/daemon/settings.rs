//! The config as it was when it could be read last: a file that is half saved ends nothing.

use std::sync::{Mutex, PoisonError};

use crate::error::AgentError;
use crate::home::{AgentHome, Config};

/// Reads the config whenever it is asked for.
pub(super) struct Settings {
    home: AgentHome,
    last: Mutex<Last>,
}

struct Last {
    good: Config,
    /// What is wrong with the file, as it was logged.
    wrong: Option<String>,
}

impl Settings {
    /// Begins with a good config.
    ///
    /// # Errors
    /// There is none.
    pub fn open(home: &AgentHome) -> Result<Self, AgentError> {
        let last = Last { good: home.config()?, wrong: None };
        Ok(Self { home: home.clone(), last: Mutex::new(last) })
    }

    /// The newest good config; what is wrong with a newer one is logged once.
    pub fn config(&self) -> Config {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match self.home.config() {
            Ok(config) => *last = Last { good: config, wrong: None },
            Err(error) => {
                let wrong = Some(error.to_string());
                if last.wrong != wrong {
                    tracing::warn!("the last good config is kept: {error}");
                    last.wrong = wrong;
                }
            }
        }
        last.good.clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_half_saved_config_changes_nothing_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let home = AgentHome::at(dir.path());
        std::fs::create_dir(home.dir()).unwrap();
        let file = home.dir().join("config.toml");
        assert!(Settings::open(&home).is_err());
        std::fs::write(&file, "client = 'a'\nservers = ['x:1']\n").unwrap();
        let settings = Settings::open(&home).unwrap();
        std::fs::write(&file, "client = 'b'\nserv").unwrap();
        assert_eq!(settings.config().client, "a");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(settings.config().client, "a");
        std::fs::write(&file, "client = 'b'\nservers = []\n").unwrap();
        assert_eq!(settings.config().client, "b");
    }

    #[test]
    fn one_home_has_one_daemon_and_the_second_learns_whose_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let home = AgentHome::at(dir.path());
        std::fs::create_dir(home.dir()).unwrap();
        let first = home.lock_daemon().unwrap();
        let backup = home.lock().unwrap();
        let second = home.lock_daemon().unwrap_err().to_string();
        assert!(second.contains(&std::process::id().to_string()), "{second}");
        drop((first, backup));
        home.lock_daemon().unwrap();
    }
}
