//! What this host mounts: pure cgroup v2, or v1 controllers with or without a v2 mount beside them.

use crate::Error;
use crate::mountinfo::{self, CgroupMount};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// A resource controller, by its v2 name where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// CPU bandwidth and weight.
    Cpu,
    /// CPU time accounting (built into v2).
    Cpuacct,
    /// Memory.
    Memory,
    /// Block I/O; `blkio` on v1.
    Io,
    /// Number of processes.
    Pids,
    /// Freezing (built into v2).
    Freezer,
    /// Device access (an eBPF program on v2).
    Devices,
    /// CPU and memory placement.
    Cpuset,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Memory,
        Self::Io,
        Self::Pids,
        Self::Freezer,
        Self::Devices,
        Self::Cpuset,
    ];
    /// Those that limits and usage need.
    pub const USED: [Self; 5] = [Self::Cpu, Self::Cpuacct, Self::Memory, Self::Io, Self::Pids];

    /// The v1 name.
    #[must_use]
    pub fn v1_name(self) -> &'static str {
        match self {
            Self::Io => "blkio",
            other => other.v2_name(),
        }
    }

    /// The v2 name; for what v2 has built in, the v1 name.
    #[must_use]
    pub fn v2_name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Memory => "memory",
            Self::Io => "io",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
            Self::Devices => "devices",
            Self::Cpuset => "cpuset",
        }
    }

    /// Whether every v2 group has it without `cgroup.subtree_control`.
    pub(crate) fn built_into_v2(self) -> bool {
        matches!(self, Self::Cpuacct | Self::Freezer)
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.v2_name())
    }
}

/// The kind of host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// None of the controllers we use is on v1.
    V2,
    /// At least one of the controllers we use is on v1; a v2 mount may exist beside it.
    Hybrid,
}

/// Something that this host lacks, for a person to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is missing.
    pub controller: Controller,
    /// What then does not work, and what to do.
    pub text: String,
}

/// The cgroup mounts of this host.
#[derive(Debug, Clone)]
pub struct Hierarchy {
    pub(crate) v2: Option<PathBuf>,
    /// v1 mount point → the controllers mounted there together.
    pub(crate) v1: BTreeMap<PathBuf, BTreeSet<Controller>>,
    v2_controllers: BTreeSet<Controller>,
    /// Trees have [`Controller::Cpuset`], too.
    pub(crate) cpuset: bool,
}

impl Hierarchy {
    /// Looks at the mounts that this process sees.
    pub fn detect() -> Result<Self, Error> {
        let mounts = read("/proc/self/mountinfo".as_ref())?;
        let parsed = mountinfo::parse(&mounts);
        let controllers = match choose_v2(&parsed) {
            Some(mount) => read(&Path::new(&mount.point).join("cgroup.controllers"))?,
            None => String::new(),
        };
        Self::from_mounts(&parsed, &controllers)
    }

    /// The same from the text of `mountinfo` and of the v2 mount's `cgroup.controllers`.
    pub fn from_text(mountinfo: &str, v2_controllers: &str) -> Result<Self, Error> {
        Self::from_mounts(&mountinfo::parse(mountinfo), v2_controllers)
    }

    fn from_mounts(mounts: &[CgroupMount], v2_controllers: &str) -> Result<Self, Error> {
        let v2 = choose_v2(mounts).map(|m| PathBuf::from(&m.point));
        let mut v1: BTreeMap<PathBuf, BTreeSet<Controller>> = BTreeMap::new();
        let mut taken = BTreeSet::new();
        // Whole hierarchies first: a bound part of one is only used where there is nothing else.
        let (whole, parts): (Vec<_>, Vec<_>) =
            mounts.iter().filter(|m| !m.v2).partition(|m| m.root == "/");
        for mount in whole.into_iter().chain(parts) {
            for controller in Controller::ALL {
                // v2 counts CPU time whatever is mounted: that spares a directory per group.
                if controller == Controller::Cpuacct && v2.is_some() {
                    continue;
                }
                if mount.options.iter().any(|o| o == controller.v1_name())
                    && taken.insert(controller)
                {
                    v1.entry(PathBuf::from(&mount.point))
                        .or_default()
                        .insert(controller);
                }
            }
        }
        if v2.is_none() && v1.is_empty() {
            return Err(Error::NoCgroups);
        }
        let named: BTreeSet<&str> = v2_controllers.split_whitespace().collect();
        let v2_controllers = Controller::ALL
            .into_iter()
            .filter(|c| v2.is_some() && !taken.contains(c))
            .filter(|c| c.built_into_v2() || named.contains(c.v2_name()))
            .collect();
        Ok(Self {
            v2,
            v1,
            v2_controllers,
            cpuset: false,
        })
    }

    /// Pure v2 or hybrid.
    #[must_use]
    pub fn version(&self) -> Version {
        let used_on_v1 = self
            .v1
            .values()
            .flatten()
            .any(|c| Controller::USED.contains(c));
        if used_on_v1 {
            Version::Hybrid
        } else {
            Version::V2
        }
    }

    /// Every controller that exists on either side.
    #[must_use]
    pub fn controllers(&self) -> BTreeSet<Controller> {
        self.v1
            .values()
            .flatten()
            .chain(&self.v2_controllers)
            .copied()
            .collect()
    }

    /// Whether the controller is mounted as v1.
    #[must_use]
    pub fn is_v1(&self, controller: Controller) -> bool {
        self.v1.values().any(|set| set.contains(&controller))
    }

    /// The v2 mount point, if there is one.
    #[must_use]
    pub fn v2_mount(&self) -> Option<&Path> {
        self.v2.as_deref()
    }

    /// The v1 mount points with the controllers of each.
    pub fn v1_mounts(&self) -> impl Iterator<Item = (&Path, &BTreeSet<Controller>)> {
        self.v1.iter().map(|(path, set)| (path.as_path(), set))
    }

    /// The v2 controllers that have to be enabled level by level.
    pub(crate) fn v2_to_enable(&self) -> Vec<Controller> {
        let wanted = Controller::USED.into_iter().filter(|c| !c.built_into_v2());
        let cpuset = self.cpuset.then_some(Controller::Cpuset);
        wanted
            .chain(cpuset)
            .filter(|c| self.v2_controllers.contains(c))
            .collect()
    }

    /// What is not there, for `doctor`.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let have = self.controllers();
        let mut out = Vec::new();
        for controller in Controller::USED.into_iter().chain([Controller::Freezer]) {
            if have.contains(&controller) {
                continue;
            }
            out.push(Missing {
                controller,
                text: self.why_missing(controller),
            });
        }
        if self.v2.is_none() {
            let text = "no cgroup2 mount: containers cannot be started straight into their group, and are killed \
                process by process; mount one, such as: mount -t cgroup2 none /sys/fs/cgroup/unified";
            out.push(Missing {
                controller: Controller::Freezer,
                text: text.into(),
            });
        }
        out
    }

    pub(crate) fn why_missing(&self, controller: Controller) -> String {
        let name = controller.v2_name();
        match (self.version(), &self.v2) {
            (Version::V2, Some(mount)) => format!(
                "the {name} controller is not in {}/cgroup.controllers; the kernel lacks it or it is switched off on \
                 the kernel's command line (cgroup_disable=, cgroup_enable=)",
                mount.display()
            ),
            _ => format!(
                "the {name} controller is mounted neither as v1 nor available on v2; look at /proc/cgroups and mount \
                 it, such as: mount -t cgroup -o {v1} none /sys/fs/cgroup/{v1}",
                v1 = controller.v1_name()
            ),
        }
    }
}

/// A whole hierarchy before a bound part of one.
fn choose_v2(mounts: &[CgroupMount]) -> Option<&CgroupMount> {
    let mut v2 = mounts.iter().filter(|m| m.v2);
    let first = v2.clone().next();
    v2.find(|m| m.root == "/").or(first)
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Sys {
        action: "read".into(),
        path: path.display().to_string(),
        source,
        hint: "",
    })
}
