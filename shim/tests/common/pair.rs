//! A pair made ahead, and a start as it is given to it: in parts, as the agent does.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use shim::protocol::*;

use super::send;

pub struct Pair {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub socket: OwnedFd,
    /// The child's.
    pub main: OwnedFd,
}

type Part = (Vec<FdRole>, Vec<OwnedFd>);

/// What follows.
pub struct Rest {
    pub groups: Part,
    pub files: Part,
}

fn take(start: &mut Start, fds: &mut Vec<OwnedFd>, which: impl Fn(FdRole) -> bool) -> Part {
    let (mut roles, mut taken) = (Vec::new(), Vec::new());
    let mut at = 0;
    // A start of a test may say more or fewer roles than there are descriptors.
    while at < start.fds.len().min(fds.len()) {
        if which(start.fds[at]) {
            roles.push(start.fds.remove(at));
            taken.push(fds.remove(at));
        } else {
            at += 1;
        }
    }
    (roles, taken)
}

/// The groups of a start that names none: those where this test is already.
fn own_group() -> OwnedFd {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let own = own.lines().find_map(|line| line.strip_prefix("0::"));
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find(|line| line.contains(" - cgroup2 "));
    let mount = mount.unwrap().split(' ').nth(4).unwrap();
    let path = format!("{mount}{}/cgroup.procs", own.unwrap());
    fs::File::options().write(true).open(path).unwrap().into()
}

impl Pair {
    /// Gives both their parts. What follows is the caller's to give.
    pub fn begin(
        &self,
        mut start: Start,
        mut fds: Vec<OwnedFd>,
        own: &[(FdRole, BorrowedFd<'_>)],
    ) -> Rest {
        let files = take(&mut start, &mut fds, |role| {
            matches!(role, FdRole::ExitFile | FdRole::LogDir)
        });
        let (directories, opened) = take(&mut start, &mut fds, |role| role == FdRole::CgroupDir);
        let mut groups = take(&mut start, &mut fds, |role| role == FdRole::CgroupProcs);
        for directory in opened {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let procs = openat(directory, "cgroup.procs", flags, Mode::empty());
            groups.1.push(procs.unwrap());
        }
        groups
            .0
            .extend(directories.iter().map(|_| FdRole::CgroupProcs));
        if groups.0.is_empty() {
            groups = (vec![FdRole::CgroupProcs], vec![own_group()]);
        }
        let (mut roles, listening) = take(&mut start, &mut fds, |role| role == FdRole::Listen);
        let netns = start.fds.iter().position(|role| *role == FdRole::NetNs);
        let mut theirs: Vec<BorrowedFd<'_>> = listening.iter().map(AsFd::as_fd).collect();
        roles.push(FdRole::NetNs);
        theirs.push(fds[netns.unwrap()].as_fd());
        for (role, fd) in own.iter().filter(|(role, _)| *role != FdRole::SiteUsers) {
            roles.push(*role);
            theirs.push(*fd);
        }
        let run = Request::Run(Box::new(Run {
            vhost: start.vhost.clone(),
            program: start.program.clone(),
            fds: roles,
        }));
        send(&self.main, &postcard::to_stdvec(&run).unwrap(), &theirs);
        let mut ours: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        for (role, fd) in own {
            start.fds.push(*role);
            ours.push(*fd);
        }
        let start = Request::Start(Box::new(start));
        send(&self.socket, &postcard::to_stdvec(&start).unwrap(), &ours);
        Rest { groups, files }
    }

    /// Gives both what follows.
    pub fn follow(&self, rest: &Rest) {
        let groups: Vec<BorrowedFd<'_>> = rest.groups.1.iter().map(AsFd::as_fd).collect();
        self.tell(&self.main, &Later::Join(rest.groups.0.clone()), &groups);
        self.tell(&self.main, &Later::Go, &[]);
        let files = rest.files.1.iter().map(AsFd::as_fd);
        let all: Vec<BorrowedFd<'_>> = groups.iter().copied().chain(files).collect();
        let roles = [&rest.groups.0[..], &rest.files.0].concat();
        self.tell(&self.socket, &Later::Join(roles), &all);
    }

    pub fn tell(&self, socket: &OwnedFd, what: &Later, fds: &[BorrowedFd<'_>]) {
        send(socket, &postcard::to_stdvec(what).unwrap(), fds);
    }
}
