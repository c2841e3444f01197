//! What there is of containers on this host, counted before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Everything that a test's agent may have made, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// cgroups below the test's parent, in any hierarchy.
    pub cgroups: BTreeSet<String>,
    /// Processes in those.
    pub processes: BTreeSet<i32>,
    /// Links of this network namespace but lo.
    pub links: BTreeSet<String>,
    /// Mounts below the test's directories.
    pub mounts: BTreeSet<String>,
    /// nftables set elements of the agent's table.
    pub elements: usize,
    /// Entries of the run directory's `sites`.
    pub sites: BTreeSet<String>,
}

impl Snapshot {
    /// Looks at the host; to be called in the test's network namespace.
    pub fn take(cgroup_parent: &str, dir: &Path, run_dir: &Path) -> Self {
        let mut snapshot = Self::default();
        for root in cgroup_roots() {
            walk(
                Path::new(&root).join(cgroup_parent).as_path(),
                &mut snapshot,
            );
        }
        snapshot.links = names("/sys/class/net")
            .into_iter()
            .filter(|name| name != "lo")
            .collect();
        // /sys shows the namespace it was mounted in; ip asks the kernel from here.
        if let Ok(output) = Command::new("ip").args(["-o", "link"]).output() {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            snapshot.links = text
                .lines()
                .filter_map(|line| line.split(": ").nth(1))
                .map(|name| name.split('@').next().unwrap_or(name).to_owned())
                .filter(|name| name != "lo")
                .collect();
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = [dir, run_dir].map(|dir| format!(" {}/", dir.display()));
        snapshot.mounts = mounts
            .lines()
            .filter(|line| below.iter().any(|below| line.contains(below)))
            .map(str::to_owned)
            .collect();
        if let Ok(output) = Command::new("nft").args(["-j", "list", "ruleset"]).output() {
            let text = String::from_utf8_lossy(&output.stdout);
            snapshot.elements = text.matches("\"elem\"").count();
        }
        snapshot.sites = names(&run_dir.join("sites").display().to_string())
            .into_iter()
            .collect();
        snapshot
    }
}

/// Descriptors of a process.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Mount points of all cgroup hierarchies.
pub fn cgroup_roots() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let is_cgroup = |line: &&str| line.contains(" - cgroup ") || line.contains(" - cgroup2 ");
    mounts
        .lines()
        .filter(is_cgroup)
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .collect()
}

fn names(dir: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

fn walk(dir: &Path, snapshot: &mut Snapshot) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    snapshot.cgroups.insert(dir.display().to_string());
    let pids = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    snapshot
        .processes
        .extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok()));
    for entry in entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    {
        walk(&entry.path(), snapshot);
    }
}
