//! What a definition must fulfil before anything is done with it.

use std::collections::BTreeSet;
use std::path::{Component, Path};

use super::{Definition, Idle, IdleAction, Limits, Listen, Mode, User};
use crate::config::host;
use crate::config::problem::{Problem, unknown};
use crate::config::units::shorten;

/// What the agent's configuration demands of definitions.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The least uid a site may run as.
    pub min_uid: u32,
    /// The least gid a site may run as.
    pub min_gid: u32,
    /// The names of templates beside `host`.
    pub templates: BTreeSet<Box<str>>,
    /// Names that no owner may have, because cgroups of the agent's own stand beside the owners'.
    pub reserved_owners: BTreeSet<Box<str>>,
    /// The host's limits for what a definition leaves out.
    pub limits: Limits,
}

/// The most arguments, and the most environment variables.
const MOST_WORDS: usize = 256;
/// The most bytes of command and environment together.
const MOST_BYTES: usize = 64 << 10;
/// The most aliases and the most allowed destinations; each costs an index entry or a firewall rule.
const MOST_ENTRIES: usize = 256;
/// The longest path of a Unix socket, without the NUL.
const SOCKET_PATH: usize = 107;

impl Definition {
    /// Checks everything and reports all that is wrong.
    pub fn validate(&self, rules: &Rules) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        if self.name.is_empty() {
            problems.push(Problem::key(
                "name",
                "is missing; a host name such as \"example.com\" is expected",
            ));
        } else if let Err(e) = host::check_host(&self.name) {
            problems.push(Problem::key("name", e.to_string()));
        }
        self.check_body(rules, &mut problems);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    /// Checks the definition of a pattern: it has neither name nor aliases nor documents, these come from the pattern.
    pub fn validate_pattern(&self, rules: &Rules) -> Result<(), Vec<Problem>> {
        let mut problems = Vec::new();
        let own = [
            ("name", !self.name.is_empty()),
            ("aliases", !self.aliases.is_empty()),
            ("documents", self.documents.is_some()),
        ];
        for (key, _) in own.into_iter().filter(|(_, set)| *set) {
            problems.push(Problem::key(
                key,
                "must not be set here: the pattern in agent.toml gives it",
            ));
        }
        let with_documents = Definition {
            documents: Some(Path::new("/site").into()),
            ..self.clone()
        };
        with_documents.check_body(rules, &mut problems);
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn check_body(&self, rules: &Rules, problems: &mut Vec<Problem>) {
        let mut wrong = |key: &str, message: String| problems.push(Problem::key(key, message));
        let mut seen = BTreeSet::from([&*self.name]);
        for alias in self.aliases.iter() {
            if let Err(e) = host::check_host(alias) {
                wrong("aliases", e.to_string());
            } else if !seen.insert(alias) {
                wrong(
                    "aliases",
                    format!("\"{alias}\" is there twice, or is the name itself"),
                );
            }
        }
        if self.aliases.len() > MOST_ENTRIES {
            wrong("aliases", format!("there are more than {MOST_ENTRIES}"));
        }
        if let Err(e) = host::check_owner(&self.owner) {
            wrong("owner", e.to_string());
        } else if rules.reserved_owners.contains(&self.owner) {
            wrong(
                "owner",
                format!("\"{}\" is reserved for the agent itself", self.owner),
            );
        }
        if self.template.starts_with('/') {
            if let Err(why) = check_path(Path::new(&*self.template)) {
                wrong("template", why);
            }
        } else if &*self.template != "host" && !rules.templates.contains(&self.template) {
            let known = std::iter::once("host").chain(rules.templates.iter().map(|name| &**name));
            wrong(
                "template",
                unknown("template", &self.template, known)
                    + "; or write a directory's absolute path",
            );
        }
        match &self.documents {
            Some(path) => {
                if let Err(why) = check_path(path) {
                    wrong("documents", why);
                }
            }
            None if self.user == User::Auto => {
                wrong(
                    "documents",
                    "is missing; user = \"auto\" means the owner of the documents".into(),
                );
            }
            None => {}
        }
        self.check_command(&mut wrong);
        if let Listen::Unix(path) = &self.listen {
            match check_path(path) {
                Err(why) => wrong("listen", why),
                Ok(()) if !path.starts_with("/run") || path.components().count() < 3 => {
                    wrong(
                        "listen",
                        format!("{}: the socket must be below /run", path.display()),
                    );
                }
                Ok(()) if path.as_os_str().len() > SOCKET_PATH => {
                    wrong(
                        "listen",
                        format!(
                            "{}: a socket's path has at most {SOCKET_PATH} bytes",
                            path.display()
                        ),
                    );
                }
                Ok(()) => {}
            }
        }
        if let User::Ids(uid, gid) = self.user {
            if uid < rules.min_uid {
                wrong(
                    "user",
                    format!(
                        "uid {uid} is below min_uid = {} of agent.toml",
                        rules.min_uid
                    ),
                );
            }
            if gid < rules.min_gid {
                wrong(
                    "user",
                    format!(
                        "gid {gid} is below min_gid = {} of agent.toml",
                        rules.min_gid
                    ),
                );
            }
        }
        if self.network.mode == Mode::Private
            && (self.network.outbound || !self.network.allow.is_empty())
        {
            wrong(
                "network",
                "mode = \"private\" has loopback only: outbound and allow need mode = \"address\""
                    .into(),
            );
        }
        if self.network.allow.len() > MOST_ENTRIES {
            wrong(
                "network.allow",
                format!("there are more than {MOST_ENTRIES}"),
            );
        }
        for (key, span) in [
            ("idle.timeout", self.idle.timeout),
            ("idle.max_lifetime", self.idle.max_lifetime),
            ("idle.reclaim_after", self.idle.reclaim_after),
            ("idle.stop_after", self.idle.stop_after),
            ("start.timeout", self.start.timeout),
            ("stop.timeout", self.stop.timeout),
        ] {
            if span.millis() == Some(0) && key != "stop.timeout" {
                wrong(key, "must be more than 0".into());
            }
            if span.millis().is_none() && (key.starts_with("start") || key.starts_with("stop")) {
                wrong(key, "must end some time".into());
            }
        }
        let (idle, usual) = (&self.idle, Idle::default());
        for (key, set) in [
            (
                "idle.reclaim_after",
                idle.reclaim_after != usual.reclaim_after,
            ),
            ("idle.stop_after", idle.stop_after != usual.stop_after),
        ] {
            if set && idle.action != IdleAction::Ladder {
                wrong(key, "is for action = \"ladder\" only".into());
            }
        }
        problems.extend(self.limits.validate());
        self.check_class(&rules.limits, problems);
        self.check_traffic(problems);
    }

    fn check_command(&self, wrong: &mut impl FnMut(&str, String)) {
        match self.command.iter().next() {
            None => wrong(
                "command",
                "is empty; write the program and its arguments as a list".into(),
            ),
            Some("") => wrong("command", "the program's name is empty".into()),
            Some(_) if self.command.len() > MOST_WORDS => {
                wrong(
                    "command",
                    format!("there are more than {MOST_WORDS} arguments"),
                );
            }
            Some(_) => {}
        }
        if self.env.pairs().len() > MOST_WORDS {
            wrong("env", format!("there are more than {MOST_WORDS} variables"));
        }
        if self.command.bytes() + self.env.pairs().bytes() > MOST_BYTES {
            wrong(
                "command",
                format!("command and env together are larger than {MOST_BYTES} bytes"),
            );
        }
        for (name, _) in self.env.iter() {
            let good = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
            if name.is_empty()
                || name.starts_with(|c: char| c.is_ascii_digit())
                || !name.bytes().all(good)
            {
                let name = shorten(name);
                wrong(
                    "env",
                    format!(
                        "\"{name}\" is no variable name: letters, digits and _ are, not a digit first"
                    ),
                );
            }
        }
    }
}

/// An absolute path of plain components: no `..`, no control character, not the root.
fn check_path(path: &Path) -> Result<(), String> {
    let text = shorten(&path.to_string_lossy());
    if !path.is_absolute() {
        return Err(format!("{text}: the path must be absolute"));
    }
    // Nobody means these, and they would forge lines in logs and tables.
    if path.to_string_lossy().contains(char::is_control) {
        return Err(format!("{text}: the path contains a control character"));
    }
    if path.as_os_str().len() >= 4096 {
        return Err("the path is longer than any can be (4095 bytes)".into());
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{text}: the path must not contain \"..\""));
    }
    if path.components().count() < 2 {
        return Err(format!("{text}: the path must not be the root directory"));
    }
    Ok(())
}
