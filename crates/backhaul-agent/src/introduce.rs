//! What this machine says about itself when it dials.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

use backhaul_proto::wire;

use crate::clock;
use crate::gates::Conditions;
use crate::home::AgentHome;
use crate::remote::SOFTWARE;
use crate::signals::metered::Metered;
use crate::signals::power::Supply;

/// A hello of this machine, without an intent.
pub fn hello(home: &AgentHome, trigger: wire::Trigger) -> wire::Hello {
    wire::Hello {
        software: SOFTWARE.to_owned(),
        client_time: clock::now(),
        trigger: trigger.into(),
        instance: instance(home).into(),
        terms_version: home.terms().0,
        report: Some(wire::Report { host: host(), zone: zone(), ..Default::default() }),
        ..Default::default()
    }
}

/// How the machine stands.
pub fn report(conditions: &Conditions, listens_on: u16) -> wire::Report {
    let supply = match (conditions.power.supply, conditions.power.battery_percent) {
        (Supply::Battery, _) => wire::Supply::Battery,
        (Supply::Mains, Some(_)) => wire::Supply::Charging,
        (Supply::Mains, None) => wire::Supply::Wall,
    };
    let network = conditions.network.as_ref();
    wire::Report {
        network: network.map(|network| network.fingerprint.0.to_vec().into()).unwrap_or_default(),
        source: network.map(|network| network.source.to_string()).unwrap_or_default(),
        supply: supply.into(),
        battery_percent: conditions.power.battery_percent.unwrap_or(0).into(),
        metered: conditions.metered == Metered::Yes,
        zone: zone(),
        host: host(),
        listens_on: listens_on.into(),
    }
}

/// 16 bytes that are another machine's on another machine, even if all files of this one were copied there: this boot
/// of the kernel, and where the home lies. Not the number of its device, which is another after each mount on btrfs,
/// overlays and NFS.
fn instance(home: &AgentHome) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default());
    hasher.update(&fs::read("/etc/machine-id").unwrap_or_default());
    hasher.update(home.whole().as_os_str().as_bytes());
    if let Ok(meta) = fs::metadata(home.dir()) {
        hasher.update(&meta.ino().to_le_bytes());
    }
    hasher.finalize().as_bytes()[..16].to_vec()
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The name of the machine's time zone, where it has one.
fn zone() -> String {
    jiff::tz::TimeZone::system().iana_name().unwrap_or_default().to_owned()
}
