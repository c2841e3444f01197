//! Which CPUs a group may use: the one controller that a tree has only when somebody asks for it.

use crate::Error;
use crate::cpus::CpuSet;
use crate::dir::Dir;
use crate::group::Group;
use crate::hierarchy::{Controller, Hierarchy};
use crate::limits::{Limits, Setting};
use crate::plan::{Asked, At, Undo, Write, parsed};
use crate::stat;
use crate::tree::{Root, Tree};
use rustix::io::Errno;

/// The same file on both sides.
pub(crate) const CPUS: &str = "cpuset.cpus";
const MEMS: &str = "cpuset.mems";
const EFFECTIVE: &str = "cpuset.cpus.effective";
/// v1: new groups below have what this one has. Without, nothing could run in them.
const CLONE: &str = "cgroup.clone_children";
/// How often those are looked for that have been born while others were moved.
const ROUNDS: u32 = 1000;

impl Hierarchy {
    /// From now on trees have the cpuset controller, too.
    pub fn use_cpuset(&mut self) -> Result<(), Error> {
        if !self.controllers().contains(&Controller::Cpuset) {
            return Err(Error::Unsupported {
                group: "all groups".into(),
                limit: CPUS,
                controller: Controller::Cpuset,
                why: self.why_missing(Controller::Cpuset),
            });
        }
        self.cpuset = true;
        Ok(())
    }

    /// Whether an earlier process has used it below this parent.
    #[must_use]
    pub fn has_used_cpuset(&self, parent: &str) -> bool {
        let on_v1 = self
            .v1_mounts()
            .filter(|(_, controllers)| controllers.contains(&Controller::Cpuset))
            .any(|(mount, _)| mount.join(parent).join(CPUS).exists());
        let handed_down = self.v2_mount().is_some_and(|mount| {
            let file = mount.join(parent).join("cgroup.subtree_control");
            std::fs::read_to_string(file)
                .is_ok_and(|text| text.split_whitespace().any(|word| word == "cpuset"))
        });
        on_v1 || handed_down
    }
}

/// Gives a level of v1 what the one above it has, and has it handed down.
pub(crate) fn prepare_v1(top: &Dir, above: &str, level: &str) -> Result<(), Error> {
    let file = |level: &str, name: &str| match level {
        "" => name.to_owned(),
        level => format!("{level}/{name}"),
    };
    for name in [MEMS, CPUS] {
        if top.read(&file(level, name))?.trim().is_empty() {
            let text = top.read(&file(above, name))?;
            top.write(&file(level, name), text.trim())?;
        }
    }
    top.write(&file(level, CLONE), "1")
}

pub(crate) fn plan<'a>(at: At<'a>, want: &Limits, out: &mut Vec<Write<'a>>) {
    if let Setting::To(cpus) = want.cpus {
        out.push(Write {
            dir: at.dir,
            limit: CPUS,
            file: CPUS,
            text: cpus.to_string(),
            undo: Undo::FirstLine,
        });
    }
}

pub(crate) fn read(dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
    if asked.any(|l| &l.cpus) {
        // v2: nothing means all that the group above has.
        into.cpus = match parsed(dir, CPUS, CpuSet::parse)? {
            cpus if cpus.is_empty() => Setting::Max,
            cpus => Setting::To(cpus),
        };
    }
    Ok(())
}

impl Tree {
    /// The CPUs that groups here can be given; `None` without [`Hierarchy::use_cpuset`].
    pub fn cpus(&self) -> Result<Option<CpuSet>, Error> {
        let Some(root) = self.root_of(Controller::Cpuset) else {
            return Ok(None);
        };
        let file = if root.v2 { EFFECTIVE } else { CPUS };
        parsed(&root.parent, file, CpuSet::parse).map(Some)
    }

    /// The group in this hierarchy, too, with all its processes, where the tree did not have it when the group was made;
    /// `None` for one that lacks nothing.
    pub fn complete(&self, group: &Group) -> Result<Option<Group>, Error> {
        let has = |(_, dir): (&Root, &Dir)| dir.exists(CPUS);
        if self.root_of(Controller::Cpuset).is_none()
            || group.slot(Controller::Cpuset).is_some_and(has)
        {
            return Ok(None);
        }
        let path: Vec<&str> = group.path().iter().map(String::as_str).collect();
        let whole = self.group(&path)?;
        whole.gather()?;
        Ok(Some(whole))
    }
}

impl Group {
    /// Moves all who are in the group somewhere into v1's cpuset group. Whoever is born meanwhile by one who has been moved is
    /// in it; the others are found in the next round.
    fn gather(&self) -> Result<(), Error> {
        let Some((_, dir)) = self.slot(Controller::Cpuset).filter(|(root, _)| !root.v2) else {
            return Ok(());
        };
        for _ in 0..ROUNDS {
            let there = stat::pids(&dir.members()?);
            let mut missing = self.pids()?;
            missing.retain(|pid| !there.contains(pid));
            if missing.is_empty() {
                return Ok(());
            }
            for pid in missing {
                match dir.write_raw("cgroup.procs", &pid.to_string()) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(e) => return Err(dir.error("move its processes into", "", e)),
                }
            }
        }
        Err(dir
            .error("move all its processes into", "", Errno::AGAIN)
            .with_hint("they are born faster than they can be moved; restart the site"))
    }
}
