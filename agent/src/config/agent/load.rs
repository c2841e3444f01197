//! Reading agent.toml, laying the command line over it, checking the result.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::{AgentConfig, DEFAULT_ETC};
use crate::config::definition::Rules;
use crate::config::host::check_owner;
use crate::config::pattern;
use crate::config::problem::Problem;

/// Where the configuration is, if nobody says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/fastcontainer/agent.toml";

/// The largest agent.toml that is read.
const MOST_BYTES: u64 = 4 << 20;

/// What the command line lays over agent.toml.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Overrides {
    /// The configuration file [default: /etc/fastcontainer/agent.toml, which need not exist]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The socket to serve on
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The directory for lasting state
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// The directory for runtime state
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// The directory of definitions
    #[arg(long, value_name = "DIR")]
    pub vhosts_dir: Option<PathBuf>,
    /// The cgroup above all containers, below the cgroup mount
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<PathBuf>,
}

impl AgentConfig {
    /// Reads the file that the command line names, or the default one, lays the command line over it and checks it.
    pub fn load(overrides: &Overrides) -> Result<Self, Vec<Problem>> {
        let path = overrides
            .config
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_CONFIG));
        let shown = path.to_string_lossy();
        let text = match read(path) {
            Ok(text) => text,
            // Only a file that nobody asked for may be missing.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && overrides.config.is_none() => {
                String::new()
            }
            Err(e) => {
                return Err(vec![
                    Problem::new(format!("cannot read the configuration: {e}")).in_file(&shown),
                ]);
            }
        };
        let located = |problem: Problem| problem.in_file(&shown);
        let mut config: AgentConfig =
            toml::from_str(&text).map_err(|e| vec![located(Problem::from_toml(&e, &text))])?;
        config.directory = absolute(path)
            .parent()
            .map(Path::to_path_buf)
            .unwrap_or_default();
        config.lay_over(overrides);
        let problems = config.check();
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(problems.into_iter().map(located).collect())
        }
    }

    fn lay_over(&mut self, over: &Overrides) {
        let set = |field: &mut PathBuf, value: &Option<PathBuf>| {
            if let Some(value) = value {
                *field = absolute(value);
            }
        };
        set(&mut self.run_dir, &over.run_dir);
        set(&mut self.state_dir, &over.state_dir);
        set(&mut self.vhosts_dir, &over.vhosts_dir);
        if let Some(socket) = &over.socket {
            self.socket = Some(absolute(socket));
        }
        if over.cgroup_parent.is_some() {
            self.cgroup_parent.clone_from(&over.cgroup_parent);
        }
    }

    /// The agent's socket.
    pub fn socket(&self) -> PathBuf {
        self.socket
            .clone()
            .unwrap_or_else(|| self.run_dir.join("agent.sock"))
    }

    /// The directory of agent.toml, to which the definitions of patterns are relative.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What is demanded of definitions.
    pub fn rules(&self) -> Rules {
        Rules {
            min_uid: self.min_uid,
            min_gid: self.min_gid,
            templates: self
                .template
                .keys()
                .map(|name| name.as_str().into())
                .collect(),
            reserved_owners: BTreeSet::new(),
        }
    }

    /// The entries of the host's `/etc` that sites on the template `host` see.
    pub fn host_etc(&self) -> Vec<&str> {
        match self.template.get("host").and_then(|host| host.etc.as_ref()) {
            Some(entries) => entries.iter().map(String::as_str).collect(),
            None => DEFAULT_ETC.to_vec(),
        }
    }

    /// The uids of those who may dispatch and exist on this host.
    pub fn dispatch_uids(&self) -> BTreeSet<u32> {
        self.dispatch_users
            .iter()
            .filter_map(|user| user.uid().ok().flatten())
            .collect()
    }

    /// The shim: as configured, or beside this executable, or where packages put it.
    pub fn find_shim(&self) -> Result<PathBuf, Problem> {
        let name = "fastcontainer-shim";
        let beside = std::env::current_exe()
            .ok()
            .and_then(|exe| Some(exe.parent()?.join(name)));
        let candidates: Vec<PathBuf> = match &self.shim {
            Some(shim) => vec![shim.clone()],
            None => beside
                .into_iter()
                .chain([Path::new("/usr/libexec/fastcontainer").join(name)])
                .collect(),
        };
        if let Some(found) = candidates.iter().find(|path| path.is_file()) {
            return Ok(found.clone());
        }
        let tried: Vec<String> = candidates
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Err(Problem::key(
            "shim",
            format!(
                "no such program ({}); install it or set shim in agent.toml",
                tried.join(", ")
            ),
        ))
    }

    /// All that is wrong with the values.
    fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut wrong = |key: &str, message: String| problems.push(Problem::key(key, message));
        let socket = self.socket();
        let paths = [
            ("socket", Some(&socket)),
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
        if socket.as_os_str().len() > 107 {
            wrong(
                "socket",
                format!(
                    "{}: a socket's path has at most 107 bytes",
                    socket.display()
                ),
            );
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
            if owner.uid < self.min_uid {
                wrong(
                    &format!("owner.{name}.uid"),
                    format!("{} is below min_uid = {}", owner.uid, self.min_uid),
                );
            }
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
            ("api.max_events", u64::from(self.api.max_events), 1),
            ("starts.max_waiting", u64::from(self.starts.max_waiting), 1),
            ("log.file_bytes", self.log.file_bytes.0, 4096),
            ("log.files", u64::from(self.log.files), 1),
        ];
        for (key, value, least) in numbers {
            if value < least {
                wrong(key, format!("must be at least {least}"));
            }
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
            ("starts.backoff", self.starts.backoff),
            ("starts.max_backoff", self.starts.max_backoff),
        ] {
            if !span.millis().is_some_and(|ms| ms > 0) {
                wrong(key, "must be more than 0 and end some time".into());
            }
        }
        if self.starts.backoff > self.starts.max_backoff {
            wrong("starts.backoff", "is more than starts.max_backoff".into());
        }
    }
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_string(&mut text)?;
    if read as u64 > MOST_BYTES {
        return Err(std::io::Error::other(format!(
            "it is larger than {MOST_BYTES} bytes"
        )));
    }
    Ok(text)
}

/// A path given on the command line is relative to where the command was given.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}
