//! Programs of this machine's owner that run before and after a backup.

use std::time::Duration;

use backhaul_child::{Call, CallError};
use backhaul_proto::wire::Trigger;

use crate::error::AgentError;
use crate::run::RunReport;

/// What is run; nothing where there is no program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooks {
    /// Before: if it fails, there is no backup.
    pub before: Vec<String>,
    /// After, whatever it came to.
    pub after: Vec<String>,
    /// How long either may take; then it is killed with all that it started.
    pub timeout: Duration,
}

impl Default for Hooks {
    fn default() -> Self {
        Self { before: Vec::new(), after: Vec::new(), timeout: Duration::from_secs(600) }
    }
}

/// What a program is told in its environment.
pub(crate) struct Scene {
    pub(crate) client: String,
    pub(crate) trigger: Trigger,
}

/// Before the first file is looked at.
pub(crate) async fn before(hooks: &Hooks, scene: &Scene) -> Result<(), AgentError> {
    run(&hooks.before, scene, Vec::new(), hooks.timeout).await.map_err(AgentError::Before)
}

/// When all is over; with what it came to.
pub(crate) async fn after(
    hooks: &Hooks,
    scene: &Scene,
    result: &Result<RunReport, AgentError>,
) -> Result<(), CallError> {
    let (outcome, error) = match result {
        Ok(report) if report.figures.errors.is_empty() => ("complete", String::new()),
        Ok(report) => ("partial", format!("{} files could not be read", report.figures.errors.len())),
        Err(error) => ("failed", error.to_string()),
    };
    let snapshot = result.as_ref().ok().and_then(|report| report.snapshot);
    let more = vec![
        ("BACKHAUL_RESULT", outcome.to_owned()),
        ("BACKHAUL_ERROR", error),
        ("BACKHAUL_SNAPSHOT", snapshot.map(|id| id.to_string()).unwrap_or_default()),
    ];
    run(&hooks.after, scene, more, hooks.timeout).await
}

async fn run(
    command: &[String],
    scene: &Scene,
    mut env: Vec<(&str, String)>,
    limit: Duration,
) -> Result<(), CallError> {
    let Some((program, args)) = command.split_first() else { return Ok(()) };
    let trigger = scene.trigger.as_str_name().trim_start_matches("TRIGGER_").to_ascii_lowercase();
    env.extend([("BACKHAUL_CLIENT", scene.client.clone()), ("BACKHAUL_TRIGGER", trigger)]);
    backhaul_child::run(Call { program, args, env: &env, input: b"", limit }).await.map(drop)
}
