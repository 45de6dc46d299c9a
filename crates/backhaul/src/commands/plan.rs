//! `plan`: what will start when, and why; `explain`: who should start a client, and why.

use std::collections::HashMap;
use std::process::ExitCode;

use backhaul_object::ids::ClientId;
use backhaul_schedule::Now;
use backhaul_schedule::fleet::{Class, Fleet as Schedule, Memory};
use backhaul_schedule::forecast::{Planned, Start, forecast};
use backhaul_schedule::policy::{Initiator, units};
use backhaul_server::dispatch::{Shows, rebuilt};
use backhaul_server::fleet::Client;
use backhaul_server::home::ServerHome;
use backhaul_server::policies;
use backhaul_server::protection::newest_at_rest;
use serde_json::{Value, json};

use super::client::paused;
use super::{Context, Done};
use crate::failure::Failure;
use crate::output;

/// The scheduler as it stands, for looking ahead.
struct Ahead {
    schedule: Schedule,
    now: Now,
    names: HashMap<ClientId, String>,
    shows: Shows,
}

/// The server has the lock while it runs.
fn shows(home: &ServerHome) -> Shows {
    if home.lock().is_err() { Shows::Truth } else { Shows::Past }
}

fn ahead(home: &ServerHome) -> Result<Ahead, Failure> {
    let newest = newest_at_rest(home)?;
    let shows = shows(home);
    let newest = |client| newest.get(&client).copied();
    let (schedule, now, clients) = rebuilt(&home.fleet()?, &newest, shows)?;
    let names = clients.iter().map(|client| (client.id, client.name.clone())).collect();
    Ok(Ahead { schedule, now, names, shows })
}

pub fn plan(context: &Context, until: Option<&str>) -> Done {
    let home = ServerHome::at(&context.home);
    let Ahead { schedule, now, names, shows } = ahead(&home)?;
    let end = end(until.unwrap_or("24h"), now.wall)?;
    let planned = forecast(&schedule, now, end);
    if context.global.json {
        output::json(&planned.iter().map(|planned| document(planned, &names)).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    let row = |planned: &Planned| {
        vec![
            if planned.at <= now.wall { "now".to_owned() } else { output::time(planned.at) },
            names.get(&ClientId(planned.client)).cloned().unwrap_or_default(),
            word(planned.start).to_owned(),
            units::about(planned.until - planned.at),
            class(planned.class).to_owned(),
        ]
    };
    if planned.is_empty() {
        output::line(&format!("nothing starts until {}", output::time(end)));
    } else {
        output::table(&["START", "CLIENT", "HOW", "ABOUT", "WHY"], planned.iter().map(row).collect());
        let runs = output::count(planned.len() as u64, "run");
        output::line(&format!("{runs} until {}, if dials are answered", output::time(end)));
    }
    if shows == Shows::Past {
        output::complain("the server is not running: nothing of this begins before it does");
    }
    Ok(ExitCode::SUCCESS)
}

/// A time, or how long from now.
fn end(text: &str, now: i64) -> Result<i64, Failure> {
    if let Some(seconds) = units::duration(text) {
        return Ok(now + seconds);
    }
    let zone = jiff::tz::TimeZone::system();
    // A day is meant to its end; as a moment it would be read as its begin.
    let is_day = !text.contains(['T', ' ', ':']);
    let local = match is_day {
        true => text.parse::<jiff::civil::Date>().map(|date| date.at(23, 59, 59, 0)),
        false => text.parse::<jiff::civil::DateTime>(),
    };
    let at = local.ok().and_then(|at| at.to_zoned(zone).ok()).map(|at| at.timestamp().as_second());
    at.or_else(|| text.parse::<jiff::Timestamp>().ok().map(|at| at.as_second()))
        .ok_or_else(|| Failure::usage(format!("--until {text:?}: say 8h, 2026-11-24 or 2026-11-24T06:00")))
}

fn document(planned: &Planned, names: &HashMap<ClientId, String>) -> Value {
    json!({
        "client": names.get(&ClientId(planned.client)), "at": output::rfc3339(planned.at),
        "until": output::rfc3339(planned.until), "start": word(planned.start), "why": class(planned.class),
    })
}

fn word(start: Start) -> &'static str {
    match start {
        Start::Dial => "dial",
        Start::Ask => "asks",
        Start::WhenHere => "when it is here",
    }
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Manual => "asked for",
        Class::Late => "late",
        Class::Due => "due",
        Class::Opportunistic => "by its period",
    }
}

pub fn explain(context: &Context, name: &str, what_if: &[String]) -> Done {
    let home = ServerHome::at(&context.home);
    let fleet = home.fleet()?;
    let client = fleet.require(name)?;
    let newest = newest_at_rest(&home)?.get(&client.id).copied();
    let now = backhaul_server::clock::now() as i64;
    let versions = policies::versions(&fleet, now)?;
    let (_, policies) = versions.of(client.id);
    let mut policy = policies::policy_of(policies, &client);
    for change in what_if {
        let wrong = || Failure::usage(format!("--what-if {change:?}: say rpo=4h, period=1d or spread=1h"));
        let (key, value) = change.split_once('=').ok_or_else(wrong)?;
        let seconds = units::duration(value).ok_or_else(wrong)?;
        match key {
            "rpo" => policy.rpo = seconds,
            "period" => policy.period = seconds,
            "spread" => policy.spread = seconds,
            _ => return Err(wrong()),
        }
    }
    let memory = fleet.memory(client.id)?.and_then(|text| serde_json::from_str::<Memory>(&text).ok());
    let memory = memory.unwrap_or_default();
    let recommended = memory.recommend(&policy, now);
    let state = policies::judge(&policy, &client, newest, now as u64).as_str();
    let changed = memory.auto.as_ref().and_then(|auto| auto.pending());
    if context.global.json {
        output::json(&json!({
            "client": name, "initiator": client.initiator.as_str(), "mode": client.shown.mode,
            "recommended": recommended.mode.to_string(), "provisional": recommended.provisional,
            "reasons": recommended.reasons.to_string(), "figures": recommended.reasons,
            "state": state,
            "obstacle": client.shown.obstacle.as_str(), "why": client.shown.why,
            "run_seconds": memory.reach.duration(), "stay_seconds": memory.reach.stretch(),
        }));
        return Ok(ExitCode::SUCCESS);
    }
    say(&client, &recommended.to_string(), shows(&home));
    let state = if newest.is_some() { state } else { "no snapshot yet" };
    output::line(&format!("  state         {state}; late after {}", units::seconds(policy.rpo)));
    if let Some(pending) = changed.filter(|_| client.initiator == Initiator::Auto) {
        output::line(&format!("  may become {} ({} of {} days)", pending.to, pending.days, pending.needed));
    }
    let about =
        |seconds: Option<u64>| seconds.map_or_else(|| "not known yet".to_owned(), |s| units::about(s as i64));
    output::line(&format!("  a run takes   {}", about(memory.reach.duration())));
    output::line(&format!("  it stays for  {}", about(memory.reach.stretch())));
    Ok(ExitCode::SUCCESS)
}

fn say(client: &Client, recommended: &str, shows: Shows) {
    output::line(&format!("{}: initiator {}", client.name, client.initiator.as_str()));
    output::line(&format!("  recommended   {recommended}"));
    if shows == Shows::Past {
        output::line("  now           the server is not running");
    } else if !client.shown.why.is_empty() {
        output::line(&format!("  now           {}", client.shown.why));
    }
    if let Some(paused) = paused(client) {
        output::line(&format!("  and           {paused}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_ends_with_the_day_that_is_named_or_at_the_moment() {
        let zone = jiff::tz::TimeZone::system();
        let at = |text: &str| {
            let local = text.parse::<jiff::civil::DateTime>().map(|local| local.to_zoned(zone.clone()));
            local.ok().and_then(Result::ok).map(|at| at.timestamp().as_second())
        };
        let end = |text: &str| end(text, 1_000).ok();
        assert_eq!(end("8h"), Some(1_000 + 8 * 3_600));
        assert_eq!(end("2026-11-24"), at("2026-11-24T23:59:59"));
        assert_eq!(end("2026-11-24T06:00"), at("2026-11-24T06:00:00"));
        assert_eq!(end("1970-01-02T00:00:00Z"), Some(86_400));
        assert_eq!(end("yesterday"), None);
    }
}
