//! Pins, and snapshots that are forgotten or had back by name.

use backhaul_store::mark::State;
use backhaul_store::vault::Marking;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::chores::{Outcome, Tools};
use crate::error::ServerError;

/// What is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Nothing forgets it from now on.
    Pin,
    /// Retention decides again.
    Unpin,
    /// It is had back.
    Unforget,
}

impl What {
    /// The command's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pin => "pin",
            Self::Unpin => "unpin",
            Self::Unforget => "unforget",
        }
    }

    fn becomes(self) -> State {
        match self {
            Self::Pin => State::Pinned,
            Self::Unpin | Self::Unforget => State::Kept,
        }
    }

    /// Why a snapshot that stands like this cannot be marked so.
    fn objection(self, state: State) -> Option<&'static str> {
        match (self, state) {
            (Self::Pin, State::Forgotten) => Some("it is forgotten: `backhaul unforget` first"),
            (Self::Unpin, State::Kept | State::Forgotten) => Some("it is not pinned"),
            (Self::Unforget, State::Kept | State::Pinned) => Some("it is not forgotten"),
            _ => None,
        }
    }
}

/// Snapshots, and what is said about them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// What.
    pub what: What,
    /// Their ids, whole.
    pub snapshots: Vec<String>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// Marks all of them, or none when one cannot be.
pub(crate) fn carry_out(request: &Request, tools: &mut Tools<'_>) -> Result<Outcome, ServerError> {
    let (rows, marks) = (tools.vault.vault.snapshots(None)?, tools.vault.vault.marks()?);
    let mut chosen = Vec::new();
    for text in &request.snapshots {
        let row = rows.iter().find(|row| row.id.to_string() == *text);
        let row = row.ok_or_else(|| ServerError::Usage(format!("there is no snapshot {text} any more")))?;
        let state = marks.iter().find(|mark| mark.id == row.id).map_or(State::Kept, |mark| mark.state);
        if let Some(why) = request.what.objection(state) {
            return Err(ServerError::Usage(format!("snapshot {}: {why}", &text[..12])));
        }
        chosen.push(row);
    }
    let state = request.what.becomes();
    let marking = Marking { state, now: tools.now, grace: 0, reason: &request.reason };
    for row in &chosen {
        tools.vault.vault.mark(row.client, row.sequence, marking)?;
    }
    let one = |row: &&backhaul_store::catalog::SnapshotRow| json!({ "id": row.id.to_string(), "client": row.client_name, "state": state.as_str() });
    let did = match request.what {
        What::Pin => "pinned; nothing forgets what is pinned",
        What::Unpin => "unpinned; retention decides again",
        What::Unforget => "had back, and listed again",
    };
    let count = chosen.len();
    let noun = if count == 1 { "snapshot" } else { "snapshots" };
    Ok(Outcome {
        words: format!("{count} {noun} {did}"),
        document: json!(chosen.iter().map(one).collect::<Vec<_>>()),
    })
}
