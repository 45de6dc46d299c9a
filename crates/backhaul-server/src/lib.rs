//! The daemon with the vaults.
