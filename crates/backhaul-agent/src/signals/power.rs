//! Where this machine's power comes from, by `/sys/class/power_supply`.

use std::fs;
use std::path::Path;

/// What the machine runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Supply {
    /// The grid, as far as it can be told: a machine without sensors runs on it too.
    #[default]
    Mains,
    /// A battery that gets emptier.
    Battery,
}

/// The power of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Power {
    /// Where it comes from.
    pub supply: Supply,
    /// How full the machine's batteries are together, 0 to 100; none without batteries that tell.
    pub battery_percent: Option<u8>,
}

/// One entry of the folder.
struct Sensor {
    battery: bool,
    online: Option<bool>,
    discharging: bool,
    percent: Option<u8>,
}

/// Reads the sensors below `root` (`/sys/class/power_supply`).
///
/// Any supply online that is no battery means mains, and so does a machine without batteries: the empty USB-C
/// ports of a desktop are supplies that are off. Batteries of devices (mice) do not count.
pub fn read(root: &Path) -> Power {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let sensors: Vec<Sensor> = entries.filter_map(|entry| sensor(&entry.path())).collect();
    let (batteries, supplies): (Vec<_>, Vec<_>) = sensors.iter().partition(|sensor| sensor.battery);
    let online = supplies.iter().any(|supply| supply.online == Some(true));
    let offline = supplies.iter().any(|supply| supply.online == Some(false));
    let discharging = batteries.iter().any(|battery| battery.discharging);
    let on_battery = !batteries.is_empty() && !online && (offline || discharging);
    let percents: Vec<u32> = batteries.iter().filter_map(|battery| battery.percent.map(u32::from)).collect();
    let mean = percents.iter().sum::<u32>().checked_div(percents.len() as u32);
    Power {
        supply: if on_battery { Supply::Battery } else { Supply::Mains },
        battery_percent: mean.map(|percent| percent as u8),
    }
}

fn sensor(dir: &Path) -> Option<Sensor> {
    let field = |name| fs::read_to_string(dir.join(name)).ok().map(|text| text.trim().to_owned());
    if field("scope").as_deref() == Some("Device") || field("present").as_deref() == Some("0") {
        return None;
    }
    Some(Sensor {
        battery: field("type")? == "Battery",
        // 2 is a supply of fixed voltage, as good as 1.
        online: field("online").map(|online| online != "0"),
        discharging: field("status").as_deref() == Some("Discharging"),
        percent: field("capacity").and_then(|text| text.parse().ok()).map(|percent: u8| percent.min(100)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// A folder of sensors: name, and the fields of each.
    fn sensors(entries: &[(&str, &[(&str, &str)])]) -> Power {
        let root = tempfile::tempdir().unwrap();
        for (name, fields) in entries {
            fs::create_dir(root.path().join(name)).unwrap();
            for (field, value) in *fields {
                fs::write(root.path().join(name).join(field), format!("{value}\n")).unwrap();
            }
        }
        read(root.path())
    }

    fn power(supply: Supply, battery_percent: Option<u8>) -> Power {
        Power { supply, battery_percent }
    }

    const AC_ON: (&str, &[(&str, &str)]) = ("AC", &[("type", "Mains"), ("online", "1")]);
    const AC_OFF: (&str, &[(&str, &str)]) = ("AC", &[("type", "Mains"), ("online", "0")]);
    const FULLER: (&str, &[(&str, &str)]) =
        ("BAT0", &[("type", "Battery"), ("present", "1"), ("status", "Discharging"), ("capacity", "81")]);

    #[test]
    fn a_laptop_in_and_out_of_its_dock() {
        assert_eq!(sensors(&[AC_ON, FULLER]), power(Supply::Mains, Some(81)));
        assert_eq!(sensors(&[AC_OFF, FULLER]), power(Supply::Battery, Some(81)));
        // Only a battery that tells.
        assert_eq!(sensors(&[FULLER]), power(Supply::Battery, Some(81)));
        let charging: &[_] = &[("type", "Battery"), ("status", "Charging"), ("capacity", "7")];
        assert_eq!(sensors(&[("BAT0", charging)]), power(Supply::Mains, Some(7)));
        let charger: &[_] = &[("type", "USB"), ("online", "1")];
        assert_eq!(sensors(&[AC_OFF, FULLER, ("ucsi", charger)]), power(Supply::Mains, Some(81)));
    }

    #[test]
    fn batteries_count_together() {
        let second: &[_] = &[("type", "Battery"), ("status", "Unknown"), ("capacity", "20")];
        assert_eq!(sensors(&[AC_OFF, FULLER, ("BAT1", second)]), power(Supply::Battery, Some(50)));
        let gone: &[_] = &[("type", "Battery"), ("present", "0"), ("capacity", "0")];
        assert_eq!(sensors(&[AC_OFF, FULLER, ("BAT1", gone)]), power(Supply::Battery, Some(81)));
        let silent: &[_] = &[("type", "Battery"), ("status", "Discharging"), ("capacity", "")];
        assert_eq!(sensors(&[("BAT1", silent)]), power(Supply::Battery, None));
    }

    #[test]
    fn a_desktop_runs_on_mains_whatever_is_plugged_into_it() {
        assert_eq!(sensors(&[]), power(Supply::Mains, None));
        assert_eq!(read(Path::new("/nowhere")), power(Supply::Mains, None));
        let mouse: &[_] =
            &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging"), ("capacity", "5")];
        let port: &[_] = &[("type", "USB"), ("online", "0")];
        assert_eq!(sensors(&[("hidpp_battery_0", mouse), ("ucsi", port)]), power(Supply::Mains, None));
    }
}
