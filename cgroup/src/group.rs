//! One control group, in every hierarchy it needs.

use crate::Error;
use crate::compare::compare;
use crate::cpuset;
use crate::dir::{Dir, Gone};
use crate::hierarchy::Controller;
use crate::limits::Limits;
use crate::plan::{self, Asked, At, Write};
use crate::stat;
use crate::tree::{Root, Shared};
use crate::usage::Usage;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A control group. It holds a descriptor of its v2 directory and no other state: dropping it changes nothing,
/// [`crate::Tree::open_group`] opens it again. Once it has been removed by this value it is gone for it, whatever is made by its
/// name later.
#[derive(Debug)]
pub struct Group {
    pub(crate) shared: Arc<Shared>,
    pub(crate) path: Vec<String>,
    pub(crate) name: String,
    /// One for each of `shared.roots`; `None` where the group does not exist.
    pub(crate) dirs: Vec<Option<Dir>>,
    gone: Gone,
    made_above: bool,
}

impl Group {
    pub(crate) fn new(
        shared: Arc<Shared>,
        path: &[&str],
        name: String,
        dirs: Vec<Option<Dir>>,
        gone: Gone,
        made_above: bool,
    ) -> Self {
        let path = path.iter().map(|s| (*s).to_owned()).collect();
        Self {
            shared,
            path,
            name,
            dirs,
            gone,
            made_above,
        }
    }

    /// Whether it has been removed by this value.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// It has been removed in every hierarchy.
    pub(crate) fn is_removed(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// The path below the tree's parent, as in messages: `acme/example.com`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its components.
    #[must_use]
    pub fn path(&self) -> &[String] {
        &self.path
    }

    /// Whether making this group also made a level above it, whose own limits have to be applied again.
    #[must_use]
    pub fn made_above(&self) -> bool {
        self.made_above
    }

    /// The v2 directory, for CLONE_INTO_CGROUP; `None` if the host has no v2 mount.
    #[must_use]
    pub fn dir(&self) -> Option<BorrowedFd<'_>> {
        self.v2().and_then(Dir::fd)
    }

    pub(crate) fn v2(&self) -> Option<&Dir> {
        self.each().find(|(root, _)| root.v2).map(|(_, dir)| dir)
    }

    /// The hierarchies in which the group exists.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&Root, &Dir)> {
        self.shared
            .roots
            .iter()
            .zip(&self.dirs)
            .filter_map(|(root, dir)| Some((root, dir.as_ref()?)))
    }

    pub(crate) fn slot(&self, controller: Controller) -> Option<(&Root, &Dir)> {
        self.each()
            .find(|(root, _)| root.serves.contains(&controller))
    }

    /// Files into which the process that is to join writes `0`, one per v1 hierarchy; none on v2.
    ///
    /// It must have a single thread: these are the v1 `tasks` files, because moving only oneself needs none of the
    /// host-wide locking that `cgroup.procs` does, which costs milliseconds. Children are born in the same groups.
    pub fn join_files(&self) -> Result<Vec<OwnedFd>, Error> {
        let v1 = self.each().filter(|(root, _)| !root.v2);
        v1.map(|(_, dir)| {
            dir.open_file("tasks", OFlags::WRONLY)
                .map_err(|e| dir.error("open", "tasks", e))
        })
        .collect()
    }

    /// Moves a process with all its threads into the group, in every hierarchy.
    pub fn attach(&self, pid: u32) -> Result<(), Error> {
        for (_, dir) in self.each() {
            dir.write_raw("cgroup.procs", &pid.to_string())
                .map_err(|e| {
                    let error = dir.error(&format!("move process {pid} into"), "", e);
                    match e {
                        Errno::SRCH => error.with_hint("there is no such process"),
                        Errno::BUSY => error.with_hint(
                            "the group has groups below it, so it cannot hold processes itself",
                        ),
                        _ => error,
                    }
                })?;
        }
        Ok(())
    }

    /// Checks everything, writes what is not [`crate::Setting::Keep`], reads it back, compares, and on any failure puts
    /// the old values back. Answers what was read back, for what was asked.
    pub fn apply(&self, limits: &Limits) -> Result<Limits, Error> {
        self.put(limits, false)
    }

    /// [`Self::apply`] for a group that has just been made and still has the kernel's defaults: it asks for nothing that
    /// was in force before, and on failure restores nothing, as the group is of no use then.
    pub fn set_up(&self, limits: &Limits) -> Result<Limits, Error> {
        self.put(limits, true)
    }

    fn put(&self, limits: &Limits, new: bool) -> Result<Limits, Error> {
        limits.validate(&self.name)?;
        let mut want = limits.clone();
        let mut writes: Vec<Write<'_>> = Vec::with_capacity(8);
        let touched = touched(limits);
        // Memory last: making room for a lower limit should not happen when another limit is refused.
        for &controller in touched
            .iter()
            .filter(|c| **c != Controller::Memory)
            .chain(touched.get(&Controller::Memory))
        {
            let (root, dir) = self
                .slot(controller)
                .ok_or_else(|| self.unsupported(controller, limits))?;
            let at = At {
                dir,
                group: &self.name,
                new,
            };
            match controller {
                Controller::Cpu => root.backend().plan_cpu(at, &mut want, &mut writes)?,
                Controller::Io => root.backend().plan_io(at, &mut want, &mut writes)?,
                Controller::Pids => plan::plan_pids(at, &want, &mut writes),
                Controller::Cpuset => cpuset::plan(at, &want, &mut writes),
                _ => root.backend().plan_memory(at, &mut want, &mut writes)?,
            }
        }
        let done = plan::write_all(&writes, &self.name, new)?;
        let checked = self
            .read_back(&touched, Asked(Some(limits)))
            .and_then(|got| {
                compare(&self.name, &want, &got)?;
                Ok(got)
            });
        checked.map_err(|error| error.and(done.undo()))
    }

    /// Every limit in force. `Keep` means that this host does not have it.
    pub fn read(&self) -> Result<Limits, Error> {
        let all = [
            Controller::Cpu,
            Controller::Memory,
            Controller::Io,
            Controller::Pids,
            Controller::Cpuset,
        ];
        let present = all
            .into_iter()
            .filter(|c| self.slot(*c).is_some())
            .collect();
        self.read_back(&present, Asked(None))
    }

    fn read_back(
        &self,
        controllers: &BTreeSet<Controller>,
        asked: Asked<'_>,
    ) -> Result<Limits, Error> {
        let mut out = Limits::default();
        for &controller in controllers {
            let Some((root, dir)) = self.slot(controller) else {
                continue;
            };
            match controller {
                Controller::Cpu => root.backend().read_cpu(dir, asked, &mut out)?,
                Controller::Memory => root.backend().read_memory(dir, asked, &mut out)?,
                Controller::Io => root.backend().read_io(dir, asked, &mut out)?,
                Controller::Cpuset => cpuset::read(dir, asked, &mut out)?,
                _ => plan::read_pids(dir, asked, &mut out)?,
            }
        }
        Ok(out)
    }

    fn unsupported(&self, controller: Controller, limits: &Limits) -> Error {
        let served = self
            .shared
            .roots
            .iter()
            .any(|root| root.serves.contains(&controller));
        let why = if served {
            format!(
                "the group does not exist in the hierarchy of the {controller} controller; make it first"
            )
        } else {
            self.shared.hierarchy.why_missing(controller)
        };
        let limit = match controller {
            Controller::Cpu if limits.cpu.is_keep() => "cpu.weight",
            Controller::Cpu => "cpu.max",
            Controller::Io if limits.io.is_empty() => "io.weight",
            Controller::Io => "io.max",
            Controller::Pids => "pids.max",
            Controller::Cpuset => cpuset::CPUS,
            _ => "memory.max",
        };
        Error::Unsupported {
            group: self.name.clone(),
            limit,
            controller,
            why,
        }
    }

    /// What the group has used so far.
    pub fn usage(&self) -> Result<Usage, Error> {
        let mut out = Usage::default();
        for controller in Controller::USED {
            let Some((root, dir)) = self.slot(controller) else {
                continue;
            };
            match controller {
                Controller::Cpu => root.backend().usage_cpu(dir, &mut out)?,
                Controller::Cpuacct => root.backend().usage_cpuacct(dir, &mut out)?,
                Controller::Memory => root.backend().usage_memory(dir, &mut out)?,
                Controller::Io => root.backend().usage_io(dir, &mut out)?,
                _ => {
                    out.pids_current = stat::number(&dir.read("pids.current")?);
                    out.pids_max_events = stat::flat(&dir.read("pids.events")?, "max");
                }
            }
        }
        Ok(out)
    }

    /// Whether this kernel lets a group run only when no sibling wants to (5.15 and later).
    #[must_use]
    pub fn has_cpu_idle(&self) -> bool {
        self.slot(Controller::Cpu)
            .is_some_and(|(_, dir)| dir.exists(plan::CPU_IDLE))
    }

    /// The processes in the group, over all hierarchies, sorted.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let mut out = BTreeSet::new();
        for (_, dir) in self.each() {
            out.extend(stat::pids(&dir.read("cgroup.procs")?));
        }
        Ok(out.into_iter().collect())
    }
}

fn touched(limits: &Limits) -> BTreeSet<Controller> {
    let memory = [
        limits.memory_max,
        limits.memory_high,
        limits.memory_min,
        limits.swap_max,
    ];
    let asked = [
        (
            Controller::Cpu,
            !limits.cpu.is_keep() || !limits.cpu_weight.is_keep() || !limits.cpu_idle.is_keep(),
        ),
        (Controller::Memory, memory.iter().any(|m| !m.is_keep())),
        (
            Controller::Io,
            !limits.io.is_empty() || !limits.io_weight.is_keep(),
        ),
        (Controller::Pids, !limits.pids_max.is_keep()),
        (Controller::Cpuset, !limits.cpus.is_keep()),
    ];
    asked
        .into_iter()
        .filter_map(|(controller, yes)| yes.then_some(controller))
        .collect()
}
