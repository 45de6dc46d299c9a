//! Laws that the campaign breaks on purpose, to see that its suites notice. Without the feature `sabotage` none is ever
//! broken, and nothing of this is left in the program.

/// A law, and how it is broken. The variable `BACKHAUL_BREACH` names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Breach {
    /// L1: packs are acknowledged before they are synced.
    UnsyncedPacks,
    /// L1: the manifest is written before what it needs.
    ManifestFirst,
    /// L2: an error of the disk while a record is written is passed over.
    SwallowedWrite,
    /// L4: what is condemned goes at once, whoever relies on it.
    Unfenced,
    /// L6: a rebuild leaves out the last record of a pack.
    ForgetfulRebuild,
    /// L8: a repair writes over what it repairs, in place.
    RepairInPlace,
}

impl Breach {
    /// True while this law is to be broken.
    #[cfg(feature = "sabotage")]
    pub(crate) fn is_on(self) -> bool {
        std::env::var("BACKHAUL_BREACH").is_ok_and(|name| name == format!("{self:?}"))
    }

    /// True while this law is to be broken: never.
    #[cfg(not(feature = "sabotage"))]
    pub(crate) const fn is_on(self) -> bool {
        false
    }
}
