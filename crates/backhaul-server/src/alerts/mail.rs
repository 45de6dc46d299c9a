//! Alerts by mail.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, Header, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use thiserror::Error;

use super::config::{Mail, Protection, Smtp};
use super::message::Message;
use super::post::Stamp;
use super::trouble::Trouble;

/// Longest that the connection may take.
const SILENCE: Duration = Duration::from_secs(30);
/// Longest that the mail server may take for all of it.
const LONGEST: Duration = Duration::from_secs(60);

/// Why a mail was not sent.
#[derive(Debug, Error)]
pub enum MailError {
    /// The config makes no sense.
    #[error("{0}")]
    Config(String),
    /// A file that the config names cannot be read.
    #[error("{key} = {path:?}: {why}")]
    File {
        /// Which.
        key: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The mail cannot be written.
    #[error("the mail cannot be written: {0}")]
    Content(#[from] lettre::error::Error),
    /// The mail server did not take it.
    #[error("{0}")]
    Smtp(#[from] Trouble),
}

/// What is around a message.
pub struct Envelope<'a> {
    /// The recipient's address.
    pub to: &'a str,
    /// This server's name.
    pub server: &'a str,
    /// Which message it is.
    pub stamp: &'a Stamp,
}

/// Sends one mail to one recipient, and returns what the mail server said.
///
/// # Errors
/// It was not taken; a later try may be.
pub async fn send(config: &Mail, envelope: &Envelope<'_>, message: &Message) -> Result<String, MailError> {
    let mail = write(config, envelope, message)?;
    let server = config.server().map_err(MailError::Config)?;
    let trouble = |error: &lettre::transport::smtp::Error| Trouble::of(&server, config, error);
    let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&server.host)
        .port(server.port)
        .tls(tls(config, &server)?)
        .hello_name(hello(envelope.server))
        .timeout(Some(SILENCE));
    if let (Some(user), Some(file)) = (&server.user, &config.password_file) {
        // Read anew each time: who changes the password need not restart the server.
        let password = read("alerts.mail.password_file", file)?;
        let password = password.trim_end_matches(['\r', '\n']).to_owned();
        transport = transport.credentials(Credentials::new(user.clone(), password));
    }
    // Its own time is for the connection only.
    let response = tokio::time::timeout(LONGEST, transport.build().send(mail))
        .await
        .map_err(|_| Trouble::silent(&server))?
        .map_err(|error| trouble(&error))?;
    Ok(format!("{} {}", response.code(), response.first_line().unwrap_or_default()).trim().to_owned())
}

fn read(key: &'static str, path: &Path) -> Result<String, MailError> {
    let failed = |why: std::io::Error| MailError::File { key, path: path.to_owned(), why: why.to_string() };
    std::fs::read_to_string(path).map_err(failed)
}

fn tls(config: &Mail, server: &Smtp) -> Result<Tls, MailError> {
    let mut tls = TlsParameters::builder(server.host.clone());
    if let Some(path) = &config.ca_file {
        let key = "alerts.mail.ca_file";
        let pem = read(key, path)?;
        let no = |why: &str| MailError::File { key, path: path.clone(), why: why.to_owned() };
        if !pem.contains("-----BEGIN CERTIFICATE-----") {
            return Err(no("there is no certificate in it (PEM)"));
        }
        let known = Certificate::from_pem(pem.as_bytes()).map_err(|error| no(&error.to_string()))?;
        tls = tls.add_root_certificate(known);
    }
    let anybody = server.protection == Protection::Offered;
    let tls = tls.dangerous_accept_invalid_certs(anybody).dangerous_accept_invalid_hostnames(anybody);
    let tls = tls.build().map_err(|error| MailError::Smtp(Trouble::of(server, config, &error)))?;
    Ok(match server.protection {
        Protection::Tls => Tls::Wrapper(tls),
        Protection::StartTls => Tls::Required(tls),
        Protection::Offered => Tls::Opportunistic(tls),
    })
}

fn write(config: &Mail, envelope: &Envelope<'_>, message: &Message) -> Result<lettre::Message, MailError> {
    let wrong = |what: &str, why: String| MailError::Config(format!("{what}: {why}"));
    let from: Mailbox = config.from.parse().map_err(|e| wrong(&config.from, format!("{e}")))?;
    let to: Address = envelope.to.parse().map_err(|e| wrong(envelope.to, format!("{e}")))?;
    let domain = from.email.domain().to_owned();
    let Stamp { thread, serial, now } = envelope.stamp;
    let builder = MessageBuilder::new()
        .date(UNIX_EPOCH + Duration::from_secs(*now))
        .message_id(Some(format!("<backhaul.{thread}.{serial}@{domain}>")))
        .references(format!("<backhaul.{thread}@{domain}>"))
        .header(AutoSubmitted)
        .header(ContentType::TEXT_PLAIN)
        .from(from)
        .to(Mailbox::new(None, to))
        .subject(&message.subject);
    Ok(builder.body(message.body.clone())?)
}

/// How this server introduces itself; its name may bring a port along.
fn hello(server: &str) -> ClientId {
    let host = match server.rsplit_once(':') {
        Some((host, _)) if !host.contains(':') || host.ends_with(']') => host,
        _ => server,
    };
    match host.trim_start_matches('[').trim_end_matches(']').parse() {
        Ok(IpAddr::V4(address)) => ClientId::Ipv4(address),
        Ok(IpAddr::V6(address)) => ClientId::Ipv6(address),
        Err(_) => ClientId::Domain(host.to_owned()),
    }
}

/// Tells holiday replies to keep quiet (RFC 3834).
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_introduces_itself_as_mail_servers_expect() {
        let said = |server: &str| hello(server).to_string();
        assert_eq!(said("backup.example.org:4455"), "backup.example.org");
        assert_eq!(said("backup.example.org"), "backup.example.org");
        assert_eq!(said("127.0.0.1:4455"), "[127.0.0.1]");
        assert_eq!(said("[::1]:4455"), said("::1"));
    }
}
