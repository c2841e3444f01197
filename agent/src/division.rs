//! CPUs that are for guaranteed sites only: which sites may use which.

use cgroup::CpuSet;

/// The host's CPUs, divided between the sites that are promised CPU time and the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    /// For those that are promised CPU time.
    pub guaranteed: CpuSet,
    /// For all others.
    pub others: CpuSet,
}

impl Division {
    /// As agent.toml demands, of those that there are; an error says what is wrong with that.
    pub fn of(wanted: CpuSet, all: CpuSet) -> Result<Self, String> {
        let missing = wanted.without(&all);
        if !missing.is_empty() {
            return Err(format!(
                "guaranteed_cpus = \"{wanted}\": sites cannot be given CPU {missing}, only {all}; name some of these"
            ));
        }
        let others = all.without(&wanted);
        if others.is_empty() {
            return Err(format!(
                "guaranteed_cpus = \"{wanted}\": no CPU of {all} would be left for sites that are promised nothing; name fewer"
            ));
        }
        Ok(Self {
            guaranteed: wanted,
            others,
        })
    }

    /// No division any more, where there has been one: everybody is given all.
    pub fn none(all: CpuSet) -> Self {
        Self {
            guaranteed: all,
            others: all,
        }
    }

    /// Whether it makes a difference.
    pub fn divides(&self) -> bool {
        self.guaranteed != self.others
    }

    /// The CPUs of a site that is promised so much CPU time.
    pub fn of_site(&self, promised: u64) -> CpuSet {
        match promised {
            0 => self.others,
            _ => self.guaranteed,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn set(text: &str) -> CpuSet {
        CpuSet::parse(text).unwrap()
    }

    #[test]
    fn somebody_is_left_something() {
        let division = Division::of(set("0-1"), set("0-3")).unwrap();
        assert_eq!(division.of_site(0), set("2-3"));
        assert_eq!(division.of_site(1), set("0-1"));
        let error = Division::of(set("0-3"), set("0-3")).unwrap_err();
        assert!(error.contains("no CPU of 0-3 would be left"), "{error}");
        let error = Division::of(set("2-5"), set("0-3")).unwrap_err();
        assert!(error.contains("CPU 4-5, only 0-3"), "{error}");
    }
}
