//! What is wrong with the values of agent.toml.

use std::path::{Component, Path};

use super::AgentConfig;
use crate::config::host::check_owner;
use crate::config::pattern;
use crate::config::problem::Problem;

impl AgentConfig {
    /// All that is wrong with the values.
    pub(super) fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String| problems.push(Problem::key(key, message));
        let paths = [
            ("socket", self.socket.as_ref()),
            ("connect_socket", self.connect_socket.as_ref()),
            ("run_dir", Some(&self.run_dir)),
            ("state_dir", Some(&self.state_dir)),
            ("vhosts_dir", Some(&self.vhosts_dir)),
            ("shim", self.shim.as_ref()),
        ];
        for (key, path) in paths
            .into_iter()
            .filter_map(|(key, path)| Some((key, path?)))
        {
            if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
                wrong(
                    key,
                    format!(
                        "{}: the path must be absolute and without \"..\"",
                        path.display()
                    ),
                );
            }
        }
        for (key, socket) in [
            ("socket", self.socket()),
            ("connect_socket", self.connect_socket()),
        ] {
            if socket.as_os_str().len() > 107 {
                let socket = socket.display();
                wrong(
                    key,
                    format!("{socket}: a socket's path has at most 107 bytes"),
                );
            }
        }
        if self.socket() == self.connect_socket() {
            wrong("connect_socket", "is the same as socket".into());
        }
        for (key, count) in [
            ("pool.address", self.pool.address),
            ("pool.private", self.pool.private),
            ("pool.inits", self.pool.inits),
        ] {
            if count > 1000 {
                wrong(key, format!("{count}: at most 1000 can be kept ready"));
            }
        }
        for (key, count) in [
            ("metrics.vhosts", self.metrics.vhosts),
            ("metrics.owners", self.metrics.owners),
        ] {
            if count > 1000 {
                wrong(
                    key,
                    format!("{count}: at most 1000 can have lines of their own"),
                );
            }
        }
        let plain = |path: &Path| {
            path.components()
                .all(|part| matches!(part, Component::Normal(_) | Component::RootDir))
        };
        if let Some(parent) = &self.cgroup_parent
            && (!plain(parent) || parent.components().all(|part| part == Component::RootDir))
        {
            wrong(
                "cgroup_parent",
                format!(
                    "\"{}\": a path below the cgroup mount is expected",
                    parent.display()
                ),
            );
        }
        // uid 0 below 1 could never be told from root's own; ids end before the kernel's "no id".
        if self.min_uid == 0 || self.min_gid == 0 {
            wrong(
                "min_uid",
                "min_uid and min_gid must be at least 1: no site runs as root".into(),
            );
        }
        if self.uid_base < 0x1_0000
            || !self.uid_base.is_multiple_of(0x1_0000)
            || self.uid_base > 0xfff0_0000
        {
            wrong(
                "uid_base",
                format!(
                    "{} must be a multiple of 65536, from 65536 to 4293918720",
                    self.uid_base
                ),
            );
        }
        let word = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !word(&self.nft_table) || self.nft_table.len() > 31 {
            wrong(
                "nft_table",
                "must be a word of at most 31 letters, digits and _".into(),
            );
        }
        if !word(&self.interface_prefix) || self.interface_prefix.len() > 8 {
            wrong(
                "interface_prefix",
                "must be a word of at most 8 letters, digits and _".into(),
            );
        }
        for (name, owner) in &self.owner {
            if let Err(e) = check_owner(name) {
                wrong("owner", e.to_string());
            }
            if let Some(uid) = owner.uid.filter(|uid| *uid < self.min_uid) {
                wrong(
                    &format!("owner.{name}.uid"),
                    format!("{uid} is below min_uid = {}", self.min_uid),
                );
            }
            for problem in owner.budget.problems() {
                wrong(&format!("owner.{name}.budget"), problem);
            }
        }
        for problem in self.budget.problems() {
            wrong("budget", problem);
        }
        for (name, template) in &self.template {
            match &template.path {
                Some(path) if name == "host" => wrong(
                    "template.host.path",
                    format!("{}: the template host is this host", path.display()),
                ),
                Some(path) if !path.is_absolute() => {
                    wrong(&format!("template.{name}.path"), "must be absolute".into())
                }
                None if name != "host" => {
                    wrong(&format!("template.{name}"), "path is missing".into())
                }
                _ => {}
            }
            for entry in template.etc.iter().flatten() {
                let inside = Path::new(entry)
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)));
                if entry.is_empty() || !inside {
                    wrong(
                        &format!("template.{name}.etc"),
                        format!("\"{entry}\": a path below /etc is expected"),
                    );
                }
            }
        }
        for alias in &self.alias {
            if let Err(why) = pattern::check(&alias.pattern, &alias.documents) {
                wrong("alias", why);
            }
        }
        self.check_bounds(&mut wrong);
        problems.extend(self.limits.validate());
        problems
    }

    fn check_bounds(&self, wrong: &mut impl FnMut(&str, String)) {
        let numbers = [
            (
                "api.max_connections",
                u64::from(self.api.max_connections),
                1,
            ),
            ("api.max_body", self.api.max_body.0, 4096),
            ("api.max_head", self.api.max_head.0, 8192),
            ("starts.max_waiting", u64::from(self.starts.max_waiting), 1),
            ("log.file_bytes", self.log.file_bytes.0, 4096),
            ("log.files", u64::from(self.log.files), 1),
        ];
        for (key, value, least) in numbers {
            if value < least {
                wrong(key, format!("must be at least {least}"));
            }
        }
        if self.reserve.memory.finite().is_none() || self.reserve.cpu.permyriad() >= 10_000 {
            wrong(
                "reserve",
                "must leave something that can be promised: less than 100% of the CPUs, and a size of memory".into(),
            );
        }
        if self
            .pressure
            .window
            .millis()
            .is_none_or(|ms| !(500..=10_000).contains(&ms))
        {
            wrong("pressure.window", "must be from 500ms to 10s".into());
        }
        for (key, size, most) in [
            ("api.max_body", self.api.max_body.0, 64 << 20),
            ("api.max_head", self.api.max_head.0, 1 << 20),
            ("log.file_bytes", self.log.file_bytes.0, 1 << 40),
        ] {
            if size > most {
                wrong(
                    key,
                    format!("must be at most {most}: what is unbounded fills the host"),
                );
            }
        }
        for (key, span) in [
            ("api.head_timeout", self.api.head_timeout),
            ("api.body_timeout", self.api.body_timeout),
        ] {
            if span.millis().is_none_or(|ms| ms == 0) {
                wrong(key, "must be more than 0 and end some time".into());
            }
        }
    }
}
