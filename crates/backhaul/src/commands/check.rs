//! `check`: is everything there and whole? And `check --repair`: make it so.

use std::path::Path;
use std::process::ExitCode;

use backhaul_server::check::{Contents, Reading, Repair, Request};
use backhaul_server::chores::Chore;
use backhaul_server::clock;
use backhaul_server::home::ServerHome;
use backhaul_server::keyring::random;
use backhaul_store::catalog::Catalog;
use backhaul_store::check::{Damage, Mending, Results, standing};
use backhaul_store::{StoreError, Vault, rebuild, repair};
use serde_json::{Value, json};

use super::{Context, Done, chore};
use crate::cli::CheckArgs;
use crate::failure::{Failure, code};
use crate::output;

pub async fn run(context: &Context, args: &CheckArgs) -> Done {
    let home = chore::server_only(context)?;
    if args.status {
        return status(context, &home);
    }
    let request = request(args)?;
    let mut before = Before::of(args);
    if args.rebuild_index {
        before.rebuild(context, &home, request.repair)?;
    } else if request.repair == Repair::Mend {
        before.make_usable(context, &home)?;
    }
    let (_, mut document) = chore::ask(context, &home, &Chore::Check(request)).await?;
    // What was mended may hold what an index made before could not know.
    let is_stale = document["rebuild_advised"].as_bool() == Some(true)
        || (before.is_rebuilt() && document["damage"].as_array().is_some_and(|damage| !damage.is_empty()));
    if request.repair == Repair::Mend && is_stale && home.lock().is_ok() {
        before.take(&document);
        before.rebuild(context, &home, request.repair)?;
        document = chore::ask(context, &home, &Chore::Check(request)).await?.1;
    }
    before.enter(&mut document);
    tell(context, document)
}

fn request(args: &CheckArgs) -> Result<Request, Failure> {
    let reading = match &args.read_data_subset {
        Some(text) => subset(text)?,
        None if args.read_data => Reading::Everything,
        None => Reading::Nothing,
    };
    let contents = if args.verify_content { Contents::Opened } else { Contents::Sealed };
    let repair = if args.repair { Repair::Mend } else { Repair::Name };
    Ok(Request { reading, contents, repair })
}

/// `2/7` or `5%`.
fn subset(text: &str) -> Result<Reading, Failure> {
    let part = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
    let percent = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match (part, percent) {
        (Some((part, of)), _) if (1..=of).contains(&part) => Ok(Reading::Part { part, of }),
        (_, Some(percent)) if percent > 0.0 && percent <= 100.0 => {
            Ok(Reading::Sample { millionths: (percent * 10_000.0).ceil() as u64 })
        }
        _ => {
            Err(Failure::usage(format!("--read-data-subset {text:?}: say a part as 2/7, or a sample as 5%")))
        }
    }
}

/// A way to make catalog and index anew.
type Rebuild = fn(&Path, [u8; 16], Mending, u64) -> Result<rebuild::Report, StoreError>;

/// What was done before the check itself.
struct Before {
    way: Rebuild,
    rebuilt: Value,
    damage: Vec<Value>,
}

impl Before {
    fn of(args: &CheckArgs) -> Self {
        let way = if args.packs_are_lost { rebuild::rebuild_from_what_is_left } else { rebuild::rebuild };
        Self { way, rebuilt: Value::Null, damage: Vec::new() }
    }

    fn is_rebuilt(&self) -> bool {
        !self.rebuilt.is_null()
    }

    /// Makes catalog and index anew.
    fn rebuild(&mut self, context: &Context, home: &ServerHome, repair: Repair) -> Result<(), Failure> {
        let _lock = home.lock().map_err(|error| Failure::from(error).while_doing("making the index anew"))?;
        let mending = if repair == Repair::Mend { Mending::Mend } else { Mending::Look };
        let report = (self.way)(&home.vault_dir(), random()?, mending, clock::now())?;
        let (objects, packs, snapshots) = (report.objects, report.packs, report.snapshots);
        if !context.global.json {
            output::line(&format!("rebuilt: {objects} objects of {packs} packs, {snapshots} snapshots"));
        }
        self.rebuilt = json!({ "packs": packs, "objects": objects, "snapshots": snapshots });
        self.damage.extend(report.damage.iter().map(describe));
        Ok(())
    }

    /// Catalog, index or descriptor may be so damaged that the vault does not open: then they come first. A server
    /// that runs has opened it.
    fn make_usable(&mut self, context: &Context, home: &ServerHome) -> Result<(), Failure> {
        let Ok(lock) = home.lock() else { return Ok(()) };
        if let Some(damage) = repair::restore_descriptor(&home.vault_dir(), clock::now())? {
            self.damage.push(describe(&damage));
        }
        match Vault::open(&home.vault_dir()) {
            Err(StoreError::Damaged { what, why }) => {
                drop(lock);
                self.damage.push(json!({ "what": what, "why": why, "repaired": "made anew from the packs" }));
                self.rebuild(context, home, Repair::Mend)
            }
            Err(error) => Err(error.into()),
            Ok(_) => Ok(()),
        }
    }

    /// Keeps what an earlier check repaired.
    fn take(&mut self, document: &Value) {
        let repaired = |damage: &&Value| !damage["repaired"].is_null();
        self.damage.extend(document["damage"].as_array().into_iter().flatten().filter(repaired).cloned());
    }

    fn enter(self, document: &mut Value) {
        let is_sound = self.damage.iter().all(|damage| !damage["repaired"].is_null());
        if !is_sound {
            document["sound"] = json!(false);
        }
        document["rebuilt"] = self.rebuilt;
        if let Some(damage) = document["damage"].as_array_mut() {
            damage.splice(0..0, self.damage);
        }
    }
}

fn describe(damage: &Damage) -> Value {
    json!({ "what": damage.what.to_string(), "why": damage.why, "repaired": damage.mended })
}

fn tell(context: &Context, mut document: Value) -> Done {
    let is_sound = document["sound"].as_bool() == Some(true);
    let exit = ExitCode::from(if is_sound { 0 } else { code::DAMAGE });
    for row in document["snapshots_affected"].as_array_mut().into_iter().flatten() {
        row["time"] = json!(output::rfc3339(row["time"].as_i64().unwrap_or(0)));
    }
    if context.global.json {
        output::json(&document);
        return Ok(exit);
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |name: &str| document[name].as_u64().unwrap_or(0);
    let all = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let how = match (number("packs_read"), number("packs")) {
        (0, _) => "structure only; --read-data reads every byte".to_owned(),
        (read, packs) if read == packs => "every byte read".to_owned(),
        (read, _) => format!("{read} of them read whole"),
    };
    let (packs, objects) = (number("packs"), number("objects"));
    output::line(&format!("{packs} packs, {objects} objects, {} ({how})", output::bytes(number("bytes"))));
    for damage in all("damage") {
        let (what, why) = (text(&damage["what"]), text(&damage["why"]));
        match damage["repaired"].as_str() {
            Some(repaired) => output::line(&format!("repaired: {what}: {why}: {repaired}")),
            None => output::line(&format!("damaged: {what}: {why}")),
        }
    }
    for row in all("snapshots_affected") {
        let (id, client, time) = (text(&row["id"]), text(&row["client"]), text(&row["time"]));
        output::line(&format!("affected: snapshot {} of {client}, {time}", &id[..12.min(id.len())]));
    }
    for lost in all("lost") {
        let (id, client, path) = (text(&lost["snapshot"]), text(&lost["client"]), text(&lost["path"]));
        output::line(&format!("lost: {client} {}:{path}", &id[..12.min(id.len())]));
    }
    if number("lost_count") > all("lost").len() as u64 {
        let all = match document["lost_list"].as_str() {
            Some(file) => format!("they are in {file}"),
            None => "the list of all could not be written (the log says why)".to_owned(),
        };
        output::line(&format!("lost: {} paths, of which these are the first; {all}", number("lost_count")));
    }
    let aside = &document["quarantine"];
    if let (Some(files @ 1..), Some(bytes)) = (aside["files"].as_u64(), aside["bytes"].as_u64()) {
        let bytes = output::bytes(bytes);
        output::line(&format!("in quarantine/: {files} files that repairs have replaced, {bytes}"));
    }
    if let Some(orphans @ 1..) = document["orphan_sidecars"].as_u64() {
        output::line(&format!(
            "{orphans} parity files of packs that are gone; the next prune puts them into quarantine/"
        ));
    }
    output::line(match (is_sound, all("damage").is_empty()) {
        (true, true) => "no damage found",
        (true, false) => "damage found and repaired; the old files are in quarantine/",
        (false, _) => "damage found",
    });
    if !is_sound && number("packs") > 0 {
        advise(&document);
    }
    Ok(exit)
}

fn advise(document: &Value) {
    let text = match document["rebuild_advised"].as_bool() {
        Some(true) => "next: with the server stopped, `backhaul check --repair` makes catalog and index anew",
        _ => {
            "next: `backhaul check --read-data --repair` repairs what parity and copies make good; the next backup of a client that still has lost files brings them back"
        }
    };
    output::complain(text);
}

/// How far the scrub is.
fn status(context: &Context, home: &ServerHome) -> Done {
    let cycle = home.config()?.scrub.cycle().map_err(Failure::new)?;
    let catalog = Catalog::look(&home.vault_dir())?;
    let now = clock::now();
    let (stands, next, results) = standing(&catalog, cycle.unwrap_or(u64::MAX), now)?;
    let lost = catalog.lost()?.len();
    let next = next.filter(|_| cycle.is_some());
    if context.global.json {
        output::json(&json!({
            "packs": stands.packs, "bytes": stands.bytes, "packs_fresh": stands.packs_fresh,
            "bytes_fresh": stands.bytes_fresh, "cycle_s": cycle, "oldest": stands.oldest.map(output::rfc3339),
            "next": next.map(|turn| output::rfc3339(turn.at)), "mended": results.mended, "damaged": results.damaged,
            "lost": lost,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    let (fresh, bytes) = (output::bytes(stands.bytes_fresh), output::bytes(stands.bytes));
    let within = cycle.map_or("ever (there is no scrub)".to_owned(), |cycle| {
        format!("within the last {}", backhaul_schedule::policy::units::seconds(cycle as i64))
    });
    output::line(&format!(
        "read {within}: {} of {} packs, {fresh} of {bytes}",
        stands.packs_fresh, stands.packs
    ));
    output::line(&match stands.oldest {
        Some(oldest) => format!("the one that waits longest was read at {}", output::time(oldest)),
        None if stands.packs == 0 => "there is nothing yet".to_owned(),
        None => "some were never read".to_owned(),
    });
    if let Some(turn) = next {
        output::line(&format!("next: {} at {}", &turn.pack.to_string()[..12], output::time(turn.at)));
    }
    let Results { mended, damaged } = results;
    output::line(&format!(
        "damaged: {damaged} packs; mended when they were last read: {mended}; lost: {lost} objects"
    ));
    Ok(ExitCode::SUCCESS)
}
