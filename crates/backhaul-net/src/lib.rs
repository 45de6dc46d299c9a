//! Carries a session.
