//! What this host offers to containers, and what to do about what is missing.
//!
//! Judgements are pure functions over what was read; [`System`] reads, from `/` or, in tests, from a directory. Checks look
//! and change nothing. They may touch the documents' file systems, which can hang: the agent runs them off its event loop.
mod cgroups;
mod cores;
mod drift;
mod idmap;
mod kernel;
mod mounts;
mod network;
mod platform;

pub use mounts::project_quotas_advice;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use drift::drift;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Works, but less well, or a feature is missing.
    Warn,
    /// Containers cannot run like this.
    Fail,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// How it ended.
    pub result: Outcome,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(default)]
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: &str, detail: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            result: Outcome::Ok,
            detail: detail.into(),
            advice: None,
        }
    }

    fn bad(
        result: Outcome,
        name: &str,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            advice: Some(advice.into()),
            result,
            ..Self::ok(name, detail)
        }
    }

    fn warn(name: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::bad(Outcome::Warn, name, detail, advice)
    }

    fn fail(name: &str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::bad(Outcome::Fail, name, detail, advice)
    }
}

/// What is checked beyond the kernel.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// Directories below which sites' documents lie.
    pub documents: Vec<PathBuf>,
    /// The shim, if it is not at one of its usual places.
    pub shim: Option<PathBuf>,
}

/// All checks of this host, with documents at the usual places.
pub fn checks() -> Vec<Check> {
    let usual = ["/srv/www", "/var/www", "/srv"].map(PathBuf::from);
    let documents = usual.into_iter().find(|p| p.is_dir());
    checks_of(&Subject {
        documents: documents.into_iter().collect(),
        shim: None,
    })
}

/// All checks of this host.
pub fn checks_of(subject: &Subject) -> Vec<Check> {
    let system = System::new(Path::new("/"));
    let mounts = mounts::parse(&system.read("proc/self/mountinfo").unwrap_or_default());
    let mut all = kernel::checks(&system);
    all.extend(cores::checks(&system));
    all.extend(cgroups::checks(&system, &mounts));
    all.extend(network::checks(&system));
    all.extend(mounts::checks(&system, &mounts, &subject.documents));
    all.extend(platform::checks(&system, subject.shim.as_deref()));
    all
}

/// Files of /proc and /sys.
#[derive(Debug)]
struct System {
    root: PathBuf,
}

impl System {
    fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.join(below.trim_start_matches('/'))
    }

    /// The trimmed text; None if it cannot be read.
    fn read(&self, below: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(below)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, below: &str) -> Option<u64> {
        self.read(below)?.parse().ok()
    }

    fn exists(&self, below: &str) -> bool {
        self.path(below).exists()
    }

    /// Version of the kernel, (0, 0) if unknown.
    fn kernel(&self) -> (u32, u32) {
        kernel::version(&self.read("proc/sys/kernel/osrelease").unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_check_that_is_not_ok_has_advice() {
        let all = checks_of(&Subject {
            documents: vec!["/usr/share".into()],
            shim: Some("/nonexistent/shim".into()),
        });
        assert!(all.len() >= 20, "{all:#?}");
        for check in &all {
            assert!(!check.detail.is_empty(), "{check:?}");
            assert_eq!(
                check.advice.is_some(),
                check.result != Outcome::Ok,
                "{check:?}"
            );
        }
        let shim = all.iter().find(|c| c.name == "shim").unwrap();
        assert_eq!(shim.result, Outcome::Fail, "{shim:?}");
        let mut names: Vec<_> = all.iter().map(|c| &c.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all.len(), "two checks of one name");
    }

    #[test]
    fn the_form_of_the_api() {
        let check = Check::warn("psi", "off", "boot with psi=1");
        let json = serde_json::to_value(&check).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"name": "psi", "result": "warn", "detail": "off", "advice": "boot with psi=1"})
        );
        assert_eq!(serde_json::from_value::<Check>(json).unwrap(), check);
    }
}
