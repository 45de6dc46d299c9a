//! `policy list`, `show`, `apply`.

use std::path::Path;
use std::process::ExitCode;

use backhaul_schedule::fleet::Memory;
use backhaul_schedule::policy::lint::{Member, lint};
use backhaul_schedule::policy::{Initiator, Policies, Policy, units};
use backhaul_schedule::retention::{Keep, Rules};
use backhaul_schedule::rollout::{Rollout, State};
use backhaul_server::fleet::{Client, Fleet};
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

fn window(policy: &Policy) -> String {
    match &policy.window {
        None => "any time".to_owned(),
        Some(window) => {
            let zone = if window.of_client { "client" } else { window.zone.iana_name().unwrap_or("local") };
            format!("{}-{} {zone}", window.from.strftime("%H:%M"), window.to.strftime("%H:%M"))
        }
    }
}

fn describe(name: &str, policy: &Policy, clients: &[String]) -> Value {
    let agent = &policy.agent;
    json!({
        "name": name, "initiator": policy.initiator.map(Initiator::as_str),
        "period": units::seconds(policy.period), "rpo": units::seconds(policy.rpo),
        "spread": units::seconds(policy.spread), "window": window(policy), "priority": policy.priority,
        "alert_after": units::seconds(policy.alert_after),
        "gates": {
            "battery_min": agent.battery_min, "battery_min_late": agent.battery_min_late,
            "metered": agent.metered, "metered_cap": agent.metered_cap,
        },
        "checkin": {
            "safety_net": units::seconds(agent.safety_net), "when_late": units::seconds(agent.when_late),
            "join_jitter": units::seconds(agent.join_jitter),
        },
        "standing": { "keepalive": agent.keepalive.map(units::seconds), "on_battery": agent.on_battery },
        "limit_upload": agent.limit_upload, "yields": agent.yields, "keep": keep(&policy.keep),
        "clients": clients,
    })
}

fn keep(keep: &Keep) -> Value {
    let zone = if keep.of_client { "client" } else { keep.zone.iana_name().unwrap_or("local") };
    let mut document = match &keep.rules {
        Rules::Forever => json!({ "forever": true }),
        Rules::Some { last, periods, within, tags } => {
            let mut counts = json!({ "last": last, "within": within.map(units::seconds), "tags": tags });
            for (unit, count) in periods {
                counts[unit.rule()] = json!(count);
            }
            counts
        }
    };
    (document["grace"], document["tz"]) = (json!(units::seconds(keep.grace)), json!(zone));
    document
}

/// Lines of a document, `gates.battery_min` for what lies deeper.
fn flat(prefix: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flat(&name, value, lines);
            }
        }
        Value::Null => lines.push((prefix.to_owned(), "-".to_owned())),
        Value::String(text) => lines.push((prefix.to_owned(), text.clone())),
        Value::Array(items) => {
            let words: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            lines.push((prefix.to_owned(), if words.is_empty() { "-".to_owned() } else { words.join(" ") }));
        }
        other => lines.push((prefix.to_owned(), other.to_string())),
    }
}

fn lines(value: &Value) -> Vec<(String, String)> {
    let mut all = Vec::new();
    flat("", value, &mut all);
    all
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
    let newest = fleet.newest_version()?;
    let version = newest.as_ref().map_or(0, |version| version.number);
    // The first version is in force at once.
    let spreads = all.rollout.is_some() && version > 1;
    let rollout = newest
        .and_then(|version| serde_json::from_str::<Rollout>(&version.rollout?).ok())
        .map(|rollout| rollout.waiting(clock::now() as i64))
        .or_else(|| spreads.then(|| "about to spread: a running server begins within a second".to_owned()));
    for (name, policy) in &all.policies {
        let clients = clients_of(&fleet, name)?;
        documents.push(describe(name, policy, &clients));
        let (period, rpo) = (units::seconds(policy.period), units::seconds(policy.rpo));
        rows.push(vec![name.clone(), period, rpo, window(policy), clients.len().to_string()]);
    }
    match context.global.json {
        true => output::json(&json!({
            "slots": all.admission.slots, "version": version, "rollout": rollout, "policies": documents,
        })),
        false => {
            output::table(&["POLICY", "PERIOD", "RPO", "WINDOW", "CLIENTS"], rows);
            output::line(&format!("at most {} backups at once", all.admission.slots));
            if let Some(text) = &rollout {
                output::line(&format!("version {version}: {text}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// One policy, or all of them.
pub fn show(context: &Context, name: Option<&str>) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    if let Some(name) = name {
        require(&fleet, name)?;
    }
    let mut documents = Vec::new();
    for (known, policy) in &policies::in_force(&fleet)?.policies {
        if name.is_none_or(|name| name == known) {
            documents.push(describe(known, policy, &clients_of(&fleet, known)?));
        }
    }
    if context.global.json {
        match (name, documents.first()) {
            (Some(_), Some(one)) => output::json(one),
            _ => output::json(&documents),
        }
        return Ok(ExitCode::SUCCESS);
    }
    for (n, document) in documents.iter().enumerate() {
        if n > 0 {
            output::line("");
        }
        for (key, text) in readable(document) {
            output::line(&format!("{key:<24}{text}"));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Its lines for people: the name first, bytes with their unit.
fn readable(document: &Value) -> Vec<(String, String)> {
    let mut document = document.clone();
    for (at, per) in [("/gates/metered_cap", ""), ("/limit_upload", " a second")] {
        if let Some(field) = document.pointer_mut(at)
            && let Some(count) = field.as_u64()
        {
            *field = format!("{}{per}", output::bytes(count)).into();
        }
    }
    let mut lines = lines(&document);
    lines.sort_by_key(|(key, _)| key != "name");
    lines
}

/// Lets a version that was halted go on.
pub fn resume(context: &Context) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let none =
        || Failure::new("no policy file was applied yet").hint("`backhaul policy apply FILE` applies one");
    let newest = fleet.newest_version()?.ok_or_else(none)?;
    let rollout = newest.rollout.as_ref().and_then(|text| serde_json::from_str::<Rollout>(text).ok());
    let halted = rollout.is_some_and(|rollout| matches!(rollout.state(), State::Halted(_)));
    if !halted {
        return Err(Failure::new(format!(
            "version {} was not halted: there is nothing to resume",
            newest.number
        ))
        .hint("`backhaul policy list` says where it is"));
    }
    fleet.want_resume(newest.number)?;
    output::complain(&format!("version {} goes on within a second", newest.number));
    Ok(ExitCode::SUCCESS)
}

pub fn apply(context: &Context, file: &Path, dry_run: bool) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let doing = |error: String| Failure::usage(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| doing(error.to_string()))?;
    let new = policies::read(&text).map_err(|error| doing(error.to_string()))?;
    let old = policies::in_force(&fleet)?;
    let changes = changes(&fleet, &old, &new)?;
    let warnings = warnings(&fleet, &new)?;
    let version = if dry_run { None } else { Some(fleet.apply_policy(&text, clock::now())?) };
    if context.global.json {
        let document = json!({
            "applied": !dry_run, "version": version, "slots": new.admission.slots, "changes": changes,
            "warnings": warnings,
        });
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    changes.iter().for_each(show_change);
    let bounds = old.admission != new.admission;
    if bounds {
        output::line(&format!("backups at once: {} -> {}", old.admission.slots, new.admission.slots));
    }
    for warning in &warnings {
        output::complain(&format!("warning: {warning}"));
    }
    output::line(&match (version, &new.rollout) {
        _ if changes.is_empty() && !bounds => "nothing changes".to_owned(),
        (None, _) => "dry run: nothing was changed".to_owned(),
        (Some(1), Some(_)) => {
            "version 1 is the first: it is in force at once, the next ones spread in waves".to_owned()
        }
        (Some(version), None) => {
            format!("version {version} is in force within a second; no restart is needed")
        }
        (Some(version), Some(_)) => {
            format!("version {version} spreads in waves; `backhaul policy list` shows how far")
        }
    });
    Ok(ExitCode::SUCCESS)
}

fn show_change(change: &Value) {
    let clients: Vec<&str> =
        change["clients"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let clients = if clients.is_empty() { "no clients".to_owned() } else { clients.join(" ") };
    let short = |side: &Value| match side {
        Value::Null => None,
        policy => {
            let when = if policy["window"] == "any time" { "at" } else { "within" };
            let (period, window, rpo) = (&policy["period"], &policy["window"], &policy["rpo"]);
            Some(format!("every {period} {when} {window}, late after {rpo}").replace('"', ""))
        }
    };
    let (old, new) = (&change["old"], &change["new"]);
    let name = change["policy"].as_str().unwrap_or_default();
    output::line(&match (short(old), short(new)) {
        (Some(old), Some(new)) => format!("{name}: {old} -> {new} ({clients})"),
        (None, new) => format!("{name}: new, {} ({clients})", new.unwrap_or_default()),
        (Some(old), None) => format!("{name}: removed; was {old} ({clients})"),
    });
    if old.is_null() || new.is_null() {
        return;
    }
    for ((key, before), (_, after)) in lines(old).into_iter().zip(lines(new)) {
        if before != after {
            output::line(&format!("  {key}: {before} -> {after}"));
        }
    }
}

/// What the file says that cannot work out.
fn warnings(fleet: &Fleet, new: &Policies) -> Result<Vec<String>, Failure> {
    let member = |client: &Client| -> Result<Member, Failure> {
        let memory = fleet.memory(client.id)?.and_then(|text| serde_json::from_str::<Memory>(&text).ok());
        Ok(Member {
            policy: client.policy.clone(),
            group: policies::group(new, client),
            vault: client.vault.clone(),
            duration: memory.and_then(|memory| memory.reach.duration()),
        })
    };
    let members: Result<Vec<Member>, Failure> = fleet.clients()?.iter().map(member).collect();
    Ok(lint(new, &members?))
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
