//! What each rule of keeping keeps, said at the command line, against a model of the test's own; and whose clock it goes by.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use backhaul_tests::clocks::off_by;
use backhaul_tests::{Home, TestServer};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

/// Of the snapshots, newest first: when each was taken, and whether it would be kept.
fn planned(home: &Home, rule: &[&str]) -> Vec<(DateTime, bool)> {
    let plan = home.json(&[&["forget", "--dry-run"], rule].concat());
    let rows = plan["clients"][0]["snapshots"].as_array().unwrap().clone();
    let time = |row: &Value| row["time"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let mut rows: Vec<_> = rows.iter().map(|row| (time(row), row["kept"] == true)).collect();
    rows.sort_by(|a, b| b.cmp(a));
    rows.into_iter().map(|(time, kept)| (time.to_zoned(TimeZone::UTC).datetime(), kept)).collect()
}

/// The newest of each of the newest `count` periods, and the newest three.
fn model(times: &[DateTime], count: usize, period: &dyn Fn(&DateTime) -> String) -> Vec<bool> {
    let mut seen = BTreeSet::new();
    let is_newest = times.iter().map(|time| seen.len() < count && seen.insert(period(time)));
    is_newest.enumerate().map(|(at, newest)| newest || at < 3).collect()
}

fn backup(home: &Home, tree: &Path, days: i64) -> Option<()> {
    fs::write(tree.join("day"), days.to_string()).unwrap();
    let mut command = off_by(days, home.command(&["-q", "backup", tree.to_str().unwrap()]))?;
    let output = command.env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "day {days}: {}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

#[test]
fn each_rule_keeps_the_newest_of_its_own_periods() {
    let (home, dir) = (Home::new(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("day"), "").unwrap();
    home.run(&["-q", "quickstart", dir.path().to_str().unwrap()]).ok();
    for days in [1, 1, 2, 3, 9, 10, 17, 40, 41, 75, 110, 190, 270, 330, 331, 332] {
        let Some(()) = backup(&home, dir.path(), days) else { return };
    }
    let times: Vec<DateTime> =
        planned(&home, &["--keep-last", "1"]).into_iter().map(|(time, _)| time).collect();
    // None lie 90 days apart: where a clock may have jumped, more is kept.
    assert_eq!(times.len(), 17);
    let week = |time: &DateTime| {
        let week = time.date().iso_week_date();
        format!("{} {}", week.year(), week.week())
    };
    type Period<'a> = &'a dyn Fn(&DateTime) -> String;
    let periods: [(&str, usize, Period<'_>); 6] = [
        ("--keep-last", 5, &|time| time.to_string()),
        ("--keep-hourly", 9, &|time| format!("{} {}", time.date(), time.hour())),
        ("--keep-daily", 8, &|time| time.date().to_string()),
        ("--keep-weekly", 6, &week),
        ("--keep-monthly", 5, &|time| format!("{} {}", time.year(), time.month())),
        ("--keep-yearly", 2, &|time| time.year().to_string()),
    ];
    let mut all = BTreeSet::new();
    for (rule, count, period) in periods {
        let kept: Vec<bool> =
            planned(&home, &[rule, &count.to_string()]).into_iter().map(|(_, kept)| kept).collect();
        assert_eq!(kept, model(&times, count, period), "{rule} {count}: {times:?}");
        all.insert(kept);
    }
    assert!(all.len() >= 5, "rules that keep the same say nothing of each other: {all:?}");
    let within: Vec<bool> =
        planned(&home, &["--keep-within", "20d"]).into_iter().map(|(_, kept)| kept).collect();
    assert!(within.contains(&false), "what is older goes: {times:?}");
    let newest = times[0];
    // A gap counts as two days at most, where a clock may have jumped; so more is kept than by the calendar, never less.
    for (time, kept) in times.iter().zip(&within) {
        assert!(*kept || newest.duration_since(*time).as_hours() > 20 * 24, "{time}");
    }
}

/// A client says what time it is, and nobody goes by it.
#[test]
fn snapshots_are_judged_by_the_servers_clock_and_not_by_the_clients() {
    let (server, dir) = (TestServer::new(), tempfile::tempdir().unwrap());
    fs::write(dir.path().join("day"), "").unwrap();
    let client = server.client("desk", &[dir.path()]);
    for days in 0..5 {
        let Some(()) = backup(&client, dir.path(), days) else { return };
    }
    let plan = planned(&server.home, &["--client", "desk", "--keep-daily", "5"]);
    let days: BTreeSet<_> = plan.iter().map(|(time, _)| time.date()).collect();
    assert!(plan.len() == 5 && days.len() <= 2, "by the server's clock all are of this day: {plan:?}");
    assert_eq!(
        plan.iter().filter(|(_, kept)| *kept).count(),
        3,
        "the newest three, whatever is said: {plan:?}"
    );
}
