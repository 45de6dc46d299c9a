//! The daemon on a client.
