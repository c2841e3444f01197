//! A container that was started, and its end.

use std::os::fd::OwnedFd;

use rustix::process::{Signal, pidfd_send_signal};
use shim::protocol::*;

use super::{Dir, Site, Spawner, executed, wait_readable};

/// A started container.
pub struct Container {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub status: OwnedFd,
    pub start: Start,
    pub etc: Dir,
    pub documents: Dir,
    pub state: Dir,
}

impl Container {
    /// The command's pid on the host, when it has been executed.
    pub fn executed(&self) -> Result<i32, Failure> {
        executed(&self.status)
    }

    pub fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.pidfd, signal).unwrap();
    }

    /// Waits for init's end and returns the exit record.
    pub fn wait(&self) -> ExitStatus {
        wait_readable(&self.pidfd);
        self.state
            .read("exit")
            .parse::<ExitRecord>()
            .unwrap()
            .status
    }

    pub fn log(&self) -> String {
        self.state.read("logs/current")
    }

    /// What the command wrote to its output, without the prefixes.
    pub fn output(&self) -> String {
        self.log()
            .lines()
            .map(|l| l.splitn(4, ' ').nth(3).unwrap_or("").to_owned() + "\n")
            .collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        wait_readable(&self.pidfd);
    }
}

/// Runs a shell script as a site's command and returns how it ended and what it wrote; it makes no difference whether
/// the init was made ahead.
pub fn outcome(script: &str) -> (ExitStatus, String) {
    let [ahead, fresh] = [Spawner::new(), Spawner::without_ahead()].map(|spawner| {
        let c = Site::sh(script).run(&spawner);
        (c.wait(), c.output())
    });
    // The two streams are not in step.
    let sorted = |(status, output): &(ExitStatus, String)| {
        let mut lines: Vec<String> = output.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        (*status, lines)
    };
    assert_eq!(sorted(&ahead), sorted(&fresh), "made ahead or not");
    ahead
}
