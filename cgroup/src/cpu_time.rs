//! What a group has used of the CPU, and nothing else: for those who ask often.

use crate::Error;
use crate::group::Group;
use crate::hierarchy::Controller;
use crate::usage::Usage;

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
}
