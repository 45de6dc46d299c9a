//! `runs`: what was started, and what it came to.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use backhaul_object::ids::ClientId;
use backhaul_server::clock;
use backhaul_server::fleet::{Fleet, Run};
use backhaul_server::home::ServerHome;
use serde_json::{Value, json};

use super::{Context, Done, client};
use crate::failure::Failure;
use crate::output;

/// How often new runs are looked for.
const LOOK: Duration = Duration::from_millis(250);
/// Runs that `--follow` looks back at: more cannot be open at once.
const FOLLOWED: usize = 2_000;

const HEAD: [&str; 8] = ["RUN", "CLIENT", "BEGAN", "TOOK", "BY", "TRIGGER", "STATE", "RESULT"];

/// A line of a table whose other lines are not known yet.
fn in_columns(cells: &[String]) -> String {
    const WIDTHS: [usize; 8] = [6, 16, 21, 8, 8, 9, 13, 0];
    let padded = cells.iter().zip(WIDTHS).map(|(cell, width)| {
        let width = width.max(if width == 0 { 0 } else { cell.chars().count() + 2 });
        format!("{cell:<width$}")
    });
    padded.collect()
}

pub async fn runs(context: &Context, name: Option<&str>, limit: usize, follow: bool) -> Done {
    let fleet = ServerHome::at(&context.home).fleet()?;
    let only = name.map(|name| fleet.require(name)).transpose()?.map(|client| client.id);
    let runs = fleet.runs(only, limit)?;
    let names = names(&fleet)?;
    if follow {
        return follow_runs(context, &fleet, only, runs).await;
    }
    if context.global.json {
        output::json(&runs.iter().map(|run| document(run, &names)).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    let rows = runs.iter().map(|run| row(run, &names)).collect();
    output::table(&HEAD, rows);
    Ok(ExitCode::SUCCESS)
}

/// One line for each change, until it is interrupted.
async fn follow_runs(context: &Context, fleet: &Fleet, only: Option<ClientId>, mut told: Vec<Run>) -> Done {
    let tell = |run: &Run, names: &HashMap<ClientId, String>| match context.global.json {
        true => output::line(&document(run, names).to_string()),
        false => output::line(in_columns(&row(run, names)).trim_end()),
    };
    if !context.global.json {
        output::line(&in_columns(&HEAD.map(str::to_owned)));
    }
    let mut first = names(fleet)?;
    told.iter().for_each(|run| tell(run, &first));
    loop {
        tokio::time::sleep(LOOK).await;
        let runs = fleet.runs(only, FOLLOWED)?;
        for run in runs.iter().filter(|run| !told.contains(run)) {
            if !first.contains_key(&run.client) {
                first = names(fleet)?;
            }
            // Runs that ended before this began are old news.
            if told.iter().any(|before| before.id == run.id)
                || told.last().is_none_or(|last| run.id > last.id)
            {
                tell(run, &first);
            }
        }
        told = runs;
    }
}

fn names(fleet: &Fleet) -> Result<HashMap<ClientId, String>, Failure> {
    Ok(fleet.clients()?.into_iter().map(|client| (client.id, client.name)).collect())
}

fn document(run: &Run, names: &HashMap<ClientId, String>) -> Value {
    json!({
        "run": run.id, "client": names.get(&run.client), "initiator": run.initiator, "trigger": run.trigger,
        "state": run.state.as_str(), "requested_at": output::rfc3339(run.requested_at),
        "started_at": run.started_at.map(output::rfc3339), "ended_at": run.ended_at.map(output::rfc3339),
        "snapshot": run.snapshot.map(|id| id.to_string()), "errors": run.errors, "why": run.why,
    })
}

fn row(run: &Run, names: &HashMap<ClientId, String>) -> Vec<String> {
    let took = run.started_at.map(|at| run.ended_at.unwrap_or_else(clock::now).saturating_sub(at));
    vec![
        run.id.to_string(),
        names.get(&run.client).cloned().unwrap_or_default(),
        output::time(run.started_at.unwrap_or(run.requested_at)),
        took.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
        run.initiator.clone(),
        if run.trigger.is_empty() { "-".to_owned() } else { run.trigger.clone() },
        run.state.as_str().to_owned(),
        client::words(run),
    ]
}
