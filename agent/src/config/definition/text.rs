//! The parts of a definition that are one text: where it listens, as whom it runs, where it may connect.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::config::units::shorten;

/// Where the site's server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Listen {
    /// On a TCP port, on any address: `tcp:8080`.
    Tcp(u16),
    /// On a Unix socket below `/run` in the container: `unix:/run/site/app.sock`.
    Unix(Box<Path>),
    /// On the socket that it finds as file descriptor 3 (`LISTEN_FDS`): `activate`.
    Activate,
}

/// As whom the site runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum User {
    /// As the owner of its documents: `auto`.
    Auto,
    /// As a user of the host, with that user's primary group: `alice`.
    Name(Box<str>),
    /// With these ids: `1001:1001`.
    Ids(u32, u32),
}

/// The protocol of a [`Destination`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// The default.
    Tcp,
    /// Written in front: `udp:10.0.0.5:53`.
    Udp,
}

/// An address and port that a site may reach although nobody may by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Destination {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// IPv4 or IPv6, never a name: a firewall rule must not depend on a resolver.
    pub address: IpAddr,
    /// Never 0.
    pub port: u16,
}

/// A signal by its number; written by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(u8);

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let text = shorten(text);
            format!(
                "\"{text}\" is no place to listen: {why}; write \"tcp:8080\", \"unix:/run/site/app.sock\" or \"activate\""
            )
        };
        match text.split_once(':') {
            None if text == "activate" => Ok(Listen::Activate),
            Some(("tcp", port)) => match port.parse::<u16>() {
                Ok(port) if port > 0 => Ok(Listen::Tcp(port)),
                _ => Err(wrong(
                    "the port must be a number from 1 to 65535, without an address",
                )),
            },
            Some(("unix", path)) if path.starts_with('/') => {
                Ok(Listen::Unix(PathBuf::from(path).into()))
            }
            Some(("unix", _)) => Err(wrong("the path must be absolute")),
            _ => Err(wrong("the kind is missing or unknown")),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(port) => write!(f, "tcp:{port}"),
            Listen::Unix(path) => write!(f, "unix:{}", path.display()),
            Listen::Activate => f.write_str("activate"),
        }
    }
}

impl FromStr for User {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let text = shorten(text);
            format!(
                "\"{text}\" is no user: {why}; write \"auto\" (the owner of the documents), a user's name or \"uid:gid\""
            )
        };
        if text == "auto" {
            return Ok(User::Auto);
        }
        if let Some((uid, gid)) = text.split_once(':') {
            // u32::MAX is the kernel's "no id", and FromStr of integers accepts a leading plus.
            let id = |text: &str| {
                let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                text.parse::<u32>()
                    .ok()
                    .filter(|id| digits && *id != u32::MAX)
            };
            return match (id(uid), id(gid)) {
                (Some(uid), Some(gid)) => Ok(User::Ids(uid, gid)),
                _ => Err(wrong("both ids must be numbers")),
            };
        }
        let mut bytes = text.bytes();
        match bytes.next() {
            None => Err(wrong("it is empty")),
            Some(b'0'..=b'9') => Err(wrong("a uid needs its gid")),
            Some(b'a'..=b'z' | b'A'..=b'Z' | b'_')
                if text.len() <= 32
                    && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) =>
            {
                Ok(User::Name(text.into()))
            }
            Some(_) => Err(wrong("no user can have this name")),
        }
    }
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            User::Auto => f.write_str("auto"),
            User::Name(name) => f.write_str(name),
            User::Ids(uid, gid) => write!(f, "{uid}:{gid}"),
        }
    }
}

impl FromStr for Destination {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            _ => (Protocol::Tcp, text),
        };
        match rest.parse::<SocketAddr>() {
            Ok(SocketAddr::V6(v6)) if v6.scope_id() != 0 => {}
            Ok(socket) if socket.port() > 0 => {
                return Ok(Destination {
                    protocol,
                    address: socket.ip(),
                    port: socket.port(),
                });
            }
            _ => {}
        }
        Err(format!(
            "\"{}\" is no destination: an address (no name) and a port are expected; \
             write \"10.0.0.5:3306\", \"[2001:db8::5]:443\" or \"udp:10.0.0.5:53\"",
            shorten(text)
        ))
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.protocol == Protocol::Udp {
            f.write_str("udp:")?;
        }
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// The signals that may be sent to a site, by name. KILL and STOP are here for `fastctl signal`.
const SIGNALS: [(&str, i32); 16] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ABRT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("WINCH", libc::SIGWINCH),
    ("PWR", libc::SIGPWR),
];

/// The first real-time signal that the C libraries leave to programs.
const RTMIN: u8 = 34;

impl Signal {
    /// The signal that asks a program to end.
    pub const TERM: Signal = Signal(15);

    /// Its number, as for kill(2).
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl FromStr for Signal {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = match name {
            "ALARM" => Some(libc::SIGALRM),
            "RTMIN" => Some(i32::from(RTMIN)),
            _ => match name.strip_prefix("RTMIN+").map(str::parse::<u8>) {
                Some(Ok(n @ 0..=30)) => Some(i32::from(RTMIN + n)),
                Some(_) => None,
                None => SIGNALS
                    .iter()
                    .find(|(known, number)| *known == name || number.to_string() == name)
                    .map(|(_, number)| *number),
            },
        };
        number
            .and_then(|n| u8::try_from(n).ok())
            .map(Signal)
            .ok_or_else(|| {
                let known: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
                crate::config::problem::unknown(
                    "signal",
                    text,
                    known.into_iter().chain(["RTMIN+3"]),
                )
            })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.number()) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "RTMIN+{}", self.0 - RTMIN),
        }
    }
}

/// Gives types that are one text their serde form.
macro_rules! serde_text {
    ($($type:ty: $what:literal),+) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(concat!($what, ", as text"))
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                d.deserialize_str(Text)
            }
        }
    )+};
}
pub(crate) use serde_text;
serde_text!(Listen: "a place to listen", User: "a user", Destination: "a destination", Signal: "a signal");
