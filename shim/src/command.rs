//! The tenant's command: the last steps before execve, in the process that becomes it. It has an empty bounding set,
//! its resource limits, no_new_privs and the seccomp filter by now.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::Signal;
use rustix::stdio;
use rustix::thread::CapabilitySet;
use shim::protocol::{Failure, Program, Report};

use crate::confine;
use crate::main_process::Entry;
use crate::report::{Done, Step, failure, send_report};
use crate::sys;

/// Where PATH points if the environment has none.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// The first number passed listening sockets get (sd_listen_fds).
const FIRST_LISTEN: i32 = 3;

/// A command and how it is to run.
pub(crate) struct Command<'a> {
    pub(crate) program: &'a Program,
    /// Standard input; /dev/null if there is none.
    pub(crate) stdin: Option<BorrowedFd<'a>>,
    /// Standard output and error.
    pub(crate) output: [BorrowedFd<'a>; 2],
    /// Listening sockets to hand over.
    pub(crate) listen: &'a [OwnedFd],
    /// Standard input becomes the controlling terminal.
    pub(crate) terminal: bool,
    /// Ends with its parent.
    pub(crate) bound_to_parent: bool,
    /// What has to be waited for, if it has not all been there before this process.
    pub(crate) entry: Option<&'a Entry>,
}

/// The first number beyond those of so many listening sockets.
pub(crate) fn beyond_listening(sockets: usize) -> i32 {
    FIRST_LISTEN + i32::try_from(sockets).unwrap_or(0)
}

impl Command<'_> {
    /// Closes what the command does not need: no descriptor of the host is to be here while it waits, and what is open
    /// counts towards its limit, which opening /dev/null would exceed. The caller keeps `status` and `own`; every other
    /// OwnedFd of this process must be forgotten.
    pub(crate) fn close_others(&self, status: BorrowedFd<'_>, own: &[BorrowedFd<'_>]) -> Done<()> {
        // Numbers that are filled later must not be given to something else meanwhile.
        let mut keep = vec![stdio::stdin(), stdio::stdout(), stdio::stderr(), status];
        keep.extend(own);
        keep.extend(self.stdin);
        keep.extend(self.output);
        keep.extend(self.listen.iter().map(AsFd::as_fd));
        keep.extend(self.entry.iter().flat_map(|entry| entry.descriptors()));
        sys::close_all_but(&keep).step("close the descriptors", "")
    }

    /// Becomes the command, or reports why not. Called in a process of its own, as uid 0 of the container.
    pub(crate) fn run(&self, status: BorrowedFd<'_>) -> ! {
        let status = match fcntl_dupfd_cloexec(status, self.free_number()) {
            Ok(fd) => fd,
            Err(e) => {
                let f = failure("keep the status socket", "", e.raw_os_error());
                send_report(status, &Report::Failed(f));
                sys::exit_now(126);
            }
        };
        send_report(&status, &Report::Command);
        let f = self.become_it();
        let code = if f.errno == libc::ENOENT { 127 } else { 126 };
        send_report(&status, &Report::Failed(f));
        sys::exit_now(code)
    }

    /// A number beyond those that are about to be taken.
    fn free_number(&self) -> i32 {
        beyond_listening(self.listen.len())
    }

    fn become_it(&self) -> Failure {
        let Program {
            command: words,
            env,
            ..
        } = self.program;
        let path = env
            .iter()
            .find(|(k, _)| k == "PATH")
            .map_or(DEFAULT_PATH, |(_, v)| v.as_str());
        let name = words.first().map_or("", String::as_str);
        let prepared = (|| {
            let argv = strings(words.iter().cloned())?;
            let env = strings(self.environment())?;
            let candidates = strings(candidates(name, path))?;
            self.confine()?;
            if let Some(entry) = self.entry {
                entry.join(self.program)?;
            }
            self.give_up_power()?;
            self.settle()?;
            Ok((argv, env, candidates))
        })();
        let (argv, env, candidates) = match prepared {
            Ok(p) => p,
            Err(f) => return f,
        };
        let mut worst = Errno::NOENT;
        for program in &candidates {
            match sys::execve(program, &argv, &env) {
                Errno::NOENT | Errno::NOTDIR => {}
                // As execvp does: a later directory may have one that can be executed.
                Errno::ACCESS => worst = Errno::ACCESS,
                other => {
                    worst = other;
                    break;
                }
            }
        }
        failure("execute", name, worst.raw_os_error())
    }

    fn environment(&self) -> impl Iterator<Item = String> {
        let mut env: Vec<String> = self
            .program
            .env
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        if !self.listen.is_empty() {
            env.retain(|e| !e.starts_with("LISTEN_FDS=") && !e.starts_with("LISTEN_PID="));
            env.push(format!("LISTEN_FDS={}", self.listen.len()));
            env.push(format!(
                "LISTEN_PID={}",
                rustix::process::getpid().as_raw_nonzero()
            ));
            if !env.iter().any(|e| e.starts_with("LISTEN_FDNAMES=")) {
                env.push(format!(
                    "LISTEN_FDNAMES={}",
                    vec!["listen"; self.listen.len()].join(":")
                ));
            }
        }
        env.into_iter()
    }

    fn confine(&self) -> Done<()> {
        self.place_descriptors()?;
        sys::set_signal(libc::SIGCHLD, false);
        sys::set_signal(libc::SIGPIPE, false);
        sys::block_only(&[]);
        rustix::process::setsid().step("make a session", "")?;
        if let Some(terminal) = self.stdin.filter(|_| self.terminal) {
            rustix::process::ioctl_tiocsctty(terminal).step("take the controlling terminal", "")?;
        }
        rustix::process::umask(Mode::from_raw_mode(0o022));
        confine::set_ids(self.program.ids.uid, self.program.ids.gid)
    }

    fn give_up_power(&self) -> Done<()> {
        confine::keep_capabilities(CapabilitySet::empty())?;
        if self.bound_to_parent {
            // A change of ids clears it, so that this is the place.
            let kill = Some(Signal::KILL);
            rustix::process::set_parent_process_death_signal(kill)
                .step("depend on", "the parent")?;
        }
        Ok(())
    }

    /// What needs the container's files.
    fn settle(&self) -> Done<()> {
        if let Some(entry) = self.entry {
            entry.pass()?;
        }
        if self.stdin.is_none() {
            let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .step("open", "/dev/null")?;
            sys::place(null.as_fd(), 0).step("place descriptor", "0")?;
        }
        rustix::process::chdir(&self.program.workdir)
            .step("enter the working directory", &self.program.workdir)?;
        let first = u32::try_from(self.free_number()).unwrap_or(3);
        sys::close_on_exec_from(first).step("close the descriptors", "")
    }

    /// Puts standard streams and listening sockets onto their numbers.
    fn place_descriptors(&self) -> Done<()> {
        // Away from the numbers to fill first; what lies there otherwise is a copy that nobody needs any more.
        let away = |fd: BorrowedFd<'_>| {
            fcntl_dupfd_cloexec(fd, self.free_number()).step("move a descriptor", "")
        };
        let input = self.stdin.map(|fd| (0, fd));
        let output = (1..).zip(self.output);
        let sockets = (FIRST_LISTEN..).zip(self.listen.iter().map(AsFd::as_fd));
        let moved = input
            .into_iter()
            .chain(output)
            .chain(sockets)
            .map(|(number, fd)| Ok((number, away(fd)?)))
            .collect::<Done<Vec<(i32, OwnedFd)>>>()?;
        for (number, fd) in &moved {
            sys::place(fd.as_fd(), *number).step("place descriptor", &number.to_string())?;
        }
        Ok(())
    }
}

fn strings(items: impl IntoIterator<Item = String>) -> Done<Vec<CString>> {
    let nul = |_| failure("use a word that contains NUL", "", libc::EINVAL);
    items
        .into_iter()
        .map(|s| CString::new(s).map_err(nul))
        .collect()
}

/// The files to try for a command name, as execvp does.
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    path.split(':')
        .filter(|d| d.starts_with('/'))
        .map(|d| format!("{}/{name}", d.trim_end_matches('/')))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_searched_in_order_and_only_absolute_directories_count() {
        assert_eq!(
            candidates("sh", "/usr/bin:/bin"),
            ["/usr/bin/sh", "/bin/sh"]
        );
        assert_eq!(candidates("sh", ":.:/bin/"), ["/bin/sh"]);
        assert_eq!(candidates("./sh", "/bin"), ["./sh"]);
        assert!(candidates("sh", "").is_empty());
    }
}
