//! fastcontainerd's command line, kept here so that its man page is made beside those of fastctl.
use std::path::PathBuf;

use clap::{Parser, ValueHint};

/// Start web sites' containers on request, end them when idle.
///
/// The node agent: answers dispatch requests on a Unix socket, starts the container of a site when it is asked for, ends it
/// when it is idle, and changes limits live. Flags override the configuration file, which overrides the defaults.
#[derive(Debug, Clone, Parser)]
#[command(name = "fastcontainerd", version, max_term_width = 100)]
pub struct DaemonArgs {
    /// Configuration file [default: /etc/fastcontainer/agent.toml]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Socket to listen on [default: /run/fastcontainer/agent.sock]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub socket: Option<PathBuf>,
    /// Socket that hands over connections to sites [default: /run/fastcontainer/connect.sock]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub connect_socket: Option<PathBuf>,
    /// What outlives a reboot: wanted states, overrides, logs [default: /var/lib/fastcontainer]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// What lives as long as the containers [default: /run/fastcontainer]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub run_dir: Option<PathBuf>,
    /// Definitions, one NAME.toml each [default: /etc/fastcontainer/vhosts.d]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub vhosts_dir: Option<PathBuf>,
    /// Parent of all cgroups, a path below the cgroup mount (on v1 below each controller's)
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<PathBuf>,
    /// End every container, remove cgroups, links and firewall rules, then exit (for the removal of the package)
    #[arg(long)]
    pub teardown: bool,
}

impl From<DaemonArgs> for crate::config::Overrides {
    fn from(args: DaemonArgs) -> Self {
        Self {
            config: args.config,
            socket: args.socket,
            connect_socket: args.connect_socket,
            state_dir: args.state_dir,
            run_dir: args.run_dir,
            vhosts_dir: args.vhosts_dir,
            cgroup_parent: args.cgroup_parent,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_of_the_contract() {
        DaemonArgs::command().debug_assert();
        let args = DaemonArgs::try_parse_from([
            "fastcontainerd",
            "--config=c",
            "--socket=s",
            "--connect-socket=c",
            "--state-dir=st",
            "--run-dir=r",
            "--vhosts-dir=v",
            "--cgroup-parent=p",
        ])
        .unwrap();
        assert_eq!(args.cgroup_parent.unwrap(), PathBuf::from("p"));
    }
}
