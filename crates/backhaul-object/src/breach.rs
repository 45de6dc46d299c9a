//! Laws that the campaign breaks on purpose, to see that its suites notice. Without the feature `sabotage` none is ever
//! broken, and nothing of this is left in the program.

/// A law, and how it is broken. The variable `BACKHAUL_BREACH` names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// L1: packs are acknowledged before they are synced.
    UnsyncedPacks,
    /// L1: the manifest is written before what it needs.
    ManifestFirst,
    /// L1: what was lost and comes back has its place in the index before its pack is durable.
    RevivedEarly,
    /// L2: an error of the disk while a record is written is passed over.
    SwallowedWrite,
    /// L3: after a failed sync writing goes on, and the next sync is believed.
    RetriedSync,
    /// L4: what is condemned goes at once, whoever relies on it.
    Unfenced,
    /// L5: a client believes what it knew of a vault that has lost something since.
    BelievedState,
    /// L6: a rebuild leaves out the last record of a pack.
    ForgetfulRebuild,
    /// L7: an object is not hashed again when it is opened.
    UncheckedContent,
    /// L8: a repair writes over what it repairs, in place.
    RepairInPlace,
    /// L9: a peer may ask about as much at once as it likes.
    Unlimited,
    /// L10: what no rule keeps is forgotten, though it is among the newest.
    NoFloor,
    /// L10: a client's snapshots are forgotten and go, though its brake is tripped.
    UnheededBrake,
}

impl Breach {
    /// True while this law is to be broken.
    #[cfg(feature = "sabotage")]
    pub fn is_on(self) -> bool {
        std::env::var("BACKHAUL_BREACH").is_ok_and(|name| name == format!("{self:?}"))
    }

    /// True while this law is to be broken: never.
    #[cfg(not(feature = "sabotage"))]
    pub const fn is_on(self) -> bool {
        false
    }
}
