//! Forgetting: by the policies, by rules that an operator names, or by name; and what that would do.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backhaul_object::breach::Breach;
use backhaul_object::ids::ClientId;
use backhaul_object::seal::Unpacker;
use backhaul_object::snapshot::{self, Origin};
use backhaul_schedule::policy::Policies;
use backhaul_schedule::retention::{
    Completeness, Decision, Keep, Pinned, Reason, Rules, Snapshot, Unit, decide,
};
use backhaul_store::catalog::SnapshotRow;
use backhaul_store::mark::State;
use backhaul_store::vault::Marking;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::chores::{Outcome, Tools};
use crate::error::ServerError;
use crate::fleet::{Client, ClientState};
use crate::keep::braking;
use crate::policies;
use crate::session::OpenVault;

/// Whether anything is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is only said what would be done.
    DryRun,
    /// It is done.
    DoIt,
}

/// How much is told of what was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Detail {
    /// Each snapshot with its reasons.
    Snapshots,
    /// Sums for each client.
    Sums,
}

/// By what it is decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Each client's policy.
    Policy,
    /// Rules that somebody has named, instead of the policies'.
    Rules(Counts),
    /// These go, by their whole ids.
    Name(Vec<String>),
}

/// Rules of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The newest ones.
    pub last: u32,
    /// Of hours, days, weeks, months, years.
    pub periods: [u32; 5],
    /// Seconds from the newest on.
    pub within: Option<i64>,
    /// Labels.
    pub tags: BTreeSet<String>,
}

impl Counts {
    /// As rules.
    pub fn rules(&self) -> Rules {
        let periods = std::array::from_fn(|i| (Unit::ALL[i], self.periods[i]));
        Rules::Some { last: self.last, periods, within: self.within, tags: self.tags.clone() }
    }
}

/// What is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// By what it is decided.
    pub by: By,
    /// Of this client only.
    pub client: Option<String>,
    /// Whether it is done.
    pub mode: Mode,
    /// How much is told.
    pub detail: Detail,
}

/// Decides, and forgets what nothing keeps unless it is a dry run.
pub(crate) fn carry_out(request: &Request, tools: &mut Tools<'_>) -> Result<Outcome, ServerError> {
    let mut sums = Sums::default();
    let mut documents = Vec::new();
    if request.mode == Mode::DoIt {
        // The night that is going on counts for nobody's grace who is forgotten in it.
        tools.vault.vault.count_night(tools.now)?;
        braking::catch_up(tools.fleet, tools.vault, tools.now)?;
    }
    let subjects = subjects(request, tools)?;
    let total = subjects.len();
    for (number, subject) in subjects.into_iter().enumerate() {
        if tools.is_stopping() {
            return Err(ServerError::Usage(
                "the server is stopping: the rest is decided next time".to_owned(),
            ));
        }
        (tools.progress)(&format!("{} of {total} clients, {} forgotten", number, sums.forgotten));
        let judged = judge(request, tools.vault, subject)?;
        if request.mode == Mode::DoIt {
            for (row, _) in judged.dropped() {
                let marking = Marking {
                    state: State::Forgotten,
                    now: tools.now,
                    grace: judged.subject.keep.grace.unsigned_abs(),
                    reason: judged.reason(request),
                };
                tools.vault.vault.mark(row.client, row.sequence, marking)?;
            }
        }
        sums.add(&judged);
        let whole = request.detail == Detail::Snapshots && !matches!(request.by, By::Name(_));
        if judged.dropped().next().is_some() || whole || judged.is_held() {
            documents.push(describe(&judged, request.detail));
        }
    }
    let document = json!({
        "dry_run": request.mode == Mode::DryRun, "kept": sums.kept, "forgotten": sums.forgotten,
        "held": sums.held, "clients": documents,
    });
    Ok(Outcome { words: sums.words(request.mode), document })
}

/// One client with what is there of it.
struct Subject {
    client: Client,
    keep: Keep,
    rows: Vec<SnapshotRow>,
    pinned: BTreeSet<u64>,
    /// Why nothing of it is forgotten now.
    held: Option<String>,
}

/// A client with what was decided, newest first.
struct Judged {
    subject: Subject,
    decided: Vec<(SnapshotRow, Vec<String>)>,
}

impl Judged {
    fn is_held(&self) -> bool {
        self.subject.held.is_some() && self.decided.iter().any(|(_, reasons)| reasons.is_empty())
    }

    /// What goes.
    fn dropped(&self) -> impl Iterator<Item = &(SnapshotRow, Vec<String>)> {
        let held = self.subject.held.is_some();
        self.decided.iter().filter(move |(_, reasons)| !held && reasons.is_empty())
    }

    fn reason(&self, request: &Request) -> &'static str {
        match request.by {
            By::Policy => "no rule of its policy keeps it",
            By::Rules(_) => "no rule that was named keeps it",
            By::Name(_) => "it was named",
        }
    }
}

#[derive(Default)]
struct Sums {
    kept: u64,
    forgotten: u64,
    held: u64,
    clients: BTreeSet<String>,
}

impl Sums {
    fn add(&mut self, judged: &Judged) {
        let dropped = judged.dropped().count() as u64;
        self.kept += judged.decided.len() as u64 - dropped;
        self.forgotten += dropped;
        if judged.is_held() {
            self.held += 1;
            self.clients.insert(judged.subject.client.name.clone());
        }
    }

    fn words(&self, mode: Mode) -> String {
        let did = if mode == Mode::DryRun { "would be forgotten" } else { "forgotten" };
        let noun = if self.forgotten == 1 { "snapshot" } else { "snapshots" };
        let mut words = format!("{} {noun} {did}, {} kept", self.forgotten, self.kept);
        if !self.clients.is_empty() {
            let names: Vec<&str> = self.clients.iter().map(String::as_str).take(5).collect();
            let more = if self.clients.len() > 5 { ", ..." } else { "" };
            words.push_str(&format!("; the brake holds {}{more}", names.join(", ")));
        }
        words
    }
}

/// Whose snapshots are looked at. Those of clients that were revoked, or that the fleet does not know, stay.
fn subjects(request: &Request, tools: &mut Tools<'_>) -> Result<Vec<Subject>, ServerError> {
    let versions = policies::versions(tools.fleet, tools.now as i64)?;
    let marks = tools.vault.vault.marks()?;
    let pinned: BTreeSet<_> = marks.iter().filter(|m| m.state == State::Pinned).map(|m| m.id).collect();
    let mut rows: HashMap<ClientId, Vec<SnapshotRow>> = HashMap::new();
    for row in tools.vault.vault.visible(None)? {
        rows.entry(row.client).or_default().push(row);
    }
    let mut clients = tools.fleet.clients()?;
    if let Some(name) = &request.client {
        clients = vec![tools.fleet.require(name)?];
    } else if !matches!(request.by, By::Name(_)) {
        clients.retain(|client| client.state != ClientState::Revoked);
    }
    let mut subjects = Vec::new();
    for client in clients {
        let Some(rows) = rows.remove(&client.id) else { continue };
        let keep = keep_of(request, versions.of(client.id).1, &client);
        let pinned = rows.iter().filter(|row| pinned.contains(&row.id)).map(|row| row.sequence).collect();
        let brake = tools.fleet.brake(client.id)?.filter(|_| !Breach::UnheededBrake.is_on());
        let held = brake.map(|brake| brake.why);
        subjects.push(Subject { client, keep, rows, pinned, held });
    }
    if let By::Name(names) = &request.by {
        check_names(names, &subjects)?;
    }
    Ok(subjects)
}

fn keep_of(request: &Request, policies: &Policies, client: &Client) -> Keep {
    let keep = policies::policy_of(policies, client).keep;
    match &request.by {
        By::Rules(counts) => Keep { rules: counts.rules(), ..keep },
        By::Policy | By::Name(_) => keep,
    }
}

/// Named snapshots are all forgotten, or none.
fn check_names(names: &[String], subjects: &[Subject]) -> Result<(), ServerError> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    for name in names {
        let found = subjects.iter().find_map(|subject| {
            let row = subject.rows.iter().find(|row| row.id.to_string() == *name)?;
            Some((subject, row))
        });
        let Some((subject, row)) = found else {
            return Err(ServerError::Usage(format!("there is no snapshot {} any more", short(name))));
        };
        let client = &subject.client.name;
        if subject.pinned.contains(&row.sequence) {
            let why = format!("snapshot {} of {client} is pinned: `backhaul unpin` first", short(name));
            return Err(ServerError::Usage(why));
        }
        if let Some(why) = &subject.held {
            return Err(ServerError::Usage(format!(
                "the brake holds {client}: {why}; `backhaul forget --release-brake --client {client}` releases it"
            )));
        }
        if subject.rows.iter().all(|row| names.contains(&row.id.to_string())) {
            return Err(ServerError::Usage(format!(
                "nothing would be left of {client}: keep one snapshot of it"
            )));
        }
    }
    Ok(())
}

fn judge(request: &Request, vault: &OpenVault, subject: Subject) -> Result<Judged, ServerError> {
    let mut rows = subject.rows.clone();
    rows.sort_by_key(|row| std::cmp::Reverse(row.sequence));
    if let By::Name(names) = &request.by {
        let reasons = |row: &SnapshotRow| match names.contains(&row.id.to_string()) {
            true => Vec::new(),
            false => vec!["not named".to_owned()],
        };
        let decided = rows.into_iter().map(|row| (row.clone(), reasons(&row))).collect();
        return Ok(Judged { subject, decided });
    }
    let mut unpacker = Unpacker::new()?;
    // A stream takes no place from the files, nor from another stream.
    let mut known: BTreeMap<Option<Vec<u8>>, Vec<Snapshot>> = BTreeMap::new();
    let mut decided = Vec::new();
    for row in &rows {
        match read(vault, row, &mut unpacker) {
            Some(manifest) => {
                let stream = manifest.paths.first().filter(|_| manifest.origin() == Origin::Stream).cloned();
                known.entry(stream).or_default().push(candidate(row, &manifest, &subject.pinned));
            }
            // What cannot be read cannot be judged.
            None => decided.push((row.clone(), vec!["it cannot be read: see `backhaul check`".to_owned()])),
        }
    }
    let mut by_sequence: HashMap<u64, SnapshotRow> =
        rows.into_iter().map(|row| (row.sequence, row)).collect();
    let decisions = known.values().flat_map(|of_one| decide(&subject.keep, of_one));
    for Decision { sequence, mut reasons } in decisions {
        if Breach::NoFloor.is_on() {
            reasons.retain(|reason| *reason != Reason::Floor);
        }
        if let Some(row) = by_sequence.remove(&sequence) {
            decided.push((row, reasons.iter().map(Reason::to_string).collect()));
        }
    }
    decided.sort_by_key(|(row, _)| std::cmp::Reverse(row.sequence));
    Ok(Judged { subject, decided })
}

pub(super) fn read(
    vault: &OpenVault,
    row: &SnapshotRow,
    unpacker: &mut Unpacker,
) -> Option<snapshot::Snapshot> {
    let object = vault.get(row.ordinal).ok()?.open(&vault.id_key, unpacker).ok()?;
    snapshot::Snapshot::decode(&object).ok()
}

fn candidate(row: &SnapshotRow, manifest: &snapshot::Snapshot, pinned: &BTreeSet<u64>) -> Snapshot {
    Snapshot {
        sequence: row.sequence,
        at: i64::try_from(row.server_time).unwrap_or(i64::MAX),
        completeness: if manifest.errors == 0 { Completeness::Complete } else { Completeness::Partial },
        tags: manifest.tags.clone(),
        pinned: if pinned.contains(&row.sequence) { Pinned::Yes } else { Pinned::No },
    }
}

fn describe(judged: &Judged, detail: Detail) -> Value {
    let Subject { client, held, .. } = &judged.subject;
    let dropped = judged.dropped().count();
    let rfc3339 = |seconds: u64| {
        jiff::Timestamp::from_second(seconds as i64).map_or_else(|_| String::new(), |at| at.to_string())
    };
    let one = |(row, reasons): &(SnapshotRow, Vec<String>)| {
        let kept = !reasons.is_empty() || held.is_some();
        let mut reasons = reasons.clone();
        if reasons.is_empty() && held.is_some() {
            reasons.push("brake".to_owned());
        }
        json!({
            "id": row.id.to_string(), "sequence": row.sequence, "time": rfc3339(row.server_time), "kept": kept,
            "reasons": reasons,
        })
    };
    let snapshots: Vec<Value> = match detail {
        Detail::Snapshots => judged.decided.iter().map(one).collect(),
        Detail::Sums => Vec::new(),
    };
    json!({
        "client": client.name, "policy": client.policy, "kept": judged.decided.len() - dropped,
        "forgotten": dropped, "brake": held, "snapshots": snapshots,
    })
}
