//! `alerts`, `alerts test`.

use std::process::ExitCode;

use backhaul_server::alerts::What;
use backhaul_server::alerts::message;
use backhaul_server::alerts::post::{Post, Stamp};
use backhaul_server::clock;
use backhaul_server::fleet::{AlertRow, Delivery, DeliveryState, Which};
use backhaul_server::home::ServerHome;
use serde_json::{Value, json};

use super::{Context, Done};
use crate::failure::{Failure, code};
use crate::output;

/// So many are shown; older ones stay in the database.
const SHOWN: usize = 1_000;

pub fn list(context: &Context, all: bool) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let mut alerts = Vec::new();
    for row in fleet.alerts(if all { Which::All } else { Which::Open }, SHOWN)? {
        let deliveries = fleet.deliveries(row.id)?;
        alerts.push((row, deliveries));
    }
    if context.global.json {
        let documents: Vec<Value> =
            alerts.iter().map(|(row, deliveries)| describe(row, deliveries)).collect();
        output::json(&documents);
        return Ok(ExitCode::SUCCESS);
    }
    if alerts.is_empty() {
        output::complain(if all { "there never was an alert" } else { "no alert is open" });
        return Ok(ExitCode::SUCCESS);
    }
    let rows = alerts.iter().map(|(row, deliveries)| {
        let text = match (&row.cleared_at, row.alert.obstacle.as_str()) {
            (Some(at), _) => format!("{} (over since {})", row.alert.text, output::time(*at)),
            (None, "") => row.alert.text.clone(),
            (None, obstacle) => format!("{}: {obstacle}", row.alert.text),
        };
        let about = row.client.clone().or_else(|| row.alert.group.clone());
        vec![
            output::time(row.raised_at),
            row.alert.kind.to_string(),
            about.unwrap_or_else(|| "-".to_owned()),
            text,
            delivered(row, deliveries),
        ]
    });
    output::table(&["SINCE", "KIND", "CLIENT/GROUP", "TEXT", "DELIVERED"], rows.collect());
    Ok(ExitCode::SUCCESS)
}

/// How the newest message about an alert fares.
fn delivered(row: &AlertRow, deliveries: &[Delivery]) -> String {
    if row.announce.is_some() {
        return "not yet".to_owned();
    }
    let Some(what) = deliveries.last().map(|newest| newest.what) else { return "nobody to tell".to_owned() };
    // Reminders of the same kind are of one moment when they were made together.
    let at = deliveries.last().map(|newest| newest.created_at);
    let newest = deliveries.iter().filter(|one| one.what == what && Some(one.created_at) == at);
    let newest: Vec<&Delivery> = newest.collect();
    let count = |state| newest.iter().filter(|one| one.state == state).count();
    let (all, sent) = (newest.len(), count(DeliveryState::Sent));
    let trouble = newest.iter().find_map(|one| one.error.as_ref().map(|why| (one, why)));
    let told = match what {
        What::Raised => String::new(),
        What::Reminder | What::Cleared => format!("{} ", what.as_str()),
    };
    match trouble {
        _ if sent == all => format!("{told}yes ({all})"),
        None => format!("{told}{sent} of {all}"),
        Some((one, why)) => {
            let state = if one.state == DeliveryState::Failed { "gave up on" } else { "trying" };
            format!("{told}{sent} of {all}; {state} {}: {why}", one.route.recipient)
        }
    }
}

fn describe(row: &AlertRow, deliveries: &[Delivery]) -> Value {
    let deliveries: Vec<Value> = deliveries
        .iter()
        .map(|one| {
            let pending = one.state == DeliveryState::Pending;
            json!({
                "channel": one.route.channel.as_str(), "recipient": one.route.recipient,
                "what": one.what.as_str(), "state": one.state.as_str(), "tries": one.tries,
                "next_try_at": pending.then(|| output::rfc3339(one.next_try_at)), "error": one.error,
            })
        })
        .collect();
    json!({
        "id": row.id, "kind": row.alert.kind.as_str(), "client": row.client, "group": row.alert.group,
        "raised_at": output::rfc3339(row.raised_at), "cleared_at": row.cleared_at.map(output::rfc3339),
        "text": row.alert.text, "obstacle": row.alert.obstacle, "deliveries": deliveries,
    })
}

pub async fn test(context: &Context) -> Done {
    let home = ServerHome::at(&context.home);
    let config = home.config()?;
    let server = config.names.first().cloned().unwrap_or_else(super::server::host_name);
    let (post, now) = (Post::new(config.alerts, server), clock::now());
    let routes = post.operators();
    if routes.is_empty() {
        let config = home.dir().join("config.toml");
        return Err(Failure::new("nobody is told of alerts: no channel is configured")
            .hint(format!("[alerts] in {} says how: mail, webhook or command", config.display())));
    }
    let message = message::test(post.server(), now);
    let (mut worst, mut documents) = (0, Vec::new());
    for (serial, route) in routes.iter().enumerate() {
        let stamp = Stamp { thread: format!("test.{now}"), serial: serial.to_string(), now };
        let result = post.send(route, &message, &stamp).await;
        let (ok, answer) = match result {
            Ok(answer) => (true, answer),
            Err(error) => (false, error.to_string()),
        };
        worst = if ok { worst } else { code::FAILED };
        let channel = route.channel.as_str();
        if context.global.json {
            documents.push(json!({
                "channel": channel, "recipient": route.recipient, "ok": ok, "answer": answer,
            }));
        } else {
            let verdict = if ok { "ok" } else { "FAILED" };
            output::line(&format!("{channel} {}: {verdict}: {answer}", route.recipient));
        }
    }
    if context.global.json {
        output::json(&documents);
    }
    Ok(ExitCode::from(worst))
}
