//! A client in a rollout: how it is named, its place in the order, and what is known of it.

use serde::{Deserialize, Serialize};

/// A client's key, written as 32 hexadecimal digits so that it can be a key in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Key(pub(super) [u8; 16]);

impl From<Key> for String {
    fn from(key: Key) -> Self {
        format!("{:032x}", u128::from_be_bytes(key.0))
    }
}

impl TryFrom<String> for Key {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(|key| Self(key.to_be_bytes()))
    }
}

/// What has become of the new version at a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Progress {
    /// It has not got it, or has not been heard of.
    Waiting,
    /// It goes by it, and no run has finished.
    Applied,
    /// Its first run went well.
    Succeeded,
    /// Its first run did not, or it could not go by it at all.
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// The wave that brought it in; none while it keeps the previous version.
    pub(super) wave: Option<usize>,
    pub(super) progress: Progress,
}

impl Member {
    pub(super) fn new(wave: Option<usize>) -> Self {
        Self { wave, progress: Progress::Waiting }
    }

    pub(super) fn has_finished(self) -> bool {
        matches!(self.progress, Progress::Succeeded | Progress::Failed)
    }
}

/// A client's place in the order of a version: always the same, and another for the next version, so that it is
/// not always the same clients that go first. FNV-1a, with the finish of SplitMix64 because its upper bits mix badly.
pub(super) fn place(key: &[u8; 16], version: u64) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let mut hash = key.iter().chain(&version.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, fnv);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}
