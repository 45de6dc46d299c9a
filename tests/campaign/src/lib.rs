//! The reliability campaign: the real store, while power, processes, disks and bits fail.
//!
//! - [`stage`]: what is saved and must come back, known outside of what is tested; [`local`]: a client without a network;
//! - [`story`]: what happens; [`laws`]: what must be true afterwards, whatever happened;
//! - [`harm`]: what is done to a vault's files; [`mend`]: what `check --repair` does;
//! - [`teller`]: a story in a process of its own;
//! - [`disk`], [`record`], [`states`]: a disk that writes down what is asked of it, and the states in which a cut leaves it;
//! - [`trace`]: system calls that fail or kill;
//! - [`real`]: the real program, in homes that are copied for each case;
//! - [`place`]: a restore over what has changed, to which something happens;
//! - [`power`], [`sync`], [`twice`], [`kill`], [`fault`], [`daemons`], [`around`], [`rot`], [`flips`], [`misplace`]: the suites, each a command;
//! - [`golden`]: small vaults with every kind of file, for [`flips`];
//! - [`sabotage`]: laws broken on purpose, which the suites must notice.
//!
//! Invariants:
//! - the same seed gives the same cases;
//! - nothing that is tested says what is true: the oracle is the stage's and the story's.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "for tests only")]

pub mod around;
pub mod daemons;
pub mod disk;
pub mod fault;
pub mod flips;
pub mod golden;
pub mod harm;
pub mod kill;
pub mod laws;
pub mod local;
pub mod mend;
pub mod misplace;
pub mod place;
pub mod power;
pub mod real;
pub mod record;
pub mod rot;
pub mod sabotage;
pub mod stage;
pub mod states;
pub mod story;
pub mod sync;
pub mod teller;
pub mod trace;
pub mod twice;
