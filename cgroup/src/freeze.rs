//! Freezing, thawing, and waiting for what cgroup.events tells.

use crate::dir::{Dir, read_all};
use crate::group::Group;
use crate::hierarchy::Controller;
use crate::{Error, stat};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::time::{Duration, Instant};

/// The kernel notifies a file at most once in 10 ms, so a wait is never longer than that before reading again.
const LONGEST: Duration = Duration::from_millis(10);
const SHORTEST: Duration = Duration::from_micros(100);

impl Group {
    /// Stops all processes of the group, and waits until they have stopped.
    pub fn freeze(&self, limit: Duration) -> Result<(), Error> {
        self.set_frozen(true, limit)
    }

    /// Lets them run again.
    pub fn thaw(&self, limit: Duration) -> Result<(), Error> {
        self.set_frozen(false, limit)
    }

    /// Whether all processes have stopped (not only been asked to).
    pub fn is_frozen(&self) -> Result<bool, Error> {
        if let Some(dir) = self.v2() {
            return Ok(stat::flat(&dir.read("cgroup.events")?, "frozen") == Some(1));
        }
        Ok(self.v1_freezer("is_frozen")?.read("freezer.state")?.trim() == "FROZEN")
    }

    fn set_frozen(&self, frozen: bool, limit: Duration) -> Result<(), Error> {
        let state = if frozen { "frozen" } else { "thawed" };
        let reached = if let Some(dir) = self.v2() {
            dir.write("cgroup.freeze", if frozen { "1" } else { "0" })?;
            wait_event(dir, "frozen", u64::from(frozen), limit)?
        } else {
            let dir = self.v1_freezer("cgroup.freeze")?;
            let word = if frozen { "FROZEN" } else { "THAWED" };
            // FREEZING turns into FROZEN when it is read, so there is nothing to be notified of.
            let mut pause = Backoff::new(limit);
            dir.write("freezer.state", word)?;
            loop {
                if dir.read("freezer.state")?.trim() == word {
                    break true;
                }
                if !pause.wait(None)? {
                    break false;
                }
            }
        };
        if reached {
            Ok(())
        } else {
            Err(self.timeout(state, limit))
        }
    }

    fn v1_freezer(&self, limit: &'static str) -> Result<&Dir, Error> {
        let found = self
            .each()
            .find(|(root, _)| root.serves.contains(&Controller::Freezer) && !root.v2);
        found.map(|(_, dir)| dir).ok_or_else(|| Error::Unsupported {
            group: self.name.clone(),
            limit,
            controller: Controller::Freezer,
            why: self.shared.hierarchy.why_missing(Controller::Freezer),
        })
    }

    /// Whether there are processes in the group, in any hierarchy. Zombies do not count.
    pub fn populated(&self) -> Result<bool, Error> {
        if let Some(dir) = self.v2()
            && let Some(events) = dir.read_optional("cgroup.events")?
            && stat::flat(&events, "populated") == Some(1)
        {
            return Ok(true);
        }
        self.any_v1()
    }

    /// A process can be in a v1 group without being in the v2 one, if somebody moved it.
    fn any_v1(&self) -> Result<bool, Error> {
        for (_, dir) in self.each().filter(|(root, _)| !root.v2) {
            if !dir.members()?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Waits until the last process has gone.
    pub fn wait_empty(&self, limit: Duration) -> Result<(), Error> {
        let start = Instant::now();
        if let Some(dir) = self.v2()
            && dir.exists("cgroup.events")
            && !wait_event(dir, "populated", 0, limit)?
        {
            return Err(self.timeout("empty", limit));
        }
        let mut pause = Backoff::new(limit.saturating_sub(start.elapsed()));
        while self.any_v1()? {
            if !pause.wait(None)? {
                return Err(self.timeout("empty", limit));
            }
        }
        Ok(())
    }

    pub(crate) fn timeout(&self, state: &'static str, waited: Duration) -> Error {
        let pids = self.pids().unwrap_or_default();
        let shown: Vec<String> = pids.iter().take(5).map(ToString::to_string).collect();
        let more = if pids.len() > shown.len() {
            " and more"
        } else {
            ""
        };
        let detail = if pids.is_empty() {
            String::new()
        } else {
            format!(
                "; in it: {}{more} (a process in uninterruptible sleep can be neither frozen nor killed)",
                shown.join(" ")
            )
        };
        Error::Timeout {
            group: self.name.clone(),
            state,
            waited,
            detail,
        }
    }
}

/// Whether `key` of cgroup.events became `value` within the limit.
pub(crate) fn wait_event(dir: &Dir, key: &str, value: u64, limit: Duration) -> Result<bool, Error> {
    let file = dir
        .open_file("cgroup.events", OFlags::RDONLY)
        .map_err(|e| dir.error("open", "cgroup.events", e))?;
    let mut pause = Backoff::new(limit);
    loop {
        // Reading also arms the next notification.
        let text = read_all(&file).map_err(|e| dir.error("read", "cgroup.events", e))?;
        if stat::flat(&text, key) == Some(value) {
            return Ok(true);
        }
        if !pause.wait(Some(&file))? {
            return Ok(false);
        }
    }
}

/// Waits that grow, up to a deadline.
pub(crate) struct Backoff {
    deadline: Option<Instant>,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(limit: Duration) -> Self {
        // A limit beyond the clock's range is no limit.
        Self {
            deadline: Instant::now().checked_add(limit),
            next: SHORTEST,
        }
    }

    /// Waits for a notification of `file`, or where there is none to wait for, a moment. False when the time is up.
    pub(crate) fn wait(&mut self, file: Option<&rustix::fd::OwnedFd>) -> Result<bool, Error> {
        let left = self
            .deadline
            .map(|d| d.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        let pause = left.unwrap_or(self.next).min(self.next);
        self.next = (self.next * 2).min(LONGEST);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(pause.subsec_nanos()),
        };
        let mut one = file.map(|f| [PollFd::new(f, PollFlags::PRI)]);
        let fds = one.as_mut().map_or(&mut [][..], |fds| &mut fds[..]);
        match poll(fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(true),
            Err(e) => Err(Error::sys("wait for", "cgroup.events", e)),
        }
    }
}
