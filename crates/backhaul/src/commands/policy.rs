//! `policy list`, `show`, `apply`.

use std::path::Path;
use std::process::ExitCode;

use backhaul_schedule::policy::{Policies, Policy};
use backhaul_server::fleet::Fleet;
use backhaul_server::home::ServerHome;
use backhaul_server::{clock, policies};
use serde_json::{Value, json};

use super::{Context, Done};
use crate::failure::Failure;
use crate::output;

/// Refuses the name of a policy that is not in force.
pub fn require(fleet: &Fleet, name: &str) -> Result<(), Failure> {
    let known = policies::in_force(fleet)?.policies;
    if known.contains_key(name) {
        return Ok(());
    }
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    Err(Failure::usage(format!("there is no policy {name:?}")).hint(format!("there is {}", names.join(", "))))
}

fn span(seconds: i64) -> String {
    match seconds {
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3_600 == 0 => format!("{}h", s / 3_600),
        s => format!("{}m", s / 60),
    }
}

fn window(policy: &Policy) -> String {
    match &policy.window {
        None => "any time".to_owned(),
        Some(window) => {
            let zone = window.zone.iana_name().unwrap_or("local");
            format!("{}-{} {zone}", window.from.strftime("%H:%M"), window.to.strftime("%H:%M"))
        }
    }
}

fn describe(name: &str, policy: &Policy, clients: &[String]) -> Value {
    json!({
        "name": name, "period": span(policy.period), "rpo": span(policy.rpo), "spread": span(policy.spread),
        "window": window(policy), "clients": clients,
    })
}

/// The names of a policy's clients.
fn clients_of(fleet: &Fleet, policy: &str) -> Result<Vec<String>, Failure> {
    let clients = fleet.clients()?;
    Ok(clients.into_iter().filter(|client| client.policy == policy).map(|client| client.name).collect())
}

pub fn list(context: &Context) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let all = policies::in_force(&fleet)?;
    let (mut rows, mut documents) = (Vec::new(), Vec::new());
    for (name, policy) in &all.policies {
        let clients = clients_of(&fleet, name)?;
        documents.push(describe(name, policy, &clients));
        let (period, rpo) = (span(policy.period), span(policy.rpo));
        rows.push(vec![name.clone(), period, rpo, window(policy), clients.len().to_string()]);
    }
    match context.global.json {
        true => output::json(&json!({ "slots": all.slots, "policies": documents })),
        false => {
            output::table(&["POLICY", "PERIOD", "RPO", "WINDOW", "CLIENTS"], rows);
            output::line(&format!("at most {} backups at once", all.slots));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn show(context: &Context, name: &str) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    require(&fleet, name)?;
    let all = policies::in_force(&fleet)?;
    let clients = clients_of(&fleet, name)?;
    let Some(policy) = all.policies.get(name) else { return Ok(ExitCode::SUCCESS) };
    if context.global.json {
        output::json(&describe(name, policy, &clients));
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("period   {}", span(policy.period)));
    output::line(&format!("rpo      {}", span(policy.rpo)));
    output::line(&format!("spread   {}", span(policy.spread)));
    output::line(&format!("window   {}", window(policy)));
    output::line(&format!(
        "clients  {}",
        if clients.is_empty() { "-".to_owned() } else { clients.join(" ") }
    ));
    Ok(ExitCode::SUCCESS)
}

pub fn apply(context: &Context, file: &Path, dry_run: bool) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let doing = |error: String| Failure::usage(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| doing(error.to_string()))?;
    let new = policies::read(&text).map_err(|error| doing(error.to_string()))?;
    let old = policies::in_force(&fleet)?;
    let changes = changes(&fleet, &old, &new)?;
    if !dry_run {
        fleet.apply_policy(&text, clock::now())?;
    }
    if context.global.json {
        output::json(&json!({ "applied": !dry_run, "slots": new.slots, "changes": changes }));
        return Ok(ExitCode::SUCCESS);
    }
    for change in &changes {
        let clients: Vec<&str> =
            change["clients"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let clients = if clients.is_empty() { "no clients".to_owned() } else { clients.join(" ") };
        let text = |side: &str| match &change[side] {
            Value::Null => "-".to_owned(),
            policy => format!(
                "every {} within {}, late after {}",
                policy["period"], policy["window"], policy["rpo"]
            )
            .replace('"', ""),
        };
        output::line(&format!(
            "{}: {} -> {} ({clients})",
            change["policy"].as_str().unwrap_or_default(),
            text("old"),
            text("new")
        ));
    }
    if old.slots != new.slots {
        output::line(&format!("backups at once: {} -> {}", old.slots, new.slots));
    }
    output::line(match (dry_run, changes.is_empty() && old.slots == new.slots) {
        (_, true) => "nothing changes",
        (true, false) => "dry run: nothing was changed",
        (false, false) => "in force within a second; no restart is needed",
    });
    Ok(ExitCode::SUCCESS)
}

/// What differs, and for whom.
fn changes(fleet: &Fleet, old: &Policies, new: &Policies) -> Result<Vec<Value>, Failure> {
    let mut names: Vec<&String> = old.policies.keys().chain(new.policies.keys()).collect();
    names.sort();
    names.dedup();
    let mut changes = Vec::new();
    for name in names {
        let (before, after) = (old.policies.get(name), new.policies.get(name));
        if before == after {
            continue;
        }
        let clients = clients_of(fleet, name)?;
        if after.is_none() && !clients.is_empty() {
            return Err(Failure::usage(format!(
                "policy {name:?} is not in the file, but {} has it",
                clients.join(", ")
            ))
            .hint("`backhaul client edit NAME --policy ...` first"));
        }
        let side = |policy: Option<&Policy>| policy.map(|policy| describe(name, policy, &[]));
        changes.push(json!({ "policy": name, "old": side(before), "new": side(after), "clients": clients }));
    }
    Ok(changes)
}
