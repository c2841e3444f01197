//! Pid 1 of a container: the order of its set-up, and what it becomes afterwards.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::CapabilitySet;
use shim::protocol::{ExitRecord, ExitStatus, Later, Report, Start};

use crate::clone::fork;
use crate::fds::{Fds, need};
use crate::host::Host;
use crate::idmap::UserNamespaces;
use crate::logs::Logs;
use crate::plumbing::Plumbing;
use crate::ready::Ahead;
use crate::reap;
use crate::report::{Done, Step, failure, send_report};
use crate::root::Bare;
use crate::{confine, main_process, sys, timestamp};

/// What init needs for the rest of the container's life.
struct Running {
    command: Pid,
    signals: OwnedFd,
    exit_file: OwnedFd,
    logs: Logs,
    /// Its /sys is the one that is shared.
    shared_sys: bool,
}

/// Sets the container up, starts the command, and stays as its init. `ahead` is what it has prepared already.
pub(crate) fn run(start: &Start, mut fds: Fds, host: &Host, ahead: Option<Ahead>) -> ! {
    let running = need(&mut fds.status, "Status").and_then(|status| {
        let running = set_up(start, &mut fds, host, &status, ahead);
        if let Err(f) = &running {
            send_report(&status, &Report::Failed(f.clone()));
        }
        running
    });
    // What is still in here was copied from the spawner or is closed by number below.
    std::mem::forget(fds);
    let Ok(mut running) = running else {
        sys::exit_now(126)
    };
    let status = match settle(&running, host) {
        Ok(()) => reap::watch(&running.signals, running.command, Some(&mut running.logs)),
        Err(f) => {
            running.logs.note(&format!(
                "fastcontainer: init cannot {}",
                crate::report::describe(&f)
            ));
            ExitStatus::Code(126)
        }
    };
    if reap::has_children() {
        // Everything else in this pid namespace. The kernel does the same when init ends; this way its last words are
        // still read. To do that, it looks at every process of the host.
        let _nobody_left = sys::kill(-1, libc::SIGKILL);
    }
    running.logs.finish();
    record(&running.exit_file, status);
    sys::exit_now(reap::exit_code(status))
}

fn set_up(
    start: &Start,
    fds: &mut Fds,
    host: &Host,
    status: &OwnedFd,
    ahead: Option<Ahead>,
) -> Done<Running> {
    join_cgroups(&fds.cgroup_procs)?;
    let made_ahead = ahead.is_some();
    let Ahead {
        bare,
        plumbing,
        main,
        later,
    } = match ahead {
        Some(ahead) => ahead,
        None => at_once(start, fds, host, status)?,
    };
    plumbing.give_to(start.program.ids)?;
    if made_ahead {
        // Whatever was sent to one that waited for its container was not meant for this one. A child that has ended is still found.
        while sys::next_signal(plumbing.signals.as_fd()).is_some() {}
    }
    let users = UserNamespaces {
        container: need(&mut fds.container_users, "ContainerUsers")?,
        site: need(&mut fds.site_users, "SiteUsers")?,
    };
    confine::enter_network_namespace(need(&mut fds.netns, "NetNs")?)?;
    name_process(&start.vhost)?;
    bare.furnish(start)?.finish(start, fds, &users, host)?;
    rustix::system::sethostname(start.hostname.as_bytes())
        .step("set the host name", &start.hostname)?;
    // The tenant's code begins when nothing of the host's power is left here.
    confine::enter_user_namespace(&users.container)?;
    plumbing.gate.open()?;
    // Now that nobody waits for it any more. The command first, where both share a processor.
    rustix::thread::sched_yield();
    if let Some(later) = &later {
        receive_rest(later.as_fd(), fds)?;
        join_cgroups(&fds.cgroup_procs)?;
        see_own_cgroups()?;
    }
    let log_dir = need(&mut fds.log_dir, "LogDir")?;
    Ok(Running {
        command: main,
        signals: plumbing.signals,
        exit_file: need(&mut fds.exit_file, "ExitFile")?,
        logs: Logs::new(
            log_dir,
            &start.vhost,
            start.log,
            plumbing.out.read,
            plumbing.err.read,
        ),
        shared_sys: start.shared_sys,
    })
}

/// What could not be made ahead.
fn at_once(start: &Start, fds: &mut Fds, host: &Host, status: &OwnedFd) -> Done<Ahead> {
    see_own_cgroups()?;
    let plumbing = Plumbing::lay()?;
    let bare = Bare::build(host)?;
    match fork().step("fork", "")? {
        Some(main) => Ok(Ahead {
            bare,
            plumbing,
            main,
            later: None,
        }),
        None => {
            let Ok(copy) = status.try_clone() else {
                let f = failure("keep the status socket", "", libc::EMFILE);
                send_report(status, &Report::Failed(f));
                sys::exit_now(126)
            };
            fds.status = Some(copy);
            let fds = std::mem::take(fds);
            main_process::run(&start.vhost, &start.program, fds, &plumbing, host, None)
        }
    }
}

/// Gives up everything that waiting, logging and signalling do not need.
fn settle(running: &Running, host: &Host) -> Done<()> {
    confine::settle_as_root()?;
    confine::filter(&host.init_filter)?;
    let mut keep = vec![running.signals.as_fd(), running.exit_file.as_fd()];
    keep.extend(running.logs.descriptors());
    keep.extend(running.shared_sys.then_some(host.lone.as_fd()));
    sys::close_all_but(&keep).step("close the descriptors", "")?;
    // To signal the command, which has another uid.
    confine::keep_capabilities(CapabilitySet::KILL)
}

/// Writes how the command ended, in one piece.
pub(crate) fn record(file: &OwnedFd, status: ExitStatus) {
    let line = format!(
        "{}\n",
        ExitRecord {
            status,
            at: timestamp::now().0
        }
    );
    let _full_disk_or_no_reader = rustix::io::write(file, line.as_bytes());
}

/// Waits for what the agent has made meanwhile.
fn receive_rest(later: BorrowedFd<'_>, fds: &mut Fds) -> Done<()> {
    let rest = main_process::next(later)?;
    let (rest, own) = rest.ok_or(Errno::PIPE).step("wait for", "its cgroups")?;
    match rest {
        Later::Join(roles) => fds.join(own, &roles),
        Later::Go => Err(failure("join", "its cgroups", libc::EBADMSG)),
    }
}

/// Joins the cgroups that were not cloned into.
pub(crate) fn join_cgroups(procs: &[OwnedFd]) -> Done<()> {
    for fd in procs {
        rustix::io::write(fd, b"0").step("join", "a cgroup")?;
    }
    Ok(())
}

/// Makes the cgroups that were joined the root of all that can be seen.
pub(crate) fn see_own_cgroups() -> Done<()> {
    sys::unshare(libc::CLONE_NEWCGROUP).step("unshare the cgroup namespace", "")
}

/// Shows the vhost in the host's process list.
pub(crate) fn name_process(vhost: &str) -> Done<()> {
    let name = format!("fc:{vhost}");
    let name = std::ffi::CString::new(name).unwrap_or_default();
    rustix::thread::set_name(&name).step("set the process name", "")
}
