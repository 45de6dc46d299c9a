//! Durations, sizes and shares as people write them.

/// `90s`, `30m`, `4h`, `1d`, in seconds.
pub fn duration(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at(text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at))?);
    let unit = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        "s" => 1,
        _ => return None,
    };
    number.parse::<u32>().ok().filter(|n| *n > 0).map(|n| i64::from(n) * unit)
}

/// Seconds as [`duration`] reads them, in the largest unit that is exact.
pub fn seconds(seconds: i64) -> String {
    let unit = [(86_400, "d"), (3_600, "h"), (60, "m")].into_iter().find(|(unit, _)| seconds % unit == 0);
    match unit {
        Some((unit, name)) if seconds > 0 => format!("{}{name}", seconds / unit),
        _ => format!("{seconds}s"),
    }
}

/// Seconds for people: two units at most, rounded down.
pub fn about(seconds: i64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", seconds.max(0)),
        (0, 0, m) => format!("{m} min"),
        (0, h, 0) => format!("{h} h"),
        (0, h, m) => format!("{h} h {m} min"),
        (1, h, _) => format!("{} h", 24 + h),
        (d, _, _) => format!("{d} days"),
    }
}

/// `500kB`, `20MB`, `200MiB`, `1GiB`, or a plain number, in bytes.
pub fn size(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// `5%`, as a number from 1 to 100.
pub fn percent(text: &str) -> Option<u8> {
    text.strip_suffix('%')?.trim().parse().ok().filter(|n| (1..=100).contains(n))
}

/// `1/3`, `25%` or a whole number, of a total.
pub fn share(text: &str, total: usize) -> Option<usize> {
    if let Some((above, below)) = text.split_once('/') {
        let (above, below): (usize, usize) = (above.trim().parse().ok()?, below.trim().parse().ok()?);
        return (below > 0 && above <= below).then(|| (total * above).div_ceil(below));
    }
    match percent(text) {
        Some(percent) => Some((total * usize::from(percent)).div_ceil(100)),
        None => text.parse().ok().filter(|n| *n <= total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_read() {
        assert_eq!((duration("90s"), duration("4h"), duration("1d")), (Some(90), Some(14_400), Some(86_400)));
        assert_eq!((duration("0d"), duration("d"), duration(""), duration("1ü")), (None, None, None, None));
        assert_eq!(
            (seconds(14_400), seconds(90), seconds(129_600)),
            ("4h".into(), "90s".into(), "36h".into())
        );
        assert_eq!(
            (size("200MiB"), size("20MB"), size("7"), size("MB")),
            (Some(200 << 20), Some(20_000_000), Some(7), None)
        );
        assert_eq!(
            (percent("5%"), percent("0%"), percent("101%"), percent("5")),
            (Some(5), None, None, None)
        );
        assert_eq!(
            (share("1/3", 12), share("25%", 10), share("3", 2), share("2", 2)),
            (Some(4), Some(3), None, Some(2))
        );
        assert_eq!(
            (about(59), about(7_260), about(100_000), about(300_000)),
            ("59 s".into(), "2 h 1 min".into(), "27 h".into(), "3 days".into())
        );
    }
}
