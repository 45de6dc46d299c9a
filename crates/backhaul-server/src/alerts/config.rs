//! `[alerts]` of the server's `config.toml` (schemas/config/server.json).

use std::collections::BTreeMap;
use std::path::PathBuf;

use lettre::Address;
use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};

/// Who is told of alerts, and how. Without it, they are shown by `backhaul alerts` only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Also mail the owner of a machine that stays away.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub owners: bool,
    /// A program and its arguments: it gets the alert on its standard input.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Mail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mail: Option<Mail>,
    /// An address that is sent the alert.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
}

/// How mail is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// `smtp://HOST:PORT` or `smtps://HOST:PORT`, with `USER@` before the host where the server wants a login.
    pub smtp: String,
    /// The file with the user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// The file with the certificates of those whose word is taken for the mail server's, beside the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The sender.
    pub from: String,
    /// Who looks after the backups.
    pub to: Vec<String>,
}

/// Where the alert is posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `https://...`
    pub url: String,
    /// Sent along, for what the other side wants to be authorised.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub header: BTreeMap<String, String>,
}

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// TLS from the first byte.
    Tls,
    /// STARTTLS, or nothing is sent: a password is at stake, or somebody has said whose certificate it is to be.
    StartTls,
    /// STARTTLS when the server offers it, whatever its certificate says: whoever could forge that could leave the offer
    /// out as well (RFC 7435).
    Offered,
}

/// A mail server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Its name or address.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// Whom to log in as.
    pub user: Option<String>,
    /// How the connection is protected.
    pub protection: Protection,
}

impl Config {
    /// True when nobody is told.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks everything that can be checked without sending.
    ///
    /// # Errors
    /// What is wrong with which value.
    pub fn check(&self) -> Result<(), String> {
        if self.command.first().is_some_and(|program| !program.starts_with('/')) {
            return Err(format!(
                "alerts.command = {:?}: the program has to be an absolute path",
                self.command
            ));
        }
        if let Some(webhook) = &self.webhook {
            webhook.check()?;
        }
        match &self.mail {
            Some(mail) => mail.check(),
            None if self.owners => {
                Err("alerts.owners = true: owners are told by mail, and there is no alerts.mail".to_owned())
            }
            None => Ok(()),
        }
    }
}

impl Webhook {
    /// Scheme and host, without what may be secret.
    pub fn origin(&self) -> String {
        let (scheme, rest) = self.url.split_once("://").unwrap_or(("", &self.url));
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        format!("{scheme}://{host}")
    }

    fn check(&self) -> Result<(), String> {
        let origin = self.origin();
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        match host {
            Some(host) if !host.is_empty() => Ok(()),
            _ => Err("alerts.webhook.url: it has to begin with https:// and a host".to_owned()),
        }
    }
}

impl Mail {
    /// The mail server.
    ///
    /// # Errors
    /// What the address should look like.
    pub fn server(&self) -> Result<Smtp, String> {
        let wrong =
            || format!("alerts.mail.smtp = {:?}: use smtp://HOST:PORT or smtps://USER@HOST", self.smtp);
        let (scheme, rest) = self.smtp.split_once("://").ok_or_else(wrong)?;
        let rest = rest.trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user.replace("%40", "@")), place),
            None => (None, rest),
        };
        let (protection, usual) = match (scheme, &user) {
            ("smtps", _) => (Protection::Tls, 465),
            ("smtp", Some(_)) => (Protection::StartTls, 587),
            ("smtp", None) if self.ca_file.is_some() => (Protection::StartTls, 25),
            ("smtp", None) => (Protection::Offered, 25),
            _ => return Err(wrong()),
        };
        // An address of IP version 6 is full of colons, and in brackets.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (place, usual),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || host.contains('/') || user.as_ref().is_some_and(|user| user.contains(':')) {
            return Err(wrong());
        }
        Ok(Smtp { host, port, user, protection })
    }

    fn check(&self) -> Result<(), String> {
        let server = self.server()?;
        if server.user.is_some() && self.password_file.is_none() {
            return Err("alerts.mail.smtp names a user: alerts.mail.password_file has to say where the \
                        password is"
                .to_owned());
        }
        for (key, file) in [("password_file", &self.password_file), ("ca_file", &self.ca_file)] {
            if file.as_ref().is_some_and(|file| !file.is_absolute()) {
                return Err(format!("alerts.mail.{key}: it has to be an absolute path"));
            }
        }
        if self.to.is_empty() {
            return Err("alerts.mail.to: it names nobody".to_owned());
        }
        self.from
            .parse::<Mailbox>()
            .map_err(|error| format!("alerts.mail.from = {:?}: {error}", self.from))?;
        self.to.iter().try_for_each(|to| check_address(to).map_err(|why| format!("alerts.mail.to: {why}")))
    }
}

/// Checks a mail address.
///
/// # Errors
/// What is wrong with it.
pub fn check_address(address: &str) -> Result<(), String> {
    address.parse::<Address>().map(drop).map_err(|error| format!("{address:?} is no mail address: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mail(smtp: &str) -> Mail {
        let to = vec!["ops@example.org".to_owned()];
        let from = "Backhaul <b@example.org>".to_owned();
        Mail { smtp: smtp.to_owned(), password_file: None, ca_file: None, from, to }
    }

    #[test]
    fn the_mail_servers_address_says_how_it_is_protected() {
        let server = |smtp: &str| mail(smtp).server().map(|s| (s.host, s.port, s.user, s.protection));
        let host = || "host".to_owned();
        assert_eq!(server("smtp://host"), Ok((host(), 25, None, Protection::Offered)));
        assert_eq!(server("smtp://host:2525"), Ok((host(), 2525, None, Protection::Offered)));
        let user = Some("ana@example.org".to_owned());
        assert_eq!(
            server("smtps://ana%40example.org@host"),
            Ok((host(), 465, user.clone(), Protection::Tls))
        );
        // A password never goes out in the clear.
        assert_eq!(server("smtp://ana@example.org@host"), Ok((host(), 587, user, Protection::StartTls)));
        // Who says whose word is good for the server wants it checked.
        let known = Mail { ca_file: Some("/etc/ca.pem".into()), ..mail("smtp://host") };
        assert_eq!(known.server().unwrap().protection, Protection::StartTls);
        assert_eq!(server("smtp://[::1]:25").unwrap().0, "::1");
        assert_eq!(server("smtp://[::1]").unwrap().1, 25);
        for wrong in ["host:25", "http://host", "smtp://", "smtp://host:mail", "smtps://ana:secret@host"] {
            assert!(server(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let wrong = |config: &str| toml::from_str::<Config>(config).unwrap().check().unwrap_err();
        assert!(wrong("owners = true").contains("alerts.mail"));
        assert!(wrong("command = [\"notify\"]").contains("absolute"));
        assert!(wrong("webhook = { url = \"ftp://host\" }").contains("https://"));
        let with = |smtp: &str, to: &str| {
            wrong(&format!("mail = {{ smtp = \"{smtp}\", from = \"b@example.org\", to = [{to}] }}"))
        };
        assert!(with("smtps://ana@host", "\"ops@example.org\"").contains("password_file"));
        assert!(with("smtp://host", "").contains("nobody"));
        assert!(with("smtp://host", "\"ops\"").contains("ops"));
        assert!(toml::from_str::<Config>("sms = true").unwrap_err().to_string().contains("sms"));
    }

    #[test]
    fn where_a_webhook_leads_is_said_without_its_secrets() {
        let origin = |url: &str| Webhook { url: url.to_owned(), header: BTreeMap::new() }.origin();
        assert_eq!(
            origin("https://u:p@hooks.example.org:8443/T0/secret?x=y"),
            "https://hooks.example.org:8443"
        );
        assert_eq!(origin("https://hooks.example.org"), "https://hooks.example.org");
    }
}
