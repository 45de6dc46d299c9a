//! Alerts by a program of the operator's: the document on its standard input.

use std::time::Duration;

use backhaul_child::{Call, CallError};
use thiserror::Error;

use super::message::Document;

/// Longest that a program may run.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a program did not take an alert.
#[derive(Debug, Error)]
pub enum CommandError {
    /// The document cannot be written.
    #[error("the document cannot be written: {0}")]
    Document(#[from] serde_json::Error),
    /// It could not be run, or failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Runs a program to its end and returns how that was.
///
/// # Errors
/// It cannot be started, fails, or does not end in time.
pub async fn run(program: &str, args: &[String], document: &Document) -> Result<String, CommandError> {
    let input = &serde_json::to_vec(document)?;
    let env = &[
        ("BACKHAUL_ALERT_KIND", document.kind.clone()),
        ("BACKHAUL_ALERT_CLIENT", document.client.clone().unwrap_or_default()),
        ("BACKHAUL_ALERT_WHAT", document.what.clone()),
    ];
    Ok(backhaul_child::run(Call { program, args, env, input, limit: TIMEOUT }).await?)
}
