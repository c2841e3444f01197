//! The definition of a vhost, as it stands in `vhosts.d` and travels over the API.

mod limit_key;
mod limits;
mod limits_check;
mod limits_serde;
mod packed;
mod share;
#[cfg(test)]
mod tests;
mod text;
mod validate;

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize};

use super::host;
use super::problem::Problem;
use super::units::Span;
pub use limit_key::LimitKey;
pub use limits::{LimitChange, LimitPatch, Limits};
pub use limits_serde::{IO_LIMITS, LIMITS};
pub use packed::{Env, Words};
pub(crate) use share::Pool;
pub(crate) use text::serde_text;
pub use text::{Destination, Listen, Protocol, Signal, User};
pub use validate::Rules;

/// A vhost: its names, whose it is, what runs, where it listens, what it may use.
///
/// 100,000 of these are kept, so strings are boxed and lists packed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The host name; lower case. Empty only in the definition of a pattern.
    #[serde(
        default,
        deserialize_with = "lower",
        skip_serializing_if = "str::is_empty"
    )]
    pub name: Box<str>,
    /// Further host names; lower case.
    #[serde(
        default,
        deserialize_with = "lower_all",
        skip_serializing_if = "Words::is_empty"
    )]
    pub aliases: Words,
    /// Who pays; has a budget.
    pub owner: Box<str>,
    /// `host` (the host's own /usr, read-only), a directory, or a name from agent.toml.
    #[serde(default = "host_template")]
    pub template: Box<str>,
    /// The site's data; appears at `/site`. May be left out if `user` is not `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Box<Path>>,
    /// The program and its arguments.
    pub command: Words,
    /// Where the program listens.
    pub listen: Listen,
    /// As whom it runs.
    #[serde(default = "auto")]
    pub user: User,
    /// Its environment, beside the few variables that every site gets.
    #[serde(default, skip_serializing_if = "Env::is_empty")]
    pub env: Env,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// What it may reach.
    #[serde(default)]
    pub network: Network,
    /// When it ends, if nobody asks for it.
    #[serde(default)]
    pub idle: Idle,
    /// How it starts.
    #[serde(default)]
    pub start: Start,
    /// How it ends.
    #[serde(default)]
    pub stop: Stop,
}

/// How a site is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A routed veth and an address of its own.
    #[default]
    Address,
    /// Loopback only; reached through a Unix socket or a socket that the agent hands over.
    Private,
}

/// What a site may reach. Never other tenants, and of the host's services only what `allow` names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// `address` (the default) or `private`.
    pub mode: Mode,
    /// Whether it may connect to the outside, through NAT; not by default.
    pub outbound: bool,
    /// Addresses that it may reach beside that.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub allow: Box<[Destination]>,
}

/// What happens to a site that nobody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IdleAction {
    /// It is stopped; the next request starts it.
    #[default]
    Stop,
    /// It is frozen and stays in memory.
    Freeze,
    /// It is frozen, later its memory is given back, and in the end it is stopped: each in its time, and earlier when
    /// memory gets scarce.
    Ladder,
}

/// When a site ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Idle {
    /// How long without a request and without an open connection; 60 seconds.
    pub timeout: Span,
    /// What then happens; `stop`.
    pub action: IdleAction,
    /// On the ladder: how long it is frozen before its memory is given back; 10 minutes.
    #[serde(skip_serializing_if = "is_default_reclaim")]
    pub reclaim_after: Span,
    /// On the ladder: how long its memory has been given back before it is stopped; 24 hours.
    #[serde(skip_serializing_if = "is_default_stop")]
    pub stop_after: Span,
    /// The age at which the container is replaced; `never`.
    #[serde(skip_serializing_if = "is_never")]
    pub max_lifetime: Span,
    /// The number of dispatches after which the container is replaced; not at all by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<std::num::NonZeroU32>,
}

/// How a site starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Start {
    /// How long it may take until it listens; 10 seconds.
    pub timeout: Span,
}

/// How a site is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stop {
    /// The signal that asks it; `TERM`.
    pub signal: Signal,
    /// How long it may take before everything in it is killed; 10 seconds.
    pub timeout: Span,
}

impl Idle {
    const RECLAIM_AFTER: Span = Span::seconds(10 * 60);
    const STOP_AFTER: Span = Span::seconds(24 * 60 * 60);
}

impl Default for Idle {
    fn default() -> Self {
        Idle {
            timeout: Span::seconds(60),
            action: IdleAction::Stop,
            reclaim_after: Self::RECLAIM_AFTER,
            stop_after: Self::STOP_AFTER,
            max_lifetime: Span::NEVER,
            max_requests: None,
        }
    }
}

impl Default for Start {
    fn default() -> Self {
        Start {
            timeout: Span::seconds(10),
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Stop {
            signal: Signal::TERM,
            timeout: Span::seconds(10),
        }
    }
}

impl Definition {
    /// Reads a definition file's content. It is not yet validated.
    pub fn from_toml(text: &str) -> Result<Self, Problem> {
        toml::from_str(text).map_err(|e| Problem::from_toml(&e, text))
    }

    /// Reads a definition from the body of a request. It is not yet validated.
    pub fn from_json(body: &[u8]) -> Result<Self, Problem> {
        serde_json::from_slice(body).map_err(|e| Problem::from_json(&e))
    }

    /// Whether it can only be reached from inside its network namespace.
    pub fn has_loopback_only(&self) -> bool {
        self.network.mode == Mode::Private && matches!(self.listen, Listen::Tcp(_))
    }

    /// Writes a definition file's content.
    pub fn to_toml(&self) -> Result<String, Problem> {
        toml::to_string(self)
            .map_err(|e| Problem::new(format!("cannot write the definition as TOML: {e}")))
    }

    /// Whether nothing differs but limits, which can be changed on a running container.
    pub fn same_but_limits(&self, other: &Self) -> bool {
        let limits = Limits::default();
        Definition {
            limits: limits.clone(),
            ..self.clone()
        } == Definition {
            limits,
            ..other.clone()
        }
    }

    /// All names under which the vhost answers: its own, then the aliases.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.name).chain(self.aliases.iter())
    }
}

fn host_template() -> Box<str> {
    "host".into()
}

fn auto() -> User {
    User::Auto
}

fn is_never(span: &Span) -> bool {
    *span == Span::NEVER
}

// Definitions that do not say it are written as before: what their containers were made from is told by that.
fn is_default_reclaim(span: &Span) -> bool {
    *span == Idle::RECLAIM_AFTER
}

fn is_default_stop(span: &Span) -> bool {
    *span == Idle::STOP_AFTER
}

fn lower<'de, D: Deserializer<'de>>(d: D) -> Result<Box<str>, D::Error> {
    String::deserialize(d).map(|name| host::normal(&name).into())
}

fn lower_all<'de, D: Deserializer<'de>>(d: D) -> Result<Words, D::Error> {
    let names = Words::deserialize(d)?;
    Words::new(names.iter().map(host::normal)).map_err(serde::de::Error::custom)
}
