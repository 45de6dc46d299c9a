//! Alerts by HTTP: a POST of the document.
//!
//! The client is ureq: it takes the TLS provider that everything here uses, and needs one blocking thread for the
//! few seconds of a try.

use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use ureq::tls::{RootCerts, TlsConfig};

use super::config::Webhook;
use super::message::Document;

/// Longest that a try may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// So much of an answer is shown.
const SHOWN: u64 = 200;

/// Why a webhook did not take an alert.
#[derive(Debug, Error)]
pub enum WebhookError {
    /// The document cannot be written.
    #[error("the document cannot be written: {0}")]
    Document(#[from] serde_json::Error),
    /// No answer, or no connection.
    #[error("{origin}: {why}")]
    Http {
        /// Where.
        origin: String,
        /// What happened.
        why: Box<ureq::Error>,
    },
    /// It was answered with something else than success.
    #[error("{origin}: {status}: {said}")]
    Status {
        /// Where.
        origin: String,
        /// The status.
        status: ureq::http::StatusCode,
        /// The beginning of the answer.
        said: String,
    },
    /// The thread is gone: the server is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// Posts a document and returns the answer's status.
///
/// # Errors
/// No answer, or one that is no success.
pub async fn send(config: &Webhook, document: &Document) -> Result<String, WebhookError> {
    let (config, body) = (config.clone(), serde_json::to_vec(document)?);
    tokio::task::spawn_blocking(move || post(&config, &body)).await.map_err(|_| WebhookError::Stopping)?
}

fn post(config: &Webhook, body: &[u8]) -> Result<String, WebhookError> {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::WebPki)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let agent = ureq::Agent::config_builder()
        .tls_config(tls)
        .timeout_global(Some(TIMEOUT))
        // A redirected POST becomes a GET, and the alert is lost.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .user_agent(concat!("backhaul/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let mut request = agent.post(&config.url).content_type("application/json");
    for (name, value) in &config.header {
        request = request.header(name, value);
    }
    let origin = config.origin();
    let mut response = request
        .send(body)
        .map_err(|why| WebhookError::Http { origin: origin.clone(), why: Box::new(why) })?;
    let status = response.status();
    if status.is_success() {
        return Ok(status.to_string());
    }
    let said = response.body_mut().with_config().limit(SHOWN).lossy_utf8(true).read_to_string();
    let said = said.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
    Err(WebhookError::Status { origin, status, said })
}
