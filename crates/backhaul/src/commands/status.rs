//! `status`, `stats`.

use std::process::ExitCode;

use backhaul_schedule::due::Health;
use backhaul_schedule::fleet::Obstacle;
use backhaul_schedule::policy::{Initiator, Policies};
use backhaul_server::fleet::{Client, ClientState, LinkState, Run, RunState};
use backhaul_server::home::ServerHome;
use backhaul_server::protection::newest_at_rest;
use backhaul_server::{clock, policies};
use backhaul_store::catalog::Catalog;
use serde_json::{Value, json};

use super::client::{not_read, paused};
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
        let reader = Reader::open(&context.home, None, &context.ways).await?;
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

struct Line {
    client: Client,
    /// Of the policies that it is planned by; its agent may not have them yet.
    version: u64,
    newest: Option<u64>,
    health: Health,
    initiator: String,
    obstacle: Obstacle,
    why: String,
    brake: Option<String>,
}

pub fn status(context: &Context, check: bool) -> Done {
    let home = ServerHome::at(&context.home);
    let (fleet, now) = (home.fleet()?, clock::now());
    let newest = newest_at_rest(&home)?;
    let mut lines = Vec::new();
    let versions = policies::versions(&fleet, now as i64)?;
    // The server has the lock while it runs; what it shows is true only then.
    let running = home.lock().is_err();
    for mut client in fleet.clients()? {
        if !running {
            client.shown.link = LinkState::None;
        }
        let last = fleet.last_run(client.id)?;
        let at = newest.get(&client.id).copied();
        let brake = fleet.brake(client.id)?.map(|brake| brake.why);
        lines.push(Line { brake, ..judge(versions.of(client.id), at, client, last, now, running) });
    }
    let troubles = fleet.upkeep()?;
    if context.global.json {
        output::json(&lines.iter().map(|line| describe(line, now)).collect::<Vec<_>>());
    } else {
        show(&lines, now);
        for line in &lines {
            if let Some(why) = &line.brake {
                let name = &line.client.name;
                output::complain(&format!(
                    "{name}: nothing is forgotten or reclaimed, the brake holds: {why}"
                ));
            }
        }
        for one in &troubles {
            let (what, since) = (&one.what, output::time(one.since));
            output::complain(&format!("upkeep: {what} fails since {since}: {}", one.why));
        }
        if !running {
            output::complain("the server is not running: nothing is started, and links are not known");
        }
    }
    let counted = lines.iter().filter(|line| line.client.state != ClientState::Revoked);
    let worst = |line: &Line| match (line.newest, line.health) {
        (None, _) => 2,
        (_, Health::Protected | Health::Due) => 0,
        (_, Health::Late) => 1,
        (_, Health::Critical | Health::Lost) => 2,
    };
    let upkeep = u8::from(!troubles.is_empty());
    let exit = if check { counted.map(worst).max().unwrap_or(0).max(upkeep) } else { 0 };
    Ok(ExitCode::from(exit))
}

fn judge(
    (version, policies): (u64, &Policies),
    newest: Option<u64>,
    client: Client,
    last: Option<Run>,
    now: u64,
    running: bool,
) -> Line {
    let health = policies::judge(&policies::policy_of(policies, &client), &client, newest, now);
    let shown = &client.shown;
    let failed = last.as_ref().filter(|run| run.state == RunState::Failed);
    let idle = shown.link != LinkState::Push && shown.link != LinkState::Dial;
    let paused = paused(&client).filter(|_| idle);
    // Somebody asks for a run of one that has its snapshot: it may be away.
    let is_asked_for = running && shown.next_at.is_some_and(|at| at <= now as i64);
    let (obstacle, why) = match (client.state, failed) {
        (ClientState::Invited, _) => (Obstacle::Absent, "has not joined yet".to_owned()),
        (ClientState::Revoked, _) => (Obstacle::Gated, "revoked".to_owned()),
        _ if paused.is_some() && health == Health::Protected => (Obstacle::None, paused.unwrap_or_default()),
        _ if paused.is_some() => (Obstacle::Gated, paused.unwrap_or_default()),
        (_, Some(run)) if idle && shown.obstacle != Obstacle::Gated => {
            (Obstacle::Failing, format!("failing: {}", run.why.clone().unwrap_or_default()))
        }
        _ if health == Health::Protected && idle && !is_asked_for => {
            match last.filter(|run| run.errors > 0) {
                Some(run) => (Obstacle::None, not_read(run.errors)),
                None => (Obstacle::None, String::new()),
            }
        }
        _ if running && shown.why.is_empty() => (Obstacle::Waiting, "joined a moment ago".to_owned()),
        _ if running => (shown.obstacle, shown.why.clone()),
        _ => (Obstacle::Waiting, "the server is not running".to_owned()),
    };
    let initiator = match client.initiator {
        Initiator::Auto if !shown.mode.is_empty() => format!("auto ({})", shown.mode),
        fixed => fixed.as_str().to_owned(),
    };
    Line { version, initiator, health, newest, obstacle, why, client, brake: None }
}

fn describe(line: &Line, now: u64) -> Value {
    json!({
        "client": line.client.name, "initiator": line.client.initiator.as_str(),
        "mode": line.client.shown.mode, "link": line.client.shown.link.as_str(),
        "address": line.client.address, "seen": line.client.seen_at.map(output::rfc3339),
        "protected_s": line.newest.map(|at| now.saturating_sub(at)),
        "next": line.client.shown.next_at.map(output::rfc3339), "state": line.health.as_str(),
        "obstacle": line.obstacle.as_str(), "why": line.why, "policy": line.client.policy,
        "policy_version": line.version, "terms_version": line.client.terms_version,
        "brake": line.brake,
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
    let next =
        |line: &Line| match line.client.shown.next_at.filter(|_| line.client.state == ClientState::Active) {
            None => "-".to_owned(),
            Some(at) if at <= now as i64 => "now".to_owned(),
            Some(at) => output::time(at),
        };
    let link = |line: &Line| match line.client.shown.link {
        LinkState::None => "-".to_owned(),
        link => link.as_str().to_owned(),
    };
    // While a version spreads, or an agent has not heard of it.
    let policy = |line: &Line| match line.client.terms_version {
        0 => line.client.policy.clone(),
        has if has == line.version => format!("{} v{has}", line.client.policy),
        has => format!("{} v{has} (soon v{})", line.client.policy, line.version),
    };
    // What has no snapshot is not late yet, and by no means protected.
    let state = |line: &Line| match (line.newest, line.health) {
        (None, Health::Protected) => "new".to_owned(),
        (_, health) => health.as_str().to_owned(),
    };
    let rows = lines.iter().map(|line| {
        vec![
            line.client.name.clone(),
            line.initiator.clone(),
            policy(line),
            link(line),
            // Whoever is linked says nothing while nothing is new.
            if line.client.shown.link == LinkState::None {
                age(line.client.seen_at, now)
            } else {
                "now".to_owned()
            },
            age(line.newest, now),
            next(line),
            state(line),
            line.why.clone(),
        ]
    });
    output::table(
        &["CLIENT", "INITIATOR", "POLICY", "LINK", "SEEN", "PROTECTED", "NEXT", "STATE", "WHY"],
        rows.collect(),
    );
}
