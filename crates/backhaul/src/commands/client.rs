//! `client add`, `replace`, `list`, `show`, `run`, `revoke`.

use std::process::ExitCode;
use std::time::Duration;

use backhaul_net::join_code::{JoinCode, Secret};
use backhaul_schedule::policy::units;
use backhaul_server::clock;
use backhaul_server::fleet::{Client, ClientState, Fleet, Initiator, LinkState, Run, RunState, Terms};
use backhaul_server::home::{MAIN_VAULT, ServerHome};
use serde_json::{Value, json};

use super::{Context, Done};
use crate::failure::{Failure, code};
use crate::output;

pub fn add(context: &Context, name: &str, terms: &Terms) -> Done {
    let home = ServerHome::at(&context.home);
    if terms.vault != MAIN_VAULT {
        return Err(Failure::usage(format!("there is no vault {:?}; there is {MAIN_VAULT:?}", terms.vault)));
    }
    let mut fleet = home.fleet()?;
    super::policy::require(&fleet, &terms.policy)?;
    let invitation = fleet.add(name, terms, clock::now())?;
    tell_code(context, &home, name, invitation, &format!("{name} is invited"))
}

/// Another machine takes a client's place.
pub fn replace(context: &Context, name: &str) -> Done {
    let home = ServerHome::at(&context.home);
    let invitation = home.fleet()?.replace(name, clock::now())?;
    let said = format!(
        "Another machine may take the place of {name}, whose own key is void from then on; that offer stands"
    );
    tell_code(context, &home, name, invitation, &said)
}

fn tell_code(
    context: &Context,
    home: &ServerHome,
    name: &str,
    (secret, expires_at): (Secret, u64),
    said: &str,
) -> Done {
    let (pin, addresses) = (home.authority()?.pin(), home.config()?.addresses());
    let join_code = JoinCode { expires_at, pin, secret, client: name.to_owned(), addresses }.to_string();
    if context.global.json {
        output::json(&json!({
            "name": name, "join_code": join_code, "expires_at": output::rfc3339(expires_at),
        }));
    } else {
        output::line(&format!("{said} until {}. On it, run:", output::time(expires_at)));
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
            "state": run.state.as_str(), "errors": run.errors, "why": run.why,
            "snapshot": run.snapshot.map(|id| id.to_string()),
        })
    });
    json!({
        "name": client.name, "id": client.id.to_string(), "initiator": client.initiator.as_str(),
        "address": client.address, "vault": client.vault, "policy": client.policy, "state": client.state.as_str(),
        "owner": client.owner,
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
    let client = fleet.require(name)?;
    let last = fleet.last_run(client.id)?;
    let mut document = describe(&client, last.as_ref());
    if context.global.json {
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    document["added_at"] = output::time(client.added_at).into();
    document["seen_at"] = client.seen_at.map(output::time).into();
    document["last_run"] = last.map(|run| format!("{}: {}", run.state.as_str(), words(&run))).into();
    document["state"] = paused(&client).unwrap_or_else(|| client.state.as_str().to_owned()).into();
    for (key, value) in document.as_object().into_iter().flatten() {
        let text = match value {
            Value::Null => "-".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        output::line(&format!("{:<12}{text}", key.replace('_', " ")));
    }
    Ok(ExitCode::SUCCESS)
}

/// The fleet of a server that is running: nobody else would do anything about what is asked here.
fn running(context: &Context) -> Result<Fleet, Failure> {
    let home = ServerHome::at(&context.home);
    let fleet = home.fleet()?;
    match home.lock() {
        Ok(_) => Err(Failure::new("the server is not running, so nobody would dial")
            .hint("start it: backhaul server run")),
        Err(_) => Ok(fleet),
    }
}

pub async fn run(context: &Context, names: &[String], wait: bool) -> Done {
    let fleet = running(context)?;
    let clients: Result<Vec<Client>, _> = names.iter().map(|name| fleet.require(name)).collect();
    let mut queued = Vec::new();
    for client in clients? {
        queued.push((fleet.queue_run(client.id, clock::now())?, client));
    }
    for (_, client) in &queued {
        let away = client.shown.link == LinkState::None;
        if away && client.address.is_none() && client.reported.is_none() && !context.global.quiet {
            output::complain(&format!("{} is not here: its run begins when it comes", client.name));
        }
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
        worst = worst.max(match ended.state {
            RunState::Done => 0,
            RunState::Partial => code::PARTIAL,
            _ => code::FAILED,
        });
        match context.global.json {
            true => documents.push(document(&client.name, &ended)),
            false => output::line(&format!("{}: {}: {}", client.name, ended.state.as_str(), words(&ended))),
        }
    }
    if context.global.json {
        output::json(&documents);
    }
    Ok(ExitCode::from(worst))
}

fn document(client: &str, run: &Run) -> Value {
    json!({
        "client": client, "state": run.state.as_str(), "snapshot": run.snapshot.map(|id| id.to_string()),
        "errors": run.errors, "why": run.why,
    })
}

/// What a run came to, in words.
pub fn words(run: &Run) -> String {
    match (&run.why, run.snapshot.map(|id| id.to_string())) {
        (Some(why), _) => why.clone(),
        (None, Some(id)) if run.errors > 0 => {
            format!("snapshot {}, {}", &id[..12], not_read(run.errors))
        }
        (None, Some(id)) => format!("snapshot {}", &id[..12]),
        (None, None) => String::new(),
    }
}

/// That no automatic runs are wanted of a client, and until when.
pub fn paused(client: &Client) -> Option<String> {
    let until = client.paused_until.filter(|until| *until > clock::now() as i64)?;
    Some(match until {
        i64::MAX => "paused on the server until it is resumed".to_owned(),
        until => format!("paused on the server until {}", output::time(until)),
    })
}

/// How many files were not read, in words.
pub fn not_read(errors: u64) -> String {
    if errors == 1 { "1 file not read".to_owned() } else { format!("{errors} files not read") }
}

async fn ended(fleet: &Fleet, id: i64) -> Result<Run, Failure> {
    loop {
        let run = fleet.run(id)?.ok_or_else(|| Failure::new("the run was removed"))?;
        if run.state.is_over() {
            return Ok(run);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub fn nudge(context: &Context, name: &str) -> Done {
    let fleet = running(context)?;
    let client = fleet.require(name)?;
    if client.state != ClientState::Active {
        return Err(Failure::new(format!("client {name:?} is {}: nobody would hear", client.state.as_str()))
            .hint("`backhaul client add` makes a join code for it"));
    }
    fleet.want_nudge(client.id)?;
    let linked = client.shown.link == LinkState::Standing;
    let there = linked || client.address.or(client.reported).is_some();
    let said = match (linked, there) {
        (true, _) => "nudged",
        (false, true) => "dialled, and nudged if it answers",
        (false, false) => "not here: it is nudged when it comes",
    };
    match context.global.json {
        true => output::json(&json!({ "client": name, "here": there })),
        false => output::line(&format!("{name}: {said}")),
    }
    Ok(ExitCode::SUCCESS)
}

/// No automatic runs for a time, or until somebody resumes.
pub fn pause(context: &Context, name: &str, time: Option<&str>) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let client = fleet.require(name)?;
    let until = pause_end(time)?;
    fleet.pause(client.id, Some(until))?;
    tell_pause(context, name, Some(until));
    Ok(ExitCode::SUCCESS)
}

pub fn resume(context: &Context, name: &str) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    fleet.pause(fleet.require(name)?.id, None)?;
    tell_pause(context, name, None);
    Ok(ExitCode::SUCCESS)
}

/// The end of a pause that begins now, seconds since 1970.
pub fn pause_end(time: Option<&str>) -> Result<i64, Failure> {
    let Some(text) = time else { return Ok(i64::MAX) };
    let seconds = units::duration(text);
    let seconds = seconds.ok_or_else(|| Failure::usage(format!("--for {text:?}: say 30m, 4h or 2d")))?;
    Ok(clock::now() as i64 + seconds)
}

/// Says until when somebody is paused.
pub fn tell_pause(context: &Context, name: &str, until: Option<i64>) {
    let end = until.filter(|until| *until < i64::MAX);
    if context.global.json {
        output::json(
            &json!({ "client": name, "paused": until.is_some(), "until": end.map(output::rfc3339) }),
        );
        return;
    }
    output::line(&match (until, end) {
        (None, _) => format!("{name}: goes on"),
        (Some(_), Some(end)) => format!("{name}: no automatic backups until {}", output::time(end)),
        (Some(_), None) => format!("{name}: no automatic backups until it is resumed"),
    });
}

pub fn edit(
    context: &Context,
    name: &str,
    initiator: Option<Initiator>,
    address: Option<String>,
    policy: Option<String>,
    owner: Option<String>,
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
        owner: owner.or(client.owner).filter(|owner| !owner.is_empty()),
    };
    fleet.edit(client.id, &terms)?;
    show(context, name)
}

pub fn revoke(context: &Context, name: &str) -> Done {
    let mut fleet = ServerHome::at(&context.home).fleet()?;
    let client = fleet.require(name)?;
    fleet.revoke(client.id, clock::now())?;
    match context.global.json {
        true => output::json(&json!({ "name": name, "state": "revoked" })),
        false => output::line(&format!(
            "{name} is let in no more, open sessions end within seconds; its snapshots stay"
        )),
    }
    Ok(ExitCode::SUCCESS)
}
