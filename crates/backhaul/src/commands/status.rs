//! `status`, `stats`.

use std::collections::HashMap;
use std::process::ExitCode;

use backhaul_object::ids::ClientId;
use backhaul_schedule::due::Standing;
use backhaul_schedule::policy::Policies;
use backhaul_server::fleet::{Client, ClientState, Run};
use backhaul_server::home::ServerHome;
use backhaul_server::{clock, policies};
use backhaul_store::catalog::Catalog;
use serde_json::{Value, json};

use super::{Context, Done};
use crate::output;
use crate::reader::Reader;

pub async fn stats(context: &Context) -> Done {
    let home = ServerHome::at(&context.home);
    let (objects, packs, bytes, snapshots) = if home.exists() {
        let catalog = Catalog::look(&home.vault_dir())?;
        let packs = catalog.packs()?;
        let sum = |of: fn(&backhaul_store::catalog::PackRow) -> u64| packs.iter().map(of).sum::<u64>();
        (sum(|p| p.objects), packs.len() as u64, sum(|p| p.bytes), catalog.snapshots()?.len() as u64)
    } else {
        let reader = Reader::open(&context.home, None).await?;
        let stats = tokio::task::block_in_place(|| reader.remote.stats());
        reader.close().await;
        let stats = stats?;
        (stats.objects, stats.packs, stats.bytes_on_disk, stats.snapshots)
    };
    if context.global.json {
        output::json(&json!({
            "objects": objects, "packs": packs, "bytes_on_disk": bytes, "snapshots": snapshots,
        }));
    } else {
        output::line(&format!("snapshots  {snapshots}"));
        output::line(&format!("objects    {objects}"));
        output::line(&format!("packs      {packs}"));
        output::line(&format!("on disk    {}", output::bytes(bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

/// How well a client is protected.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Protection {
    Protected,
    /// Its snapshot is older than a period, and not yet too old.
    Due,
    Late,
    /// There is no snapshot at all.
    None,
}

struct Line {
    client: Client,
    newest: Option<u64>,
    next: Option<i64>,
    protection: Protection,
    why: String,
}

pub fn status(context: &Context, check: bool) -> Done {
    let home = ServerHome::at(&context.home);
    let (fleet, now) = (home.fleet()?, clock::now());
    let mut newest: HashMap<ClientId, u64> = HashMap::new();
    for row in Catalog::look(&home.vault_dir())?.snapshots()? {
        let at = newest.entry(row.client).or_default();
        *at = row.server_time.max(*at);
    }
    let mut lines = Vec::new();
    let policies = policies::in_force(&fleet)?;
    for client in fleet.clients()? {
        let last = fleet.last_run(client.id)?;
        lines.push(judge(&policies, newest.get(&client.id).copied(), client, last, now));
    }
    if context.global.json {
        output::json(&lines.iter().map(|line| describe(line, now)).collect::<Vec<_>>());
    } else {
        show(&lines, now);
    }
    let counted = lines.iter().filter(|line| line.client.state != ClientState::Revoked);
    let exit = match counted.map(|line| line.protection).max() {
        _ if !check => 0,
        None | Some(Protection::Protected | Protection::Due) => 0,
        Some(Protection::Late) => 1,
        Some(Protection::None) => 2,
    };
    Ok(ExitCode::from(exit))
}

fn judge(policies: &Policies, newest: Option<u64>, client: Client, last: Option<Run>, now: u64) -> Line {
    let standing = policies::judge(policies, &client, newest, now);
    let protection = match (newest, standing) {
        (None, _) => Protection::None,
        (_, Some(Standing::Late)) => Protection::Late,
        (_, Some(Standing::Due | Standing::Waiting { .. })) => Protection::Due,
        _ => Protection::Protected,
    };
    let next = match standing {
        Some(Standing::Protected { next } | Standing::Waiting { next }) => Some(next),
        Some(Standing::Due | Standing::Late) => Some(now as i64),
        None => None,
    };
    let why = match (client.state, last) {
        (ClientState::Invited, _) => "has not joined yet".to_owned(),
        (ClientState::Revoked, _) => "revoked".to_owned(),
        (_, Some(run)) if run.state == "failed" => format!("failing: {}", run.why.unwrap_or_default()),
        (_, Some(run)) if run.errors > 0 => format!("{} files not read", run.errors),
        _ if protection == Protection::Protected => String::new(),
        (_, None) if client.why.is_empty() => "no backup yet".to_owned(),
        _ => client.why.clone(),
    };
    Line { client, newest, next, protection, why }
}

fn word(protection: Protection) -> &'static str {
    match protection {
        Protection::Protected => "protected",
        Protection::Due => "due",
        Protection::Late => "late",
        Protection::None => "none",
    }
}

fn describe(line: &Line, now: u64) -> Value {
    json!({
        "client": line.client.name, "initiator": line.client.initiator.as_str(),
        "link": line.client.address, "seen": line.client.seen_at.map(output::rfc3339),
        "protected_s": line.newest.map(|at| now.saturating_sub(at)),
        "next": line.next.map(output::rfc3339), "state": word(line.protection), "why": line.why,
    })
}

fn age(from: Option<u64>, now: u64) -> String {
    let Some(seconds) = from.map(|at| now.saturating_sub(at)) else { return "never".to_owned() };
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn show(lines: &[Line], now: u64) {
    let rows = lines.iter().map(|line| {
        vec![
            line.client.name.clone(),
            line.client.initiator.as_str().to_owned(),
            line.client.address.clone().unwrap_or_else(|| "-".to_owned()),
            age(line.client.seen_at, now),
            age(line.newest, now),
            line.next
                .filter(|_| line.client.state == ClientState::Active)
                .map_or_else(|| "-".to_owned(), output::time),
            word(line.protection).to_owned(),
            line.why.clone(),
        ]
    });
    output::table(
        &["CLIENT", "INITIATOR", "LINK", "SEEN", "PROTECTED", "NEXT", "STATE", "WHY"],
        rows.collect(),
    );
}
