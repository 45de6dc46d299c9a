//! The policy file as it is written: every key is optional, and a key that is not here is refused by name.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Metered, OnBattery};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileText {
    #[serde(default)]
    pub policy: BTreeMap<String, PolicyText>,
    #[serde(default)]
    pub admission: AdmissionText,
    #[serde(default)]
    pub groups: BTreeMap<String, Vec<String>>,
    pub rollout: Option<RolloutText>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct AdmissionText {
    pub slots: Option<usize>,
    #[serde(default)]
    pub per_group: BTreeMap<String, usize>,
    #[serde(default)]
    pub per_vault: BTreeMap<String, usize>,
    pub default_remote: Option<usize>,
    pub reserve_for_clients: Option<String>,
    pub hold: Option<usize>,
    pub dials: Option<usize>,
    pub bytes_per_s: Option<String>,
    #[serde(default)]
    pub bytes_per_group: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RolloutText {
    pub waves: Option<Vec<String>>,
    pub min_finishers: Option<u32>,
    pub soak: Option<String>,
    pub max_failure: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyText {
    pub initiator: Option<String>,
    pub period: Option<String>,
    pub rpo: Option<String>,
    pub spread: Option<String>,
    pub window: Option<WindowText>,
    pub priority: Option<u8>,
    pub alert_after: Option<String>,
    #[serde(default)]
    pub gates: GatesText,
    #[serde(default)]
    pub checkin: CheckInText,
    #[serde(default)]
    pub standing: StandingText,
    pub limit_upload: Option<String>,
    pub yields: Option<bool>,
    pub keep: Option<KeepText>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct KeepText {
    pub last: Option<u32>,
    pub hourly: Option<u32>,
    pub daily: Option<u32>,
    pub weekly: Option<u32>,
    pub monthly: Option<u32>,
    pub yearly: Option<u32>,
    pub within: Option<String>,
    pub tags: Option<Vec<String>>,
    pub grace: Option<String>,
    pub tz: Option<String>,
    pub forever: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WindowText {
    pub from: String,
    pub to: String,
    pub tz: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct GatesText {
    pub battery_min: Option<u8>,
    pub battery_min_late: Option<u8>,
    pub metered: Option<Metered>,
    pub metered_cap: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct CheckInText {
    pub safety_net: Option<String>,
    pub when_late: Option<String>,
    pub join_jitter: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct StandingText {
    pub keepalive: Option<String>,
    pub on_battery: Option<OnBattery>,
}
