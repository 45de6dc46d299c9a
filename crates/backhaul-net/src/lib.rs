//! Carries a session: QUIC endpoints, identity, enrolment.
//!
//! The only crate that knows QUIC and TLS. In reading order:
//! - [`identity`]: [`Role`], [`Identity`] (certificate and key) and [`PeerIdentity`];
//! - [`authority`]: the private CA of one server;
//! - [`join_code`]: what a new machine is told; [`enrol`]: how it gets its certificates with that;
//! - [`transport`]: every QUIC parameter in one place;
//! - [`endpoint`]: listening and dialling, with errors that people can act on;
//! - [`link`]: an open connection as control frames and object streams;
//! - [`throttle`]: how fast bytes may pass, for either side.
//!
//! Invariants:
//! - the role is in the certificate, the direction in the ALPN; neither is ever taken from a message;
//! - nothing is sent to a server before its CA was compared with the pin;
//! - TLS 1.3 with one provider (aws-lc-rs) and no early data.

pub mod authority;
pub mod endpoint;
pub mod enrol;
pub mod error;
pub mod identity;
pub mod join_code;
pub mod link;
pub mod private_file;
pub mod throttle;
pub mod transport;

pub use error::NetError;
pub use identity::{Identity, PeerIdentity, Role};
pub use link::Link;
