//! Hands a start to the processes that carry it out: to a pair that was made ahead, which sets itself up while the cgroup is
//! made, or to the spawner once all of it is there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{Mode, OFlags, openat};
use shim::protocol::{FdRole, Ids, Request, Run, Start};

use super::files::Files;
use super::{Remains, traffic};
use crate::config::{Definition, Limits};
use crate::owners::Disk;
use crate::platform::Platform;
use crate::spawner::{Started, Users, pack};

/// Descriptors and what they are, in step.
#[derive(Default)]
pub(super) struct Parcel<'a> {
    roles: Vec<FdRole>,
    fds: Vec<BorrowedFd<'a>>,
}

impl<'a> Parcel<'a> {
    fn put(&mut self, role: FdRole, fd: BorrowedFd<'a>) {
        self.roles.push(role);
        self.fds.push(fd);
    }

    fn put_groups(&mut self, groups: &'a [OwnedFd]) {
        for file in groups {
            self.put(FdRole::CgroupProcs, file.as_fd());
        }
    }

    fn put_files(&mut self, files: &'a Files) {
        self.put(FdRole::ExitFile, files.exit.as_fd());
        self.put(FdRole::LogDir, files.logs.as_fd());
    }
}

/// The descriptors that a start has from the beginning.
pub(super) struct Given<'a> {
    pub(super) status: &'a OwnedFd,
    pub(super) namespace: &'a netns::Namespace,
    pub(super) users: &'a Users,
    pub(super) mounts: Vec<BorrowedFd<'a>>,
    pub(super) listen: Option<&'a OwnedFd>,
}

impl<'a> Given<'a> {
    /// Those of both processes.
    fn of_both(&self) -> Parcel<'a> {
        let mut parcel = Parcel::default();
        parcel.put(FdRole::Status, self.status.as_fd());
        parcel.put(FdRole::NetNs, self.namespace.fd());
        parcel.put(FdRole::ContainerUsers, self.users.container.as_fd());
        parcel
    }

    /// Those of the process that becomes the command.
    fn of_main(&self) -> Parcel<'a> {
        let mut parcel = self.of_both();
        if let Some(socket) = self.listen {
            parcel.put(FdRole::Listen, socket.as_fd());
        }
        parcel
    }

    /// Those of init: all but listening sockets.
    fn of_init(&self) -> Result<Parcel<'a>> {
        let mut parcel = self.of_both();
        parcel.put(FdRole::SiteUsers, self.users.site.as_fd());
        for (index, fd) in self.mounts.iter().enumerate() {
            parcel.put(FdRole::Mount(u16::try_from(index)?), *fd);
        }
        Ok(parcel)
    }
}

/// What takes the longest to make.
pub(super) struct Resources<'a> {
    pub(super) platform: &'a Arc<Platform>,
    pub(super) vhost: &'a Arc<str>,
    pub(super) definition: &'a Definition,
    pub(super) wanted: &'a Limits,
    /// As the cgroup is told them.
    pub(super) limits: &'a cgroup::Limits,
    pub(super) disk: Disk,
    pub(super) ids: Ids,
    pub(super) namespace: &'a netns::Namespace,
    pub(super) slot: u32,
    pub(super) address: Option<std::net::Ipv4Addr>,
}

impl Resources<'_> {
    /// The cgroup, without limits as yet.
    fn group(&self, remains: &mut Remains) -> Result<Arc<cgroup::Group>> {
        let group = self
            .platform
            .tree
            .group(&[&self.definition.owner, self.vhost])
            .with_context(|| format!("cannot make the cgroup of {}", self.vhost))?;
        Ok(remains.group.insert(Arc::new(group)).clone())
    }

    /// All limits, and then the files that init writes.
    fn limit(&self, group: &Arc<cgroup::Group>, remains: &mut Remains) -> Result<Files> {
        let (platform, address) = (self.platform, self.address);
        platform
            .owners
            .enforce(group, self.limits, self.disk, true)?;
        if let Some(address) = address {
            remains.address = Some(address);
            platform.allow(address, &self.definition.network)?;
        }
        traffic::limit_new(platform, self.namespace, self.slot, address, self.wanted)?;
        Files::make(platform, self.vhost, self.ids)
    }
}

/// Starts it; answers with its init and how long the resources took. From here on the init is among `remains`.
pub(super) async fn begin(
    start: Start,
    given: &Given<'_>,
    resources: &Resources<'_>,
    remains: &mut Remains,
) -> Result<(Started, Duration)> {
    let mut start = Box::new(start);
    if resources.platform.spawner.has_ahead() {
        match with_a_pair(start, given, resources, remains)? {
            Handed::Over(started, took) => return Ok((started, took)),
            Handed::Back(unused) => start = unused,
        }
    }
    let began = Instant::now();
    let group = resources.group(remains)?;
    let files = resources.limit(&group, remains)?;
    let groups = group.join_files()?;
    let took = began.elapsed();
    let mut parcel = given.of_init()?;
    if let Some(socket) = given.listen {
        parcel.put(FdRole::Listen, socket.as_fd());
    }
    parcel.put_groups(&groups);
    parcel.put_files(&files);
    if let Some(directory) = group.dir() {
        parcel.put(FdRole::CgroupDir, directory);
    }
    let id = start.id;
    start.fds = parcel.roles;
    let request = Request::Start(start);
    let spawner = &resources.platform.spawner;
    let started = spawner.request(id, &request, &parcel.fds).await?;
    let init = started.pidfd.try_clone().inspect_err(|_| started.kill());
    remains.init = Some(init.context("cannot keep its pidfd")?);
    Ok((started, took))
}

/// What came of a start that was offered to a pair.
enum Handed {
    /// A pair has it.
    Over(Started, Duration),
    /// There is no pair (any more).
    Back(Box<Start>),
}

fn with_a_pair(
    mut start: Box<Start>,
    given: &Given<'_>,
    resources: &Resources<'_>,
    remains: &mut Remains,
) -> Result<Handed> {
    let (init, main) = (given.of_init()?, given.of_main());
    let run = pack(&Request::Run(Box::new(Run {
        vhost: start.vhost.clone(),
        program: start.program.clone(),
        fds: main.roles,
    })))?;
    start.fds = init.roles;
    let request = Request::Start(start);
    let packet = pack(&request)?;
    let spawner = &resources.platform.spawner;
    let Some(mut pair) = spawner.hand_over((&packet, &init.fds), (&run, &main.fds)) else {
        return match request {
            Request::Start(start) => Ok(Handed::Back(start)),
            other => bail!("a start has become {other:?}"),
        };
    };
    let began = Instant::now();
    remains.init = pair.watched();
    let group = resources.group(remains)?;
    let groups = all_join_files(&group)?;
    let mut parcel = Parcel::default();
    parcel.put_groups(&groups);
    pair.join_main(parcel.roles.clone(), &parcel.fds)?;
    let files = resources.limit(&group, remains)?;
    pair.go()?;
    parcel.put_files(&files);
    pair.join_init(parcel.roles, &parcel.fds)?;
    Ok(Handed::Over(pair.begun(), began.elapsed()))
}

/// The files by which a process that was not cloned into it joins the group.
fn all_join_files(group: &cgroup::Group) -> Result<Vec<OwnedFd>> {
    let mut files = group.join_files()?;
    if let Some(directory) = group.dir() {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let procs = openat(directory, "cgroup.procs", flags, Mode::empty())
            .context("cannot open cgroup.procs")?;
        // First: processes are found and killed by the v2 side.
        files.insert(0, procs);
    }
    Ok(files)
}
