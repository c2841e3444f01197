//! What accounting reads of a group, again and again and of many groups: fewer files than [`Group::usage`] does.

use crate::hierarchy::Controller;
use crate::usage::{LimitHits, Usage};
use crate::{Error, Group, stat};

impl Group {
    /// Names this group among all that there are until the host boots again: a group that is made later under the same
    /// path has another number.
    pub fn id(&self) -> Result<u64, Error> {
        let dir = self.v2().or_else(|| self.each().next().map(|(_, dir)| dir));
        let dir = dir.ok_or(Error::NoCgroups)?;
        let stat = dir
            .with_fd(|fd| rustix::fs::fstat(fd))
            .map_err(|e| dir.error("look at", "", e))?;
        Ok(stat.st_ino)
    }

    /// CPU time in µs, for one read; `None` where the host does not count it.
    pub fn cpu_usec(&self) -> Result<Option<u64>, Error> {
        match self.slot(Controller::Cpuacct) {
            Some((root, dir)) => root.backend().cpu_usec(dir),
            None => Ok(None),
        }
    }

    /// How often it was at limits that [`Self::counters`] says nothing of, for two reads. What cannot be read is `None`.
    #[must_use]
    pub fn limit_hits(&self) -> LimitHits {
        let mut out = LimitHits::default();
        if let Some((root, dir)) = self.slot(Controller::Memory) {
            out.memory = root.backend().memory_hits(dir).ok().flatten();
        }
        if let Some((_, dir)) = self.slot(Controller::Pids) {
            let text = dir.read("pids.events").unwrap_or_default();
            out.forks = stat::flat(&text, "max");
        }
        out
    }

    /// [`Self::usage`] but for the split of CPU time and the count of refused forks. Goes on after an error: what could
    /// not be read is `None`, and the first error is given beside.
    #[must_use]
    pub fn counters(&self) -> (Usage, Option<Error>) {
        let mut out = Usage::default();
        let mut first = None;
        for controller in Controller::USED {
            let Some((root, dir)) = self.slot(controller) else {
                continue;
            };
            let result = match controller {
                Controller::Cpu => root.backend().usage_cpu(dir, &mut out),
                // On v2 that was in the same file.
                Controller::Cpuacct if out.cpu_usec.is_some() => Ok(()),
                Controller::Cpuacct => root.backend().cpu_usec(dir).map(|usec| out.cpu_usec = usec),
                Controller::Memory => root.backend().usage_memory(dir, &mut out),
                Controller::Io => root.backend().usage_io(dir, &mut out),
                _ => dir
                    .read("pids.current")
                    .map(|text| out.pids_current = stat::number(&text)),
            };
            first = first.or(result.err());
        }
        (out, first)
    }
}
