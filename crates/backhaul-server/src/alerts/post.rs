//! The channels together: who is told of what, and one way to send.

use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::command::{self, CommandError};
use super::config::Config;
use super::mail::{self, MailError};
use super::message::{Audience, Message};
use super::webhook::{self, WebhookError};
use crate::fleet::AlertRow;

/// Longest that one try may take, whatever the channel.
const LONGEST: Duration = Duration::from_secs(90);

/// A way to tell somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Mail to whoever looks after the backups.
    Mail,
    /// Mail to the owner of the machine.
    Owner,
    /// A POST.
    Webhook,
    /// A program.
    Command,
}

impl Channel {
    /// The word in the database and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Owner => "owner",
            Self::Webhook => "webhook",
            Self::Command => "command",
        }
    }

    /// Who reads what comes this way.
    pub fn audience(self) -> Audience {
        match self {
            Self::Owner => Audience::Owner,
            Self::Mail | Self::Webhook | Self::Command => Audience::Operator,
        }
    }
}

impl FromStr for Channel {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Mail, Self::Owner, Self::Webhook, Self::Command];
        let known = all.into_iter().find(|channel| channel.as_str() == text);
        known.ok_or_else(|| format!("{text:?} is no channel"))
    }
}

/// One recipient, and the way there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// By which channel.
    pub channel: Channel,
    /// A mail address, the host of a webhook, or a program; never a secret.
    pub recipient: String,
}

/// Which message this is, the same at every try: a recipient can tell a second copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// The same for all messages about one alert.
    pub thread: String,
    /// The message's own.
    pub serial: String,
    /// When it is sent, in seconds since 1970.
    pub now: u64,
}

/// Why a message was not delivered.
#[derive(Debug, Error)]
pub enum SendError {
    /// The config no longer has this channel.
    #[error("this channel is no longer configured")]
    NotConfigured,
    /// It took too long.
    #[error("no end after {} s", LONGEST.as_secs())]
    Timeout,
    /// The task that sent is gone.
    #[error("sending broke off: {0}")]
    Broken(String),
    /// By mail.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// By a webhook.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// By a program.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// Sends by any channel of a config.
#[derive(Debug, Clone)]
pub struct Post {
    config: Config,
    /// The name of this server, as its clients know it.
    server: String,
}

impl Post {
    /// Sends by the channels of `config`, in the name of `server`.
    pub fn new(config: Config, server: String) -> Self {
        Self { config, server }
    }

    /// The name of this server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Everybody who looks after the backups.
    pub fn operators(&self) -> Vec<Route> {
        let to = self.config.mail.iter().flat_map(|mail| &mail.to);
        let mails = to.map(|to| Route { channel: Channel::Mail, recipient: to.clone() });
        let webhook = self
            .config
            .webhook
            .iter()
            .map(|hook| Route { channel: Channel::Webhook, recipient: hook.origin() });
        let command = self
            .config
            .command
            .first()
            .map(|program| Route { channel: Channel::Command, recipient: program.clone() });
        mails.chain(webhook).chain(command).collect()
    }

    /// Everybody who is told of an alert.
    pub fn routes(&self, row: &AlertRow) -> Vec<Route> {
        let mut routes = self.operators();
        let told = |address: &str| routes.iter().any(|route| route.recipient == address);
        if let (true, Some(owner)) = (self.config.owners && row.alert.kind.concerns_owner(), &row.owner)
            && !told(owner)
        {
            routes.push(Route { channel: Channel::Owner, recipient: owner.clone() });
        }
        routes
    }

    /// Sends one message, and returns what was answered.
    ///
    /// # Errors
    /// The channel's own.
    pub async fn send(&self, route: &Route, message: &Message, stamp: &Stamp) -> Result<String, SendError> {
        let sent = async {
            match route.channel {
                Channel::Mail | Channel::Owner => {
                    let config = self.config.mail.as_ref().ok_or(SendError::NotConfigured)?;
                    let envelope = mail::Envelope { to: &route.recipient, server: &self.server, stamp };
                    Ok(mail::send(config, &envelope, message).await?)
                }
                Channel::Webhook => {
                    let config = self.config.webhook.as_ref().ok_or(SendError::NotConfigured)?;
                    Ok(webhook::send(config, &message.document).await?)
                }
                Channel::Command => {
                    let line = &self.config.command;
                    let (program, args) = line.split_first().ok_or(SendError::NotConfigured)?;
                    Ok(command::run(program, args, &message.document).await?)
                }
            }
        };
        tokio::time::timeout(LONGEST, sent).await.unwrap_or(Err(SendError::Timeout))
    }
}
