//! What is said: subject, body and document for each kind of alert, for whoever looks after the backups and for the
//! owner of a machine.

use serde::Serialize;

use super::{AlertKind, What};
use crate::fleet::AlertRow;

/// Who reads a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Whoever looks after the backups.
    Operator,
    /// The person whose machine it is: knows nothing of servers.
    Owner,
}

/// A message, ready for every channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// In a line.
    pub subject: String,
    /// In full, for people.
    pub body: String,
    /// In full, for programs.
    pub document: Document,
}

/// A message for programs (schemas/output/alert.json).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Document {
    /// The alert's number on its server; none for a test.
    pub id: Option<i64>,
    /// An [`AlertKind`], or `test`.
    pub kind: String,
    /// `raised`, `reminder`, `cleared` or `test`.
    pub what: String,
    /// Which server says so.
    pub server: String,
    /// Which client.
    pub client: Option<String>,
    /// Which network group.
    pub group: Option<String>,
    /// RFC 3339.
    pub raised_at: String,
    /// RFC 3339.
    pub cleared_at: Option<String>,
    /// In a line.
    pub subject: String,
    /// What is wrong.
    pub text: String,
    /// What stands in the way.
    pub obstacle: String,
    /// Commands to run next on the server.
    pub next: Vec<String>,
}

/// The message that shows that a channel works. `now` is seconds since 1970.
pub fn test(server: &str, now: u64) -> Message {
    let subject = "Backhaul: test of an alert channel".to_owned();
    let text =
        format!("This is a test: alerts of the Backhaul server {server} arrive here. Nothing is wrong.");
    Message {
        body: format!("{text}\n"),
        document: Document {
            id: None,
            kind: "test".to_owned(),
            what: "test".to_owned(),
            server: server.to_owned(),
            client: None,
            group: None,
            raised_at: rfc3339(now),
            cleared_at: None,
            subject: subject.clone(),
            text,
            obstacle: String::new(),
            next: vec!["backhaul alerts".to_owned()],
        },
        subject,
    }
}

/// The message about an alert. `now` is seconds since 1970.
pub fn compose(server: &str, row: &AlertRow, what: What, audience: Audience, now: u64) -> Message {
    let about = About::of(row);
    let next = match what {
        What::Cleared => Vec::new(),
        What::Raised | What::Reminder => next(row.alert.kind, row.client.as_deref()),
    };
    let headline = match what {
        What::Raised => format!("Backhaul: {}", about.wrong()),
        What::Reminder => format!("Backhaul, still: {}", about.wrong()),
        What::Cleared => format!("Backhaul: {}", about.right()),
    };
    let (subject, body) = match audience {
        Audience::Operator => (headline.clone(), for_operator(server, row, &about, what, &next, now)),
        Audience::Owner => for_owner(row, &about, what, now),
    };
    let document = Document {
        id: Some(row.id),
        kind: row.alert.kind.as_str().to_owned(),
        what: what.as_str().to_owned(),
        server: server.to_owned(),
        client: row.client.clone(),
        group: row.alert.group.clone(),
        raised_at: rfc3339(row.raised_at),
        cleared_at: row.cleared_at.map(rfc3339),
        subject: headline,
        text: row.alert.text.clone(),
        obstacle: row.alert.obstacle.clone(),
        next,
    };
    Message { subject, body, document }
}

/// What to run on the server about an alert, the first thing first.
pub fn next(kind: AlertKind, client: Option<&str>) -> Vec<String> {
    let name = client.unwrap_or("NAME");
    let commands: &[String] = match kind {
        AlertKind::Overdue => &[format!("backhaul client show {name}"), "backhaul status".to_owned()],
        AlertKind::Failing => {
            &[format!("backhaul client show {name}"), format!("backhaul client run {name} --wait")]
        }
        AlertKind::GroupSilent => &["backhaul status".to_owned()],
        AlertKind::Lost => {
            &[format!("backhaul snapshots --client {name}"), format!("backhaul client revoke {name}")]
        }
        AlertKind::Clone => {
            &[format!("backhaul client revoke {name}"), format!("backhaul client add {name}")]
        }
        AlertKind::RolloutHalted => &["backhaul policy list".to_owned(), "backhaul status".to_owned()],
        AlertKind::StorageFull => &["backhaul stats".to_owned()],
        AlertKind::Damage => &["backhaul check".to_owned(), "backhaul check --status".to_owned()],
        AlertKind::Brake => &[
            format!("backhaul snapshots --client {name}"),
            format!("backhaul forget --release-brake --client {name}"),
        ],
        AlertKind::Upkeep => &["backhaul status".to_owned(), "backhaul check".to_owned()],
    };
    commands.to_vec()
}

/// What an alert is about, in words.
struct About {
    kind: AlertKind,
    /// The client, or the group, or everything.
    name: String,
}

impl About {
    fn of(row: &AlertRow) -> Self {
        let name = match (&row.client, &row.alert.group) {
            (Some(client), _) => client.clone(),
            (None, Some(group)) => format!("group {group}"),
            (None, None) => "the fleet".to_owned(),
        };
        Self { kind: row.alert.kind, name }
    }

    fn wrong(&self) -> String {
        let name = &self.name;
        match self.kind {
            AlertKind::Overdue => format!("{name} is overdue for a backup"),
            AlertKind::Failing => format!("backups of {name} fail"),
            AlertKind::GroupSilent => format!("{name} has gone silent"),
            AlertKind::Lost => format!("{name} is lost"),
            AlertKind::Clone => format!("{name} exists twice"),
            AlertKind::RolloutHalted => format!("the rollout to {name} was halted"),
            AlertKind::StorageFull => "the vault has hardly any room left".to_owned(),
            AlertKind::Damage => "the vault is damaged".to_owned(),
            AlertKind::Brake => format!("{name} has changed far more than usual"),
            AlertKind::Upkeep => "what the server does for its vault by itself fails".to_owned(),
        }
    }

    fn right(&self) -> String {
        let name = &self.name;
        match self.kind {
            AlertKind::Overdue => format!("{name} is protected again"),
            AlertKind::Failing => format!("backups of {name} work again"),
            AlertKind::GroupSilent => format!("{name} answers again"),
            AlertKind::Lost => format!("{name} is back"),
            AlertKind::Clone => format!("{name} exists once again"),
            AlertKind::RolloutHalted => format!("the rollout to {name} goes on"),
            AlertKind::StorageFull => "the vault has room again".to_owned(),
            AlertKind::Damage => "the vault is whole again".to_owned(),
            AlertKind::Brake => format!("somebody has looked at what {name} changed"),
            AlertKind::Upkeep => "what the server does for its vault by itself works again".to_owned(),
        }
    }

    /// What it means, and whose turn it is.
    fn meaning(&self) -> &'static str {
        match self.kind {
            AlertKind::Overdue => {
                "No backup has failed: none could begin. The machine has to be switched on and reach this server; \
                 it is backed up by itself as soon as it does."
            }
            AlertKind::Failing => {
                "The machine is there, but its backups end in an error. Waiting does not help: somebody has to look \
                 at the error below."
            }
            AlertKind::GroupSilent => {
                "Most machines of one network stopped answering at once, so the cause is most likely the network or \
                 its power, not the machines. No further alerts are sent about each of them."
            }
            AlertKind::Lost => {
                "Nobody waits for it any more: the server has stopped dialling. Its snapshots are kept. When the \
                 machine is gone for good, revoke it; when it comes back, it is let in as before."
            }
            AlertKind::Clone => {
                "Two machines use the identity of one client, as after a disk image was copied. Their backups would \
                 take turns in one history: revoke it, and let both join anew."
            }
            AlertKind::RolloutHalted => {
                "Too many machines failed after the change, so the rest does not get it. Only an operator resumes."
            }
            AlertKind::StorageFull => {
                "What is stored is safe, but no new backup may begin when the disk is full: make room, or add some."
            }
            AlertKind::Damage => {
                "The disk has given back other bytes than were written. What the parity makes good is repaired by \
                 itself and raises no alert; this was more. Look at the disk; whatever clients still have comes back \
                 with their next backup."
            }
            AlertKind::Brake => {
                "Files may have been encrypted or removed by somebody else. Older snapshots are held until you say \
                 that all is well: look with diff at what has changed, and restore from before if it was not meant."
            }
            AlertKind::Upkeep => {
                "Backups go on, and what is stored stays as it is. But until it works again room is not given back, \
                 damage is not found, or the server's own settings are not kept: it is tried again by itself, and run \
                 by hand it says the same as here."
            }
        }
    }
}

fn for_operator(
    server: &str,
    row: &AlertRow,
    about: &About,
    what: What,
    next: &[String],
    now: u64,
) -> String {
    let mut body = String::new();
    let mut line = |text: &str| {
        body.push_str(text);
        body.push('\n');
    };
    match (what, row.cleared_at) {
        (What::Cleared, at) => {
            let at = at.unwrap_or(now);
            line(&format!("It is over: {}.", about.right()));
            line("");
            line(&format!("What was:  {}", row.alert.text));
            line(&format!("From:      {}", time(row.raised_at)));
            line(&format!("To:        {} (after {})", time(at), span(row.raised_at, at)));
        }
        (What::Raised | What::Reminder, _) => {
            line(&row.alert.text);
            line("");
            line(about.meaning());
            line("");
            line(&format!("About:     {}", about.name));
            line(&format!("Since:     {} (for {})", time(row.raised_at), span(row.raised_at, now)));
            if !row.alert.obstacle.is_empty() {
                line(&format!("Obstacle:  {}", row.alert.obstacle));
            }
            line("");
            line("Next, on the server:");
            next.iter().for_each(|command| line(&format!("  {command}")));
        }
    }
    line("");
    line(&format!("Backhaul on {server}, alert {} ({})", row.id, row.alert.kind));
    body
}

fn for_owner(row: &AlertRow, about: &About, what: What, now: u64) -> (String, String) {
    let name = &about.name;
    if what == What::Cleared {
        let subject = format!("Your computer {name} is backed up again");
        return (subject, format!("All is well again: {name} was backed up. You need do nothing.\n"));
    }
    let subject = match what {
        What::Reminder => format!("Your computer {name} is still not backed up"),
        What::Raised | What::Cleared => format!("Your computer {name} is not being backed up"),
    };
    let body = format!(
        "Your computer {name} could not be backed up for some time: {}\n\n\
         We noticed on {} ({} ago). What has changed on it since its last backup would be lost with its disk.\n\n\
         What you can do: switch it on and connect it to the network, and leave it on for an hour. The backup starts \
         by itself. To start it at once, run on it:\n  backhaul backup\n\n\
         If you no longer have this computer, please tell whoever looks after the backups.\n",
        row.alert.text,
        time(row.raised_at),
        span(row.raised_at, now),
    );
    (subject, body)
}

fn rfc3339(seconds: u64) -> String {
    timestamp(seconds).to_string()
}

/// In UTC: sender and reader may live apart.
fn time(seconds: u64) -> String {
    timestamp(seconds).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn timestamp(seconds: u64) -> jiff::Timestamp {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX)
}

fn span(from: u64, to: u64) -> String {
    match to.saturating_sub(from) {
        seconds @ 0..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::Alert;

    const NOW: u64 = 1_764_000_000;

    fn row(kind: AlertKind) -> AlertRow {
        let alert = Alert {
            kind,
            client: None,
            group: None,
            text: "the newest snapshot is 3 days old, the policy allows 36 h".to_owned(),
            obstacle: "absent since Tuesday".to_owned(),
        };
        let client = Some("laptop-7".to_owned());
        let raised_at = NOW - 3 * 86_400;
        AlertRow { id: 17, alert, client, owner: None, raised_at, cleared_at: None, announce: None }
    }

    fn said(kind: AlertKind, what: What, audience: Audience) -> Message {
        compose("backup.example.org", &row(kind), what, audience, NOW)
    }

    #[test]
    fn an_alarm_says_what_who_since_when_why_and_what_next() {
        for kind in AlertKind::ALL {
            for what in [What::Raised, What::Reminder] {
                let message = said(kind, what, Audience::Operator);
                for part in [
                    "laptop-7",
                    "2025-11-21 16:00 UTC",
                    "3 days",
                    "absent since Tuesday",
                    "36 h",
                    "  backhaul ",
                    "alert 17",
                ] {
                    assert!(message.body.contains(part), "{kind}: no {part:?} in {}", message.body);
                }
                assert!(!message.document.next.is_empty());
            }
        }
    }

    #[test]
    fn every_kind_reads_differently_in_each_state() {
        let mut subjects = std::collections::BTreeSet::new();
        for kind in AlertKind::ALL {
            for what in [What::Raised, What::Reminder, What::Cleared] {
                let message = said(kind, what, Audience::Operator);
                assert!(!message.subject.contains('\n'));
                assert!(subjects.insert(message.subject), "{kind} {what:?}");
            }
        }
        let overdue = said(AlertKind::Overdue, What::Raised, Audience::Operator).body;
        let failing = said(AlertKind::Failing, What::Raised, Audience::Operator).body;
        assert!(overdue.contains("switched on") && !overdue.contains("error"), "{overdue}");
        assert!(failing.contains("error") && !failing.contains("switched on"), "{failing}");
    }

    #[test]
    fn an_all_clear_says_how_long_it_took_and_asks_for_nothing() {
        let mut row = row(AlertKind::Failing);
        row.cleared_at = Some(NOW - 86_400);
        let message = compose("backup", &row, What::Cleared, Audience::Operator, NOW);
        assert!(message.body.contains("2025-11-23 16:00 UTC (after 2 days)"), "{}", message.body);
        assert!(!message.body.contains("  backhaul") && message.document.next.is_empty());
        assert_eq!(message.document.cleared_at.as_deref(), Some("2025-11-23T16:00:00Z"));
    }

    #[test]
    fn an_owner_reads_of_their_computer_and_not_of_the_server() {
        for kind in AlertKind::ALL.into_iter().filter(|kind| kind.concerns_owner()) {
            let message = said(kind, What::Raised, Audience::Owner);
            assert!(message.subject.starts_with("Your computer laptop-7"), "{}", message.subject);
            assert!(message.body.contains("switch it on") && !message.body.contains("client show"));
            assert!(said(kind, What::Cleared, Audience::Owner).body.contains("do nothing"));
        }
        assert!(!AlertKind::Failing.concerns_owner(), "an owner cannot mend a backup that fails");
    }
}
