//! The one definition of fastctl's command line: help, completions and man pages are made from it.
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Parser, Subcommand, ValueEnum, ValueHint};

use super::check::{Range, Which};
use super::owner::OwnerVerb;
use super::set::{self, Assignment};
use super::signals;
use crate::config::units::{Bytes, Span};
use crate::machine::State;
use crate::site::time;

/// Where the agent listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/fastcontainer/agent.sock";

const AFTER: &str = "\
Exit status: 0 done, 1 failed, 2 wrong usage, 3 no such vhost, 4 agent unreachable; exec exits \
with the command's own status, check as Nagios plugins do.

Who may do what is decided by the user that connects: root and group fastcontainer everything, the owner of a site only that \
site. Colour is used on a terminal only; NO_COLOR switches it off.";

/// Control the containers of this host's web sites.
#[derive(Debug, Parser)]
#[command(name = "fastctl", version, after_long_help = AFTER, max_term_width = 100)]
pub struct Args {
    /// Socket of the agent
    #[arg(long, global = true, value_name = "PATH", env = "FASTCONTAINER_SOCKET", default_value = DEFAULT_SOCKET,
          value_hint = ValueHint::FilePath)]
    pub socket: PathBuf,
    /// How long the agent may take to answer
    ///
    /// What waits for a site (start, stop, dispatch and their like) takes as long as the site is allowed to, and for as
    /// long as the agent answers when asked whether it is still there. Streams have no end.
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = timeout)]
    pub timeout: Span,
    /// Print the API's JSON, unchanged
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

fn timeout(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|e| format!("{e}"))?;
    match span.millis() {
        Some(0) => Err("nobody answers in no time at all".to_owned()),
        _ => Ok(span),
    }
}

/// One verb, one API call (or few).
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List vhosts with state and use
    #[command(visible_alias = "ls")]
    List {
        /// Only vhosts of this owner
        #[arg(long, value_name = "OWNER")]
        owner: Option<String>,
        /// Only vhosts in this state
        #[arg(long, value_name = "STATE", value_parser = State::WORDS)]
        state: Option<String>,
    },
    /// Show one vhost, or the host
    Status {
        /// The vhost; without it, the host is shown
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        vhost: Option<String>,
    },
    /// Make a vhost ready (start it if needed) and print where to connect
    Dispatch(OneVhost),
    /// Create or change vhosts from definition files
    ///
    /// Every file is read and checked, by the agent too, before the first is applied. Prints what differs per definition. A
    /// file is TOML or JSON; "-" is the standard input. The JSON of "get --json" is accepted as well.
    Apply {
        /// Check and show what would change, change nothing
        #[arg(long)]
        dry_run: bool,
        /// Definition files
        #[arg(short = 'f', long = "file", value_name = "FILE", required = true, num_args = 1.., value_hint = ValueHint::FilePath)]
        files: Vec<PathBuf>,
    },
    /// Remove a vhost: end its container and forget its definition
    #[command(visible_alias = "remove")]
    Rm(OneVhost),
    /// Change limits, also of a running container (same PID)
    ///
    /// Keys are those of a definition's [limits]: cpu, cpu_weight, cpu_burst, memory, memory_high, memory_min, swap, pids,
    /// io.read, io.write, io.read_iops, io.write_iops, io.weight, egress, ingress, disk. "max" lifts a limit, "default"
    /// goes back to the definition's. Prints what is in force afterwards, as read back from the kernel.
    ///
    /// With --for, the limits go back by themselves to what they were when the time is over, also if the site sleeps or
    /// the agent is started anew meanwhile. Setting the same limit without --for ends that.
    ///
    /// With --mend, no limits are given: where somebody has written others into the kernel by hand (status and doctor tell),
    /// those that should be in force are written again.
    Set {
        /// The vhost
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        vhost: String,
        /// Limits, such as cpu=20% memory=256M io.write=2MB/s
        #[arg(required_unless_present = "mend", value_name = "KEY=VALUE", value_parser = set::parse)]
        limits: Vec<Assignment>,
        /// Check and show what would change, change nothing
        #[arg(long)]
        dry_run: bool,
        /// For how long, such as 90s, 10m, 2h, 7d (default: for good)
        #[arg(long = "for", value_name = "TIME", value_parser = time)]
        time: Option<Duration>,
        /// Write the limits again that should be in force
        #[arg(long, conflicts_with_all = ["limits", "time"])]
        mend: bool,
    },
    /// Print the definition of a vhost as TOML
    Get(OneVhost),
    /// Start now
    #[command(visible_alias = "once")]
    Start(Vhosts),
    /// End the container; the next request starts it again
    Stop(Vhosts),
    /// Lift "down" without starting: the next request starts it
    Up(Vhosts),
    /// End the container and keep it down, whatever is requested
    Down(Vhosts),
    /// End the container and start it again
    Restart(Vhosts),
    /// Suspend all processes
    #[command(visible_alias = "pause")]
    Freeze(Vhosts),
    /// Continue after freeze
    #[command(visible_alias = "continue")]
    Thaw(Vhosts),
    /// Send a signal to the site's process
    Signal {
        /// The vhost
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        vhost: String,
        /// hup, alarm, int, term, kill, usr1, usr2, quit, stop, cont, winch; with or without SIG, or the number
        #[arg(value_parser = signals::canonical)]
        signal: String,
    },
    /// Print what the site wrote to its standard output and error
    Logs {
        /// Go on printing what comes
        #[arg(short, long)]
        follow: bool,
        /// How many lines to begin with
        #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
        lines: u64,
        /// The vhost
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        vhost: String,
    },
    /// Run a command inside the running container, as the site's user
    Exec {
        /// Use a terminal (default: if standard input and output are one)
        #[arg(short = 't', long = "terminal", conflicts_with = "no_terminal")]
        terminal: bool,
        /// Use no terminal
        #[arg(short = 'T', long = "no-terminal")]
        no_terminal: bool,
        /// The vhost
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        vhost: String,
        /// The command and its arguments
        #[arg(last = true, required = true, value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
        command: Vec<String>,
    },
    /// Print state changes, limit changes, out-of-memory kills, with time and cause
    Events {
        /// Go on printing what happens
        #[arg(short, long)]
        follow: bool,
        /// Only of this vhost
        #[arg(long, value_name = "VHOST")]
        vhost: Option<String>,
    },
    /// Show what the live sites use, every second
    ///
    /// Keys: c, m, i, n, o sort by CPU, memory, I/O, name, owner (again: the other way round), r turns the order round, t
    /// shows sums by owner, arrows and pages scroll, q ends. Bars are against the limits. Without a terminal, prints one
    /// table and ends.
    Top,
    /// Say who and what makes this host slow: CPU, I/O, swapping, or waiting for dead storage
    ///
    /// Measures for a moment: the CPUs, pressure, memory, and every live site's counters and processes. The page cache is
    /// not counted as used memory.
    Diagnose {
        /// How long to measure, 100ms to 10s
        #[arg(long, value_name = "TIME", default_value = "1s")]
        window: Span,
    },
    /// Say how many more sites like those that live fit, by measured memory and CPU time, with the arithmetic
    ///
    /// With --vhost: what other limits would have done to that site, by what is recorded of it.
    Capacity {
        /// Memory to leave alone (default: a tenth of all, at least 256M)
        #[arg(long, value_name = "SIZE", conflicts_with = "vhost")]
        reserve: Option<Bytes>,
        /// The site to which other limits are held
        #[arg(long, requires = "limits", value_parser = NonEmptyStringValueParser::new())]
        vhost: Option<String>,
        /// How far back
        #[arg(long, default_value = "24h", requires = "vhost")]
        since: Span,
        /// Limits, such as cpu=20% memory=128M
        #[arg(value_name = "KEY=VALUE", requires = "vhost")]
        limits: Vec<String>,
    },
    /// One line and an exit code for Nagios and its like
    ///
    /// Exit status: 0 OK, 1 WARNING, 2 CRITICAL (also when the agent cannot be reached), 3 UNKNOWN. Without names, all is
    /// checked. Unless told otherwise, these are a warning and critical: agent 2 and 10 (seconds), sites 0 and any that
    /// is stuck, definitions 0, cpu 60 and 90, memory 10 and 30, io 40 and 80, free 10: and 5:. A range is that of the
    /// values that are well: 10 (0 to 10), 10: (10 and more), ~:10, 5:10, or @5:10 for those that are not.
    Check {
        /// Range beyond which it is a warning; needs one check to be named
        #[arg(
            short = 'w',
            long = "warning",
            value_name = "RANGE",
            allow_hyphen_values = true
        )]
        warning: Option<Range>,
        /// Range beyond which it is critical; needs one check to be named
        #[arg(
            short = 'c',
            long = "critical",
            value_name = "RANGE",
            allow_hyphen_values = true
        )]
        critical: Option<Range>,
        /// What to check
        #[arg(value_name = "CHECK", value_enum)]
        checks: Vec<Which>,
    },
    /// Show and set what an owner may use, and how it is divided among their sites
    Owner {
        /// What to do
        #[command(subcommand)]
        verb: OwnerVerb,
    },
    /// Show what sites have used: CPU, memory, I/O, network, starts, requests
    ///
    /// Without a vhost a table of all that you may see, with the sums of owners; with one, all about it with graphs over
    /// the time. History is kept in steps of 5 s for an hour, of a minute for two days, of an hour for 400 days; the table
    /// counts in whole hours when it goes back further than six.
    Usage {
        /// Only this vhost
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        vhost: Option<String>,
        /// Only vhosts of this owner
        #[arg(long, value_name = "OWNER")]
        owner: Option<String>,
        /// How far back, such as 10m, 24h, 30d
        #[arg(long, value_name = "TIME", default_value = "24h")]
        since: String,
        /// Length of the steps of the series in --json and --csv
        #[arg(long, value_name = "TIME")]
        step: Option<String>,
        /// Print comma-separated values: a line a vhost, with --step one a vhost and step
        #[arg(long, conflicts_with = "json")]
        csv: bool,
    },
    /// Check what this kernel and its mounts offer, and say what to do about what is missing
    Doctor,
    /// Print the completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory
        #[arg(value_hint = ValueHint::DirPath)]
        directory: PathBuf,
    },
}

/// A verb's only argument.
#[derive(Debug, clap::Args)]
pub struct OneVhost {
    /// The vhost
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub vhost: String,
}

/// Arguments of a verb that takes several vhosts.
#[derive(Debug, clap::Args)]
pub struct Vhosts {
    /// The vhosts
    #[arg(required = true, value_name = "VHOST", value_parser = NonEmptyStringValueParser::new())]
    pub vhosts: Vec<String>,
}

/// Shells with completions.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    /// bash
    Bash,
    /// zsh
    Zsh,
    /// fish
    Fish,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn aliases_mean_their_verbs() {
        let verb = |words: &[&str]| Args::try_parse_from(words).unwrap().verb;
        assert!(matches!(verb(&["fastctl", "once", "a"]), Verb::Start(_)));
        assert!(matches!(verb(&["fastctl", "pause", "a"]), Verb::Freeze(_)));
        assert!(matches!(
            verb(&["fastctl", "continue", "a", "b"]),
            Verb::Thaw(v) if v.vhosts == ["a", "b"]
        ));
        assert!(matches!(verb(&["fastctl", "remove", "a"]), Verb::Rm(_)));
    }

    #[test]
    fn the_command_of_exec_keeps_its_own_options() {
        let args =
            Args::try_parse_from(["fastctl", "exec", "a", "--", "ls", "--json", "-t"]).unwrap();
        assert!(!args.json);
        assert!(matches!(
            args.verb,
            Verb::Exec { terminal: false, command, .. } if command == ["ls", "--json", "-t"]
        ));
    }

    #[test]
    fn wrong_usage_is_refused() {
        for words in [
            &["fastctl"][..],
            &["fastctl", "nonsense"],
            &["fastctl", "set", "a"],
            &["fastctl", "set", "a", "cpu"],
            &["fastctl", "set", "a", "cpu=1", "--mend"],
            &["fastctl", "set", "a", "--mend", "--for", "1h"],
            &["fastctl", "set", "a", "cpu=1", "--for", "0s"],
            &["fastctl", "set", "a", "cpu=1", "--for", "31d"],
            &["fastctl", "set", "a", "cpu=1", "--for", "soon"],
            &["fastctl", "dispatch", ""],
            &["fastctl", "start"],
            &["fastctl", "exec", "a", "ls"],
            &["fastctl", "exec", "a", "--"],
            &["fastctl", "exec", "-t", "-T", "a", "--", "ls"],
            &["fastctl", "signal", "a", "nonsense"],
            &["fastctl", "list", "--state", "asleep"],
        ] {
            let error = Args::try_parse_from(words).unwrap_err();
            assert!(error.use_stderr(), "{words:?}");
            assert_eq!(error.exit_code(), 2, "{words:?}");
        }
    }

    #[test]
    fn files_can_be_many() {
        let args =
            Args::try_parse_from(["fastctl", "apply", "-f", "a", "b", "-f", "-", "--dry-run"]);
        assert!(matches!(
            args.unwrap().verb,
            Verb::Apply { dry_run: true, files } if files.len() == 3
        ));
    }
}
