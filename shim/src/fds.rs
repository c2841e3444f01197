//! The descriptors of one request, by role. Each is closed when the request has been handled, in the spawner as in
//! the child.

use std::os::fd::OwnedFd;

use shim::protocol::{Failure, FdRole};

use crate::report::failure;

/// Descriptors sorted by what they are for.
#[derive(Debug, Default)]
pub(crate) struct Fds {
    pub(crate) status: Option<OwnedFd>,
    pub(crate) exit_file: Option<OwnedFd>,
    pub(crate) log_dir: Option<OwnedFd>,
    pub(crate) netns: Option<OwnedFd>,
    pub(crate) container_users: Option<OwnedFd>,
    pub(crate) site_users: Option<OwnedFd>,
    pub(crate) cgroup_dir: Option<OwnedFd>,
    pub(crate) cgroup_procs: Vec<OwnedFd>,
    pub(crate) mounts: Vec<Option<OwnedFd>>,
    pub(crate) listen: Vec<OwnedFd>,
    pub(crate) target: Option<OwnedFd>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

fn wrong(what: &str) -> Failure {
    failure("use the request's descriptors", what, libc::EINVAL)
}

/// Takes one descriptor out of its place; `what` names it where it is missing.
pub(crate) fn need(slot: &mut Option<OwnedFd>, what: &str) -> Result<OwnedFd, Failure> {
    slot.take().ok_or_else(|| wrong(&format!("no {what}")))
}

/// Where to tell what is wrong with descriptors, if that is among them.
pub(crate) fn status_of(fds: &[OwnedFd], roles: &[FdRole]) -> Option<OwnedFd> {
    let at = roles.iter().position(|role| *role == FdRole::Status)?;
    fds.get(at)?.try_clone().ok()
}

impl Fds {
    /// Gives each descriptor its role; `mounts` is how many mounts the request has.
    pub(crate) fn sort(
        fds: Vec<OwnedFd>,
        roles: &[FdRole],
        mounts: usize,
    ) -> Result<Self, Failure> {
        if fds.len() != roles.len() {
            return Err(wrong(&format!(
                "{} descriptors for {} roles",
                fds.len(),
                roles.len()
            )));
        }
        let mut sorted = Self {
            mounts: (0..mounts).map(|_| None).collect(),
            ..Self::default()
        };
        for (fd, role) in fds.into_iter().zip(roles) {
            let slot = match role {
                FdRole::CgroupProcs => {
                    sorted.cgroup_procs.push(fd);
                    continue;
                }
                FdRole::Listen => {
                    sorted.listen.push(fd);
                    continue;
                }
                FdRole::Status => &mut sorted.status,
                FdRole::ExitFile => &mut sorted.exit_file,
                FdRole::LogDir => &mut sorted.log_dir,
                FdRole::NetNs => &mut sorted.netns,
                FdRole::ContainerUsers => &mut sorted.container_users,
                FdRole::SiteUsers => &mut sorted.site_users,
                FdRole::CgroupDir => &mut sorted.cgroup_dir,
                FdRole::Target => &mut sorted.target,
                FdRole::Stdin => &mut sorted.stdin,
                FdRole::Stdout => &mut sorted.stdout,
                FdRole::Stderr => &mut sorted.stderr,
                FdRole::Mount(i) => sorted
                    .mounts
                    .get_mut(usize::from(*i))
                    .ok_or_else(|| wrong(&format!("mount {i} does not exist")))?,
            };
            if slot.replace(fd).is_some() {
                return Err(wrong(&format!("two for {role:?}")));
            }
        }
        if let Some(i) = sorted.mounts.iter().position(Option::is_none) {
            return Err(wrong(&format!("no Mount({i})")));
        }
        Ok(sorted)
    }

    /// Checks that a start has what it needs and nothing that belongs to an exec. `later`: the rest follows.
    pub(crate) fn check_start(&self, later: bool) -> Result<(), Failure> {
        let needed = [
            ("Status", &self.status),
            ("NetNs", &self.netns),
            ("ContainerUsers", &self.container_users),
            ("SiteUsers", &self.site_users),
        ];
        let files = [("ExitFile", &self.exit_file), ("LogDir", &self.log_dir)];
        let foreign = [
            ("Target", &self.target),
            ("Stdin", &self.stdin),
            ("Stdout", &self.stdout),
            ("Stderr", &self.stderr),
        ];
        check(&needed, &foreign)?;
        match later {
            false => check(&files, &[]),
            true if self.has_groups() => Err(wrong("cgroups before the rest")),
            true => check(&[], &files),
        }
    }

    fn has_groups(&self) -> bool {
        self.cgroup_dir.is_some() || !self.cgroup_procs.is_empty()
    }

    /// Checks that the process that becomes a command has what it needs and nothing else.
    pub(crate) fn check_run(roles: &[FdRole]) -> Result<(), Failure> {
        let once = [FdRole::Status, FdRole::NetNs, FdRole::ContainerUsers];
        only(roles, &once, FdRole::Listen)?;
        match once.iter().find(|role| !roles.contains(role)) {
            Some(role) => Err(wrong(&format!("no {role:?}"))),
            None => Ok(()),
        }
    }

    /// Takes what an init is given later ([`shim::protocol::Later::Join`]).
    pub(crate) fn join(&mut self, fds: Vec<OwnedFd>, roles: &[FdRole]) -> Result<(), Failure> {
        let once = [FdRole::ExitFile, FdRole::LogDir];
        only(roles, &once, FdRole::CgroupProcs)?;
        let later = Self::sort(fds, roles, 0)?;
        check(
            &[("ExitFile", &later.exit_file), ("LogDir", &later.log_dir)],
            &[],
        )?;
        if later.cgroup_procs.is_empty() {
            return Err(wrong("no CgroupProcs"));
        }
        self.cgroup_procs = later.cgroup_procs;
        self.exit_file = later.exit_file;
        self.log_dir = later.log_dir;
        Ok(())
    }

    /// The groups that a command is to join.
    pub(crate) fn groups(fds: Vec<OwnedFd>, roles: &[FdRole]) -> Result<Vec<OwnedFd>, Failure> {
        only(roles, &[], FdRole::CgroupProcs)?;
        let groups = Self::sort(fds, roles, 0)?.cgroup_procs;
        match groups.is_empty() {
            true => Err(wrong("no CgroupProcs")),
            false => Ok(groups),
        }
    }

    /// Checks that an exec has what it needs and nothing that belongs to a start.
    pub(crate) fn check_exec(&self) -> Result<(), Failure> {
        let needed = [
            ("Status", &self.status),
            ("Target", &self.target),
            ("Stdin", &self.stdin),
            ("Stdout", &self.stdout),
            ("Stderr", &self.stderr),
        ];
        let foreign = [
            ("LogDir", &self.log_dir),
            ("NetNs", &self.netns),
            ("ContainerUsers", &self.container_users),
            ("SiteUsers", &self.site_users),
        ];
        if !self.listen.is_empty() {
            return Err(wrong("Listen in an exec"));
        }
        check(&needed, &foreign)
    }
}

/// Nothing but these, and any number of `many`. (That none comes twice is [`Fds::sort`]'s to find.)
fn only(roles: &[FdRole], once: &[FdRole], many: FdRole) -> Result<(), Failure> {
    match roles.iter().find(|r| **r != many && !once.contains(r)) {
        Some(role) => Err(wrong(&format!("{role:?} does not belong here"))),
        None => Ok(()),
    }
}

type Named<'a> = (&'a str, &'a Option<OwnedFd>);

fn check(needed: &[Named<'_>], foreign: &[Named<'_>]) -> Result<(), Failure> {
    for (name, fd) in needed {
        if fd.is_none() {
            return Err(wrong(&format!("no {name}")));
        }
    }
    for (name, fd) in foreign {
        if fd.is_some() {
            return Err(wrong(&format!("{name} does not belong here")));
        }
    }
    Ok(())
}
