//! What is wrong with a mail server or with what the config says of it, and what to do about that.

use std::error::Error as StdError;
use std::fmt;

use lettre::transport::smtp::Error;
use rustls::CertificateError;

use super::config::{Mail, Protection, Smtp};

/// Why a mail server did not take a mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    place: String,
    /// What it said, or what happened.
    what: String,
    /// What to do; empty where its own words say that.
    next: String,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, what, next } = self;
        write!(f, "{place}: {what}{}{next}", if next.is_empty() { "" } else { "; " })
    }
}

impl StdError for Trouble {}

impl Trouble {
    fn new(server: &Smtp, what: impl Into<String>, next: impl Into<String>) -> Self {
        Self { place: format!("{}:{}", server.host, server.port), what: what.into(), next: next.into() }
    }

    /// It was there, and did not answer.
    pub fn silent(server: &Smtp) -> Self {
        let next = match server.protection {
            Protection::Tls => "",
            // Each waits for the other to begin.
            Protection::StartTls | Protection::Offered => {
                "a port that wants TLS from the first byte (465) waits like that: smtps:// instead of smtp:// speaks to it"
            }
        };
        Self::new(server, "it says nothing", next)
    }

    /// What an error says.
    pub fn of(server: &Smtp, config: &Mail, error: &Error) -> Self {
        let said = innermost(error);
        if let Some(code) = error.status() {
            let code = code.to_string();
            return Self::new(server, format!("it says {code} {said}"), refused(&code, server, config));
        }
        if let Some(tls) = tls_error(error) {
            let (what, next) = of_tls(tls, server, config);
            return Self::new(server, what, next);
        }
        if let Some(io) = source::<std::io::Error>(error) {
            return match io.kind() {
                std::io::ErrorKind::ConnectionRefused => {
                    Self::new(server, "nothing listens there", "is it the right host and port?")
                }
                std::io::ErrorKind::TimedOut => Self::silent(server),
                _ => Self::new(server, said, ""),
            };
        }
        let next = match &said[..] {
            "STARTTLS is not supported on this server" => match server.user {
                Some(_) => {
                    "a password is not sent in the clear: smtps:// may work, or a port that offers STARTTLS (587)"
                }
                None => "with a ca_file nothing is sent without TLS: smtps:// may work, or leave ca_file out",
            },
            "No compatible authentication mechanism was found" => {
                "it takes no password on this connection: another port may (587, or smtps://), or none is needed: \
                 then leave USER@ out of alerts.mail.smtp"
            }
            _ => "",
        };
        Self::new(server, said, next)
    }
}

/// What to do about a reply.
fn refused(code: &str, server: &Smtp, config: &Mail) -> String {
    match (code, &server.user, &config.password_file) {
        ("534" | "535", Some(user), Some(file)) => format!(
            "it does not know {user} with the password in {}: a provider may want one that is made for programs",
            file.display()
        ),
        ("530" | "550" | "554", None, _) => {
            "it may want a login: smtp://USER@HOST and a password_file".to_owned()
        }
        _ => String::new(),
    }
}

fn of_tls(error: &rustls::Error, server: &Smtp, config: &Mail) -> (String, String) {
    let host = &server.host;
    let named = match &config.ca_file {
        Some(file) => format!("{} does not name the authority that has signed it", file.display()),
        None => {
            "if it is of your own authority, name that: ca_file = \"/path/to/its/certificate.pem\"".to_owned()
        }
    };
    match error {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            // The second is of somebody who has the name of one who is known.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                ("its certificate is of nobody who is known here".to_owned(), named)
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
                format!("its certificate is not for {host} ({wrong})"),
                "write the name that it is for into alerts.mail.smtp".to_owned(),
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                format!("its certificate has expired ({wrong})"),
                "it has to be renewed there, if the clock of this machine is right".to_owned(),
            ),
            // What `openssl req -x509` makes unless it is told otherwise.
            other if other.to_string().contains("CaUsedAsEndEntity") => (
                "its certificate is one of an authority, not of a server".to_owned(),
                "make it one with `-addext basicConstraints=critical,CA:FALSE`, and name it as ca_file"
                    .to_owned(),
            ),
            other => (format!("its certificate is not accepted: {other}"), String::new()),
        },
        rustls::Error::InvalidMessage(_) if server.protection == Protection::Tls => (
            "it does not speak TLS from the first byte".to_owned(),
            "smtp:// instead of smtps:// asks for it later".to_owned(),
        ),
        other => (format!("TLS fails: {other}"), "its log may say why".to_owned()),
    }
}

/// The first of the causes that is of a kind.
fn source<E: StdError + 'static>(error: &Error) -> Option<&E> {
    causes(error).find_map(|cause| cause.downcast_ref())
}

fn tls_error(error: &Error) -> Option<&rustls::Error> {
    fn inside<'e>(cause: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
        cause.downcast_ref::<std::io::Error>()?.get_ref()?.downcast_ref()
    }
    // One that has come through a socket is inside of that one's error, and not among the causes.
    source::<rustls::Error>(error).or_else(|| causes(error).find_map(inside))
}

fn causes(error: &Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}

/// What was said, without the words that were put around it on its way.
fn innermost(error: &Error) -> String {
    causes(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}
