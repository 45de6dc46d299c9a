//! A session for reading: on a client its own snapshots, on the server those of a named client.

use std::net::SocketAddr;
use std::path::Path;

use backhaul_agent::home::AgentHome;
use backhaul_agent::remote::Listed;
use backhaul_agent::{Remote, run};
use backhaul_net::Role;
use backhaul_net::endpoint::dial_server;
use backhaul_net::transport::Use;
use backhaul_server::ServerError;
use backhaul_server::daemon::{Duty, Server};
use backhaul_server::home::ServerHome;
use backhaul_store::StoreError;

use crate::failure::{Failure, code};
use crate::selector;

/// An open session, and the server in this process if none was running.
pub struct Reader {
    pub remote: Remote,
    server: Option<Server>,
}

impl Reader {
    /// Opens a session by what this home is and whether a client is named.
    pub async fn open(home: &Path, client: Option<&str>) -> Result<Self, Failure> {
        let agent = AgentHome::at(home);
        match client {
            None if agent.exists() => Self::as_client(home, &agent).await,
            None if ServerHome::at(home).exists() => {
                Err(Failure::usage("say whose snapshots: --client NAME")
                    .hint("`backhaul client list` shows all clients"))
            }
            None => Err(Failure::new(format!(
                "{} is neither a client's nor a server's home",
                home.display()
            ))
            .code(code::NO_HOME)
            .hint("--home DIR or BACKHAUL_HOME says where it is; `backhaul join CODE` enrols this machine")),
            Some(client) => Self::as_operator(home, client).await,
        }
    }

    async fn as_client(home: &Path, agent: &AgentHome) -> Result<Self, Failure> {
        let servers = agent.config()?.servers;
        // A home with both roles works without `server run`, too.
        let (server, servers) = match own_server(home).await? {
            Some(server) => {
                let address = server.address().to_string();
                (Some(server), vec![address])
            }
            None => (None, servers),
        };
        let link = run::dial(&servers, &agent.agent()?).await?;
        Ok(Self { remote: Remote::browse(link, "").await?, server })
    }

    async fn as_operator(home: &Path, client: &str) -> Result<Self, Failure> {
        let server_home = ServerHome::at(home);
        server_home.fleet()?.require(client)?;
        let server = own_server(home).await?;
        let address = match &server {
            Some(server) => server.address().to_string(),
            None => loopback(&server_home.config()?.listen)?,
        };
        let link = dial_server(&address, &server_home.identity(Role::Operator)?, Use::Work).await?;
        Ok(Self { remote: Remote::browse(link, client).await?, server })
    }

    /// The snapshots, oldest first.
    pub fn snapshots(&self) -> Result<Vec<Listed>, Failure> {
        Ok(tokio::task::block_in_place(|| self.remote.snapshots())?)
    }

    /// The one snapshot that a text means.
    pub fn choose(&self, text: &str) -> Result<Listed, Failure> {
        selector::choose(text, &self.snapshots()?, backhaul_agent::clock::now()).cloned()
    }

    /// Says goodbye.
    pub async fn close(self) {
        self.remote.close().await;
        if let Some(server) = self.server {
            server.stop().await;
        }
    }
}

/// Starts the server of this home in this process, unless there is none or it is running already.
pub async fn own_server(home: &Path) -> Result<Option<Server>, Failure> {
    let server = ServerHome::at(home);
    if !server.exists() {
        return Ok(None);
    }
    match Server::start(&server, Some("127.0.0.1:0"), Duty::OneCommand).await {
        Ok(server) => Ok(Some(server)),
        Err(ServerError::Store(StoreError::Busy { .. })) => Ok(None),
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
