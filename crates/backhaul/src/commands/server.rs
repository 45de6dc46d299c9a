//! `server init`, `server run`.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::process::ExitCode;

use backhaul_server::alerts::config::Config as Alerts;
use backhaul_server::clock;
use backhaul_server::daemon::{Duty, Server};
use backhaul_server::home::{Config, Nightly, ServerHome};
use backhaul_server::scrub::Config as Scrub;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Context, Done};
use crate::failure::Failure;
use crate::interrupt::interrupted;
use crate::output;

/// This machine's name.
pub fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

pub fn init(context: &Context, listen: SocketAddr, names: Vec<String>) -> Done {
    let names = if names.is_empty() { vec![host_name()] } else { names };
    let config = Config {
        listen: listen.to_string(),
        names,
        alerts: Alerts::default(),
        nightly: Nightly::default(),
        scrub: Scrub::default(),
    };
    let home = ServerHome::at(&context.home);
    let recovery = home.init(&config, clock::now())?;
    if context.global.json {
        let document = serde_json::json!({
            "home": context.home, "listen": config.listen, "addresses": config.addresses(),
            "recovery_key": recovery.words(),
        });
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("server made in {}", home.dir().display()));
    output::line(&format!("clients will reach it at {}", config.addresses().join(", ")));
    output::line("");
    output::line(&format!("recovery key: {}", recovery.words()));
    output::line(
        "  keep it off this machine: it opens the vault when this disk is lost; it is not shown again",
    );
    output::line("");
    output::line("next:  backhaul server run");
    output::line("       backhaul client add NAME");
    Ok(ExitCode::SUCCESS)
}

pub async fn run(context: &Context, listen: Option<SocketAddr>) -> Done {
    let home = ServerHome::at(&context.home);
    let listen = listen.map(|address| address.to_string());
    let server = Server::start(&home, listen.as_deref(), Duty::Full).await.map_err(|error| {
        Failure::from(error).while_doing(format!("starting the server in {}", home.dir().display()))
    })?;
    let signals = Signals { reload: signal(SignalKind::hangup())?, stop: pin!(interrupted()) };
    output::complain(&format!("listening on {}", server.address()));
    notify_systemd("READY=1");
    serve(&server, signals).await;
    notify_systemd("STOPPING=1");
    output::complain("stopping: runs that are under way may end; once more stops at once");
    tokio::select! {
        () = server.drain() => {}
        () = interrupted() => {}
    }
    server.stop().await;
    Ok(ExitCode::SUCCESS)
}

/// One of each for the whole time: whoever has read that it is there may send one, also during a reload.
struct Signals<'p, Stop> {
    reload: Signal,
    stop: Pin<&'p mut Stop>,
}

/// Until it is told to stop; SIGHUP reads config and policies again.
async fn serve<Stop: Future<Output = ()>>(server: &Server, mut signals: Signals<'_, Stop>) {
    loop {
        tokio::select! {
            () = &mut signals.stop => return,
            _ = signals.reload.recv() => {
                notify_systemd("RELOADING=1");
                match server.reload() {
                    Ok(()) => output::complain("config and policies were read again"),
                    Err(error) => output::complain(&format!("not reloaded, what was in force stays: {error}")),
                }
                notify_systemd("READY=1");
            }
        }
    }
}

/// Tells systemd, when it is there and asked to be told.
pub fn notify_systemd(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    // Without systemd's ear nothing depends on this.
    if let Ok(socket) = std::os::unix::net::UnixDatagram::unbound() {
        let _ = socket.send_to(state.as_bytes(), path);
    }
}
