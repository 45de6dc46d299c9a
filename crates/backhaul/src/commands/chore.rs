//! Has the server do a chore, or does it here when no server runs; `chores`.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backhaul_agent::home::AgentHome;
use backhaul_server::chores::{Chore, worker};
use backhaul_server::fleet::{AskedBy, ChoreRow, ChoreState, FailureKind};
use backhaul_server::home::ServerHome;
use backhaul_server::{ServerError, clock};
use backhaul_store::StoreError;
use serde_json::{Value, json};

use super::{Context, Done};
use crate::failure::{Failure, code};
use crate::output::{self, Progress};

/// How often the answer is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// This machine's server; a client may keep and forget nothing.
pub fn server_only(context: &Context) -> Result<ServerHome, Failure> {
    let home = ServerHome::at(&context.home);
    if !home.exists() && AgentHome::at(&context.home).exists() {
        return Err(Failure::new(
            "this is a client: what is kept and forgotten is decided on the server only",
        )
        .code(code::NOT_AUTHORISED)
        .hint("ask whoever runs the server, or say --home DIR"));
    }
    home.config()?;
    Ok(home)
}

/// Asks for a chore, and waits until it is over. Its words and its document come back.
pub async fn ask(context: &Context, home: &ServerHome, chore: &Chore) -> Result<(String, Value), Failure> {
    let fleet = home.fleet()?;
    let request = serde_json::to_string(chore).map_err(|error| Failure::new(error.to_string()))?;
    let id = fleet.queue_chore(chore.kind(), AskedBy::Operator, &request, clock::now())?;
    let words = Arc::new(Mutex::new(String::new()));
    let shown = Progress::start(&context.global, {
        let (words, kind) = (Arc::clone(&words), chore.kind());
        move || match words.lock().unwrap_or_else(PoisonError::into_inner).as_str() {
            "" => format!("{kind}: it is about to begin"),
            words => format!("{kind}: {words}"),
        }
    });
    let row = loop {
        let row = fleet.chore(id)?.ok_or_else(|| Failure::new("the chore was removed"))?;
        if row.state.is_over() {
            break row;
        }
        row.words.clone_into(&mut words.lock().unwrap_or_else(PoisonError::into_inner));
        if row.state == ChoreState::Queued {
            work_off(home, &fleet, id).await?;
        }
        tokio::time::sleep(LOOK).await;
    };
    drop(shown);
    answer(row)
}

/// Does what waits here, unless a server is there to do it.
async fn work_off(home: &ServerHome, fleet: &backhaul_server::fleet::Fleet, id: i64) -> Result<(), Failure> {
    let here = home.clone();
    let worked = tokio::task::spawn_blocking(move || worker::work_off(&here)).await;
    match worked.map_err(|error| Failure::new(error.to_string()))? {
        Ok(()) | Err(ServerError::Store(StoreError::Busy { .. })) => Ok(()),
        Err(error) => {
            // Nobody is left to do it.
            let why = error.to_string();
            fleet.end_chore(id, Err((&why, FailureKind::Failed)), clock::now())?;
            Err(error.into())
        }
    }
}

fn answer(row: ChoreRow) -> Result<(String, Value), Failure> {
    if row.state == ChoreState::Done {
        let document = row.result.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null);
        return Ok((row.words, document));
    }
    let failure = Failure::new(row.words);
    Err(match row.failure {
        Some(FailureKind::Usage) => failure.code(code::USAGE),
        Some(FailureKind::Damage) => failure.code(code::DAMAGE),
        Some(FailureKind::Key) => failure.code(code::NOT_AUTHORISED),
        Some(FailureKind::Failed) | None => {
            failure.hint("`backhaul chores` lists what was done and what was not")
        }
    })
}

/// `chores`.
pub fn list(context: &Context, limit: usize) -> Done {
    let chores = server_only(context)?.fleet()?.chores(limit)?;
    if context.global.json {
        output::json(&chores.iter().map(describe).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    let row = |chore: &ChoreRow| {
        let took = chore.ended_at.zip(chore.started_at).map(|(end, start)| end.saturating_sub(start));
        vec![
            chore.id.to_string(),
            chore.kind.clone(),
            chore.asked_by.as_str().to_owned(),
            output::time(chore.started_at.unwrap_or(chore.requested_at)),
            took.map_or("-".to_owned(), |seconds| format!("{seconds} s")),
            chore.state.as_str().to_owned(),
            chore.words.clone(),
        ]
    };
    let head = ["CHORE", "KIND", "BY", "BEGAN", "TOOK", "STATE", "RESULT"];
    output::table(&head, chores.iter().map(row).collect());
    Ok(ExitCode::SUCCESS)
}

fn describe(chore: &ChoreRow) -> Value {
    json!({
        "chore": chore.id, "kind": chore.kind, "asked_by": chore.asked_by.as_str(),
        "state": chore.state.as_str(), "requested_at": output::rfc3339(chore.requested_at),
        "started_at": chore.started_at.map(output::rfc3339), "ended_at": chore.ended_at.map(output::rfc3339),
        "words": chore.words,
    })
}
