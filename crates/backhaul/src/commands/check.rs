//! `check`: is everything there and whole?

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use backhaul_object::Sealed;
use backhaul_object::seal::Unpacker;
use backhaul_server::home::ServerHome;
use backhaul_server::keyring::random;
use backhaul_store::check::{Depth, Report};
use backhaul_store::rebuild::rebuild;
use serde_json::{Value, json};

use super::{Context, Done};
use crate::failure::{Failure, code};
use crate::output::{self, Progress};

pub fn run(context: &Context, read_data: bool, rebuild_index: bool) -> Done {
    let home = ServerHome::at(&context.home);
    let _lock = home.lock().map_err(|error| Failure::from(error).while_doing("checking the vault"))?;
    let mut rebuilt = Value::Null;
    let mut damage = Vec::new();
    if rebuild_index {
        let report = rebuild(&home.vault_dir(), random()?)?;
        if !context.global.json {
            let (objects, packs, snapshots) = (report.objects, report.packs, report.snapshots);
            output::line(&format!("rebuilt: {objects} objects of {packs} packs, {snapshots} snapshots"));
        }
        rebuilt = json!({ "packs": report.packs, "objects": report.objects, "snapshots": report.snapshots });
        damage.extend(report.damage);
    }
    let (vault, key) = (home.vault()?, home.vault_key()?);
    let (data_key, id_key) = (key.data_key(), key.id_key());
    let mut unpacker = Unpacker::new().map_err(|error| Failure::new(error.to_string()))?;
    let mut inspect = |sealed: &Sealed| {
        let opened = sealed.unseal(&data_key).and_then(|object| object.open(&id_key, &mut unpacker));
        opened.map(drop).map_err(|error| error.to_string())
    };
    let done = Arc::new(AtomicU64::new(0));
    let total = vault.stats()?.bytes_on_disk;
    let shown = Progress::start(&context.global, {
        let done = Arc::clone(&done);
        move || format!("{} of {} checked", output::bytes(done.load(Ordering::Relaxed)), output::bytes(total))
    });
    let depth = if read_data { Depth::ReadData } else { Depth::Structure };
    let mut progress = |bytes| {
        done.fetch_add(bytes, Ordering::Relaxed);
    };
    let mut report = vault.check(depth, &mut inspect, &mut progress)?;
    drop(shown);
    report.damage.splice(0..0, damage);
    tell(context, &report, read_data, rebuilt);
    Ok(ExitCode::from(if report.damage.is_empty() { 0 } else { code::DAMAGE }))
}

fn tell(context: &Context, report: &Report, read_data: bool, rebuilt: Value) {
    let snapshot = |row: &backhaul_store::catalog::SnapshotRow| json!({ "id": row.id.to_string(), "client": row.client_name, "time": output::rfc3339(row.server_time) });
    if context.global.json {
        let damage: Vec<Value> =
            report.damage.iter().map(|(what, why)| json!({ "what": what, "why": why })).collect();
        output::json(&json!({
            "packs": report.packs, "objects": report.objects, "bytes": report.bytes, "read_data": read_data,
            "rebuilt": rebuilt, "damage": damage,
            "snapshots_affected": report.affected.iter().map(snapshot).collect::<Vec<_>>(),
        }));
        return;
    }
    let how = if read_data { "every byte read" } else { "structure only; --read-data reads every byte" };
    let (packs, objects, bytes) = (report.packs, report.objects, output::bytes(report.bytes));
    output::line(&format!("{packs} packs, {objects} objects, {bytes} ({how})"));
    for (what, why) in &report.damage {
        output::line(&format!("damaged: {what}: {why}"));
    }
    for row in &report.affected {
        let (id, time) = (row.id.to_string(), output::time(row.server_time));
        output::line(&format!("affected: snapshot {} of {}, {time}", &id[..12], row.client_name));
    }
    output::line(if report.damage.is_empty() { "no damage found" } else { "damage found" });
}
