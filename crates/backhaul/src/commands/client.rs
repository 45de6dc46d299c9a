//! `client add`, `list`, `show`, `run`, `revoke`.

use std::process::ExitCode;
use std::time::Duration;

use backhaul_net::join_code::JoinCode;
use backhaul_server::clock;
use backhaul_server::fleet::{Client, Fleet, Initiator, Run, Terms};
use backhaul_server::home::{MAIN_VAULT, ServerHome};
use serde_json::{Value, json};

use super::{Context, Done};
use crate::failure::{Failure, code};
use crate::output;

pub fn add(context: &Context, name: &str, terms: &Terms) -> Done {
    let home = ServerHome::at(&context.home);
    let config = home.config()?;
    if terms.vault != MAIN_VAULT {
        return Err(Failure::usage(format!("there is no vault {:?}; there is {MAIN_VAULT:?}", terms.vault)));
    }
    let mut fleet = home.fleet()?;
    super::policy::require(&fleet, &terms.policy)?;
    let (secret, expires_at) = fleet.add(name, terms, clock::now())?;
    let (pin, addresses) = (home.authority()?.pin(), config.addresses());
    let join_code = JoinCode { expires_at, pin, secret, client: name.to_owned(), addresses }.to_string();
    if context.global.json {
        output::json(&json!({
            "name": name, "join_code": join_code, "expires_at": output::rfc3339(expires_at),
        }));
    } else {
        output::line(&format!("{name} is invited until {}. On it, run:", output::time(expires_at)));
        output::line("");
        output::line(&format!("  backhaul join {join_code}"));
        output::line("");
        output::line("The code works once; whoever has it can join in its place.");
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(client: &Client, last: Option<&Run>) -> Value {
    let run = last.map(|run| {
        json!({
            "state": run.state, "errors": run.errors, "why": run.why,
            "snapshot": run.snapshot.map(|id| id.to_string()),
        })
    });
    json!({
        "name": client.name, "id": client.id.to_string(), "initiator": client.initiator.as_str(),
        "address": client.address, "vault": client.vault, "policy": client.policy, "state": client.state.as_str(),
        "added_at": output::rfc3339(client.added_at), "seen_at": client.seen_at.map(output::rfc3339),
        "last_run": run,
    })
}

fn described(fleet: &Fleet, client: &Client) -> Result<Value, Failure> {
    Ok(describe(client, fleet.last_run(client.id)?.as_ref()))
}

pub fn list(context: &Context) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let clients = fleet.clients()?;
    if context.global.json {
        let all: Result<Vec<Value>, Failure> =
            clients.iter().map(|client| described(&fleet, client)).collect();
        output::json(&all?);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = clients.iter().map(|client| {
        vec![
            client.name.clone(),
            client.initiator.as_str().to_owned(),
            client.address.clone().unwrap_or_else(|| "-".to_owned()),
            client.state.as_str().to_owned(),
            client.seen_at.map_or_else(|| "never".to_owned(), output::time),
        ]
    });
    output::table(&["NAME", "INITIATOR", "ADDRESS", "STATE", "SEEN"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

pub fn show(context: &Context, name: &str) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let client = described(&fleet, &fleet.require(name)?)?;
    if context.global.json {
        output::json(&client);
        return Ok(ExitCode::SUCCESS);
    }
    for (key, value) in client.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        output::line(&format!("{:<12}{text}", key.replace('_', " ")));
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn run(context: &Context, names: &[String], wait: bool) -> Done {
    let home = ServerHome::at(&context.home);
    let fleet = home.fleet()?;
    // The server has the lock while it runs: if we get it, nobody would dial.
    if home.lock().is_ok() {
        return Err(Failure::new("the server is not running, so nobody would dial")
            .hint("start it: backhaul server run"));
    }
    let clients: Result<Vec<Client>, _> = names.iter().map(|name| fleet.require(name)).collect();
    if let Ok(clients) = &clients
        && let Some(client) = clients.iter().find(|client| client.address.is_none())
    {
        return Err(Failure::new(format!("client {:?} has no address to dial", client.name))
            .hint("it pushes; a client that is to be pulled is added with --address HOST:PORT"));
    }
    let mut queued = Vec::new();
    for client in clients? {
        queued.push((fleet.queue_run(client.id, clock::now())?, client));
    }
    if !wait {
        let document = |(_, client): &(i64, Client)| json!({ "client": client.name, "state": "queued" });
        match context.global.json {
            true => output::json(&queued.iter().map(document).collect::<Vec<_>>()),
            false => output::complain("queued; --wait waits for the end"),
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (mut worst, mut documents) = (0, Vec::new());
    for (id, client) in queued {
        let ended = ended(&fleet, id).await?;
        let exit = match ended.state.as_str() {
            "done" => 0,
            "partial" => code::PARTIAL,
            _ => code::FAILED,
        };
        worst = worst.max(exit);
        let snapshot = ended.snapshot.map(|id| id.to_string());
        if context.global.json {
            documents.push(json!({
                "client": client.name, "state": ended.state, "snapshot": snapshot, "errors": ended.errors,
                "why": ended.why,
            }));
            continue;
        }
        let text = match (&ended.why, &snapshot) {
            (Some(why), _) => why.clone(),
            (None, Some(id)) if ended.errors > 0 => {
                format!("snapshot {}, {} files not read", &id[..12], ended.errors)
            }
            (None, Some(id)) => format!("snapshot {}", &id[..12]),
            (None, None) => String::new(),
        };
        output::line(&format!("{}: {}: {text}", client.name, ended.state));
    }
    if context.global.json {
        output::json(&documents);
    }
    Ok(ExitCode::from(worst))
}

async fn ended(fleet: &Fleet, id: i64) -> Result<Run, Failure> {
    loop {
        let run = fleet.run(id)?.ok_or_else(|| Failure::new("the run was removed"))?;
        if !matches!(run.state.as_str(), "queued" | "running") {
            return Ok(run);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

pub fn edit(
    context: &Context,
    name: &str,
    initiator: Option<Initiator>,
    address: Option<String>,
    policy: Option<String>,
) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let client = fleet.require(name)?;
    if let Some(policy) = &policy {
        super::policy::require(&fleet, policy)?;
    }
    let terms = Terms {
        initiator: initiator.unwrap_or(client.initiator),
        address: address.or(client.address),
        vault: client.vault,
        policy: policy.unwrap_or(client.policy),
    };
    fleet.edit(client.id, &terms)?;
    show(context, name)
}

pub fn revoke(context: &Context, name: &str) -> Done {
    let mut fleet = ServerHome::at(&context.home).fleet()?;
    let client = fleet.require(name)?;
    fleet.revoke(client.id)?;
    match context.global.json {
        true => output::json(&json!({ "name": name, "state": "revoked" })),
        false => output::line(&format!(
            "{name} is let in no more, open sessions end within seconds; its snapshots stay"
        )),
    }
    Ok(ExitCode::SUCCESS)
}
