//! What a group has used of the CPU, and nothing else: for those who ask often.

use crate::Error;
use crate::dir::Dir;
use crate::group::Group;
use crate::hierarchy::Controller;
use crate::plan::Backend;
use crate::usage::Usage;

/// The CPU time of one group with all that are and were below it, for those who ask again and again. It holds one
/// descriptor, and goes on for as long as that group is there.
pub struct CpuClock {
    dir: Dir,
    backend: &'static dyn Backend,
}

impl CpuClock {
    /// In µs, for one read; `None` where the kernel does not say. An error if the group has been removed.
    pub fn usec(&self) -> Result<Option<u64>, Error> {
        self.backend.cpu_usec(&self.dir)
    }
}

impl std::fmt::Debug for CpuClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CpuClock").field(&self.dir).finish()
    }
}

impl Group {
    /// [`Group::usage`] without all that is not about the CPU: two small files on v1, one on v2.
    pub fn cpu_usage(&self) -> Result<Usage, Error> {
        let mut out = Usage::default();
        if let Some((root, dir)) = self.slot(Controller::Cpu) {
            root.backend().usage_cpu(dir, &mut out)?;
        }
        if let Some((root, dir)) = self.slot(Controller::Cpuacct) {
            root.backend().usage_cpuacct(dir, &mut out)?;
        }
        Ok(out)
    }

    /// The clock of the group above this one: while it stands still nothing has run in any group below it, so these need not
    /// be asked. `None` for a tree's parent, and where the host does not count CPU time.
    pub fn clock_above(&self) -> Result<Option<CpuClock>, Error> {
        let (Some((_, above)), Some((root, _))) =
            (self.path.split_last(), self.slot(Controller::Cpuacct))
        else {
            return Ok(None);
        };
        let name = match above {
            [] => ".".to_owned(),
            above => above.join("/"),
        };
        let dir = root.parent.open_dir(&name);
        let dir = dir.map_err(|e| root.parent.error("open", &name, e))?;
        let backend = root.backend();
        Ok(Some(CpuClock { dir, backend }))
    }
}
