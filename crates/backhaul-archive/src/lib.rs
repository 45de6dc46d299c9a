//! Files to objects and back: walk, backup, restore, browse.
pub mod browse;
pub mod dump;
pub mod find;
pub mod restore;
