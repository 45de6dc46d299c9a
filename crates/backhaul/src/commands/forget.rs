//! `forget`: what is kept and why, and the rest hidden.

use std::process::ExitCode;

use backhaul_schedule::policy::units;
use backhaul_server::chores::Chore;
use backhaul_server::home::ServerHome;
use backhaul_server::keep::braking::Release;
use backhaul_server::keep::forget::{By, Counts, Detail, Mode, Request};
use backhaul_store::reserve;
use serde_json::Value;

use super::chore::{ask, server_only};
use super::keep::{Among, chosen};
use super::{Context, Done};
use crate::cli::{ForgetArgs, KeepArgs, SnapshotArgs};
use crate::failure::Failure;
use crate::output;

pub async fn run(context: &Context, args: &ForgetArgs) -> Done {
    let home = server_only(context)?;
    let chore = match (&args.client, args.release_brake) {
        (Some(client), true) => Chore::ReleaseBrake(Release { client: client.clone() }),
        _ => Chore::Forget(request(&home, args)?),
    };
    if !args.dry_run {
        reserve::make_room(&home.vault_dir())?;
    }
    let (words, document) = ask(context, &home, &chore).await?;
    if context.global.json {
        output::json(&document);
        return Ok(ExitCode::SUCCESS);
    }
    if args.dry_run {
        show(&document);
    }
    output::line(&words);
    let forgot = document["forgotten"].as_u64().unwrap_or(0) > 0 && !args.dry_run;
    if forgot {
        output::line(
            "they take room until their grace is over and `backhaul prune` has run; `unforget` has them back until then",
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn request(home: &ServerHome, args: &ForgetArgs) -> Result<Request, Failure> {
    let counts = counts(&args.keep)?;
    let by = match (args.snapshots.is_empty(), args.policy, counts == Counts::default()) {
        (false, ..) => {
            let which = SnapshotArgs { snapshots: args.snapshots.clone(), client: args.client.clone() };
            By::Name(chosen(home, &which, Among::Listed)?.iter().map(|row| row.id.to_string()).collect())
        }
        (true, true, true) => By::Policy,
        (true, false, false) => {
            counts.rules().check().map_err(|error| Failure::usage(format!("these rules: {error}")))?;
            By::Rules(counts)
        }
        (true, _, _) => {
            return Err(Failure::usage("what is to be forgotten? say which snapshots, --policy, or what to keep, which must be something (--keep-daily 14 ...)")
                .hint("with --dry-run nothing is changed"));
        }
    };
    let mode = if args.dry_run { Mode::DryRun } else { Mode::DoIt };
    Ok(Request { by, client: args.client.clone(), mode, detail: Detail::Snapshots })
}

fn counts(args: &KeepArgs) -> Result<Counts, Failure> {
    let within = match &args.keep_within {
        None => None,
        Some(text) => Some(
            units::duration(text)
                .ok_or_else(|| Failure::usage(format!("--keep-within {text:?}: say 36h, 30d or 365d")))?,
        ),
    };
    let periods = [args.keep_hourly, args.keep_daily, args.keep_weekly, args.keep_monthly, args.keep_yearly];
    Ok(Counts { last: args.keep_last, periods, within, tags: args.keep_tag.iter().cloned().collect() })
}

/// One line a snapshot, with the reasons.
fn show(document: &Value) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut rows = Vec::new();
    for client in document["clients"].as_array().into_iter().flatten() {
        for snapshot in client["snapshots"].as_array().into_iter().flatten() {
            let reasons: Vec<String> =
                snapshot["reasons"].as_array().into_iter().flatten().map(text).collect();
            let time =
                text(&snapshot["time"]).parse::<jiff::Timestamp>().map(|at| output::time(at.as_second()));
            rows.push(vec![
                text(&client["client"]),
                text(&snapshot["id"]).chars().take(12).collect(),
                time.unwrap_or_default(),
                if snapshot["kept"] == true { "keep" } else { "forget" }.to_owned(),
                if reasons.is_empty() { "no rule keeps it".to_owned() } else { reasons.join(", ") },
            ]);
        }
    }
    output::table(&["CLIENT", "SNAPSHOT", "TIME", "VERDICT", "WHY"], rows);
}
