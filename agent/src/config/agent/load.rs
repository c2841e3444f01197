//! Reading agent.toml, laying the command line over it, checking the result.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{AgentConfig, DEFAULT_ETC};
use crate::config::definition::Rules;
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
    /// The socket that hands over connections to sites
    #[arg(long, value_name = "PATH")]
    pub connect_socket: Option<PathBuf>,
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
        if let Some(socket) = &over.connect_socket {
            self.connect_socket = Some(absolute(socket));
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

    /// The socket that hands over connections.
    pub fn connect_socket(&self) -> PathBuf {
        let set = self.connect_socket.clone();
        set.unwrap_or_else(|| self.run_dir.join("connect.sock"))
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
            limits: self.limits.clone(),
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
        let candidates = shim_places(self.shim.as_deref());
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

/// Where the shim may be: where agent.toml says, or beside this program, or where the package puts it.
pub fn shim_places(given: Option<&Path>) -> Vec<PathBuf> {
    let name = "fastcontainer-shim";
    if let Some(path) = given {
        return vec![path.to_owned()];
    }
    let beside = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name(name));
    let packaged = Path::new("/usr/libexec/fastcontainer").join(name);
    beside.into_iter().chain([packaged]).collect()
}
