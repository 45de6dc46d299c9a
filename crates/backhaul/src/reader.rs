//! Sessions for reading: on a client its own snapshots, on the server those of any client.

use std::net::SocketAddr;
use std::path::Path;

use backhaul_agent::home::AgentHome;
use backhaul_agent::remote::{Listed, Which};
use backhaul_agent::ways::Ways;
use backhaul_agent::{Remote, run};
use backhaul_net::endpoint::dial_server;
use backhaul_net::transport::Use;
use backhaul_net::{Identity, Role};
use backhaul_server::ServerError;
use backhaul_server::daemon::{Duty, Server};
use backhaul_server::home::ServerHome;
use backhaul_store::StoreError;

use crate::failure::{Failure, code};
use crate::selector;

/// Where sessions are opened and as whom, and the server in this process if none was running.
pub struct Access {
    identity: Identity,
    servers: Vec<String>,
    /// An operator says whose snapshots it wants.
    pub is_operator: bool,
    server: Option<Server>,
    /// Of its sessions.
    ways: Ways,
    /// Who has the vault of this home.
    busy: Option<String>,
}

impl Access {
    /// By what this home is and whether a client is named.
    pub async fn find(home: &Path, client: Option<&str>, ways: &Ways) -> Result<Self, Failure> {
        match client {
            None if AgentHome::at(home).exists() => Self::as_client(home, ways).await,
            None if ServerHome::at(home).exists() => Self::as_operator(home, ways).await,
            None => Err(Failure::new(format!(
                "{} is neither a client's nor a server's home",
                home.display()
            ))
            .code(code::NO_HOME)
            .hint("--home DIR or BACKHAUL_HOME says where it is; `backhaul join CODE` enrols this machine")),
            Some(client) => {
                ServerHome::at(home).fleet()?.require(client)?;
                Self::as_operator(home, ways).await
            }
        }
    }

    async fn as_client(home: &Path, ways: &Ways) -> Result<Self, Failure> {
        let agent = AgentHome::at(home);
        let (identity, configured) = (agent.agent()?, agent.config()?.servers);
        // A home with both roles works without `server run`, too.
        let (server, busy) = server_of(home).await?;
        let servers = server.as_ref().map_or(configured, |server| vec![server.address().to_string()]);
        Ok(Self { identity, servers, is_operator: false, server, ways: ways.clone(), busy })
    }

    async fn as_operator(home: &Path, ways: &Ways) -> Result<Self, Failure> {
        let server_home = ServerHome::at(home);
        let (server, busy) = server_of(home).await?;
        let address = match &server {
            Some(server) => server.address().to_string(),
            None => loopback(&server_home.config()?.listen)?,
        };
        let identity = server_home.identity(Role::Operator)?;
        Ok(Self { identity, servers: vec![address], is_operator: true, server, ways: ways.clone(), busy })
    }

    /// Opens a session; `client` is whose snapshots an operator wants.
    pub async fn browse(&self, client: &str) -> Result<Remote, Failure> {
        let opened = self.open(client).await;
        opened.map_err(|failure| match &self.busy {
            Some(pid) => failure.hint(format!(
                "process {pid} has the vault: if that is no `backhaul server run`, others wait until it ends"
            )),
            None => failure,
        })
    }

    async fn open(&self, client: &str) -> Result<Remote, Failure> {
        if !self.is_operator {
            return Ok(Remote::browse(run::dial(&self.servers, &self.identity).await?, "", &self.ways).await?);
        }
        let address = self.servers.first().map_or("", String::as_str);
        let link = dial_server(address, &self.identity, Use::Work).await?;
        Ok(Remote::browse(link, client, &self.ways).await?)
    }

    /// Ends the server in this process.
    pub async fn close(self) {
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}

/// An open session.
pub struct Reader {
    pub remote: Remote,
    access: Access,
}

impl Reader {
    /// Opens a session by what this home is and whether a client is named.
    pub async fn open(home: &Path, client: Option<&str>, ways: &Ways) -> Result<Self, Failure> {
        if client.is_none() && !AgentHome::at(home).exists() && ServerHome::at(home).exists() {
            return Err(Failure::usage("say whose snapshots: --client NAME")
                .hint("`backhaul client list` shows all clients"));
        }
        let access = Access::find(home, client, ways).await?;
        Ok(Self { remote: access.browse(client.unwrap_or_default()).await?, access })
    }

    /// The snapshots, oldest first, and what is forgotten if that is wanted.
    pub fn list(&self, which: Which) -> Result<Vec<Listed>, Failure> {
        Ok(tokio::task::block_in_place(|| self.remote.snapshots(which))?)
    }

    /// The snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Listed>, Failure> {
        self.list(Which::Listed)
    }

    /// The one snapshot that a text means, for what is at a path.
    pub fn choose(&self, text: &str, path: Option<&[u8]>) -> Result<Listed, Failure> {
        let (all, now) = (self.snapshots()?, backhaul_agent::clock::now());
        let chosen = selector::choose_for(text, path, &all, now)?;
        if chosen.id != selector::choose(text, &all, now)?.id {
            let (id, time) = (chosen.id.to_string(), crate::output::time(chosen.server_time));
            let path = String::from_utf8_lossy(path.unwrap_or_default());
            tracing::info!("{text} of {path} is {} of {time}: newer ones are of other paths", &id[..12]);
        }
        Ok(chosen.clone())
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.remote.close().await;
        self.access.close().await;
    }
}

/// Starts the server of this home in this process, unless there is none or it is running already.
pub async fn own_server(home: &Path) -> Result<Option<Server>, Failure> {
    Ok(server_of(home).await?.0)
}

/// The same; and which process has the vault, if another one has.
async fn server_of(home: &Path) -> Result<(Option<Server>, Option<String>), Failure> {
    let server = ServerHome::at(home);
    if !server.exists() {
        return Ok((None, None));
    }
    match Server::start(&server, Some("127.0.0.1:0"), Duty::OneCommand).await {
        Ok(server) => Ok((Some(server), None)),
        Err(ServerError::Store(StoreError::Busy { pid, .. })) => Ok((None, Some(pid))),
        Err(error) => Err(error.into()),
    }
}

/// Where a server that listens on `listen` is reached from its own machine.
pub fn loopback(listen: &str) -> Result<String, Failure> {
    let mut address: SocketAddr = listen
        .parse()
        .map_err(|_| Failure::new(format!("config.toml: listen = {listen:?} is no ADDRESS:PORT")))?;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    Ok(address.to_string())
}
