//! cgroups: version, controllers, swap accounting, delegation by systemd.
use std::process::Command;

use super::mounts::Mount;
use super::{Check, System};

/// What limits need, by its v2 name and its v1 name.
const CONTROLLERS: [(&str, &str); 4] = [
    ("cpu", "cpu"),
    ("memory", "memory"),
    ("io", "blkio"),
    ("pids", "pids"),
];

pub(super) fn checks(system: &System, mounts: &[Mount]) -> Vec<Check> {
    let v2 = mounts.iter().find(|m| m.kind == "cgroup2");
    let available =
        v2.and_then(|m| system.read(&m.point.join("cgroup.controllers").to_string_lossy()));
    vec![
        controllers(mounts, available.as_deref()),
        io_budgets(mounts),
        swap(system, mounts),
        delegation(system),
    ]
}

/// `available`: cgroup.controllers at the root of v2, if that is mounted.
fn controllers(mounts: &[Mount], available: Option<&str>) -> Check {
    let name = "cgroups";
    let on_v1 = |controller: &str| {
        mounts
            .iter()
            .any(|m| m.kind == "cgroup" && m.options.iter().any(|o| o == controller))
    };
    let any_v1 = CONTROLLERS.iter().any(|(_, old)| on_v1(old));
    let Some(available) = available else {
        let advice = "boot with systemd.unified_cgroup_hierarchy=1, or mount cgroup2 at /sys/fs/cgroup/unified";
        return Check::fail(
            name,
            "no cgroup v2: processes cannot be started in, frozen or killed as a group",
            advice,
        );
    };
    let on_v2 = |controller: &str| available.split_whitespace().any(|c| c == controller);
    let missing: Vec<&str> = CONTROLLERS
        .iter()
        .filter(|(new, old)| !on_v2(new) && !on_v1(old))
        .map(|c| c.0)
        .collect();
    if !missing.is_empty() {
        let advice = if missing.contains(&"memory") {
            "boot with cgroup_enable=memory; use a kernel with all controllers"
        } else {
            "use a kernel with all controllers; on v1 mount each below /sys/fs/cgroup"
        };
        return Check::fail(
            name,
            format!("no controller for {}", missing.join(", ")),
            advice,
        );
    }
    let all = CONTROLLERS.map(|c| c.0).join(" ");
    if any_v1 {
        let advice = "boot with systemd.unified_cgroup_hierarchy=1: v2 counts written pages and pressure per site";
        return Check::warn(name, format!("v1 with a v2 side: {all}"), advice);
    }
    Check::ok(name, format!("v2: {all}"))
}

/// What all sites of an owner may read and write together.
fn io_budgets(mounts: &[Mount]) -> Check {
    let name = "I/O budgets";
    let on_v1 = |m: &Mount| m.kind == "cgroup" && m.options.iter().any(|o| o == "blkio");
    match mounts.iter().any(on_v1) {
        true => Check::warn(
            name,
            "not possible: on cgroup v1 the limits of a group do not hold for the groups below it; each site can be limited",
            "boot with systemd.unified_cgroup_hierarchy=1 to have io in owners' budgets",
        ),
        false => Check::ok(name, "kept by the groups above the sites"),
    }
}

fn swap(system: &System, mounts: &[Mount]) -> Check {
    let name = "swap accounting";
    let has_swap = system
        .read("proc/swaps")
        .is_some_and(|t| t.lines().count() > 1);
    let counted = mounts.iter().any(|m| {
        let point = m.point.to_string_lossy();
        match m.kind.as_str() {
            "cgroup" => system.exists(&format!("{point}/memory.memsw.limit_in_bytes")),
            // The root has no such file: any group below it tells.
            "cgroup2" => std::fs::read_dir(system.path(&point)).is_ok_and(|dir| {
                dir.flatten()
                    .any(|e| e.path().join("memory.swap.max").exists())
            }),
            _ => false,
        }
    });
    match (counted, has_swap) {
        (true, _) => Check::ok(name, "on"),
        (false, false) => Check::ok(name, "off, and there is no swap"),
        (false, true) => Check::warn(
            name,
            "off: a site's memory limit does not count its swap",
            "boot with swapaccount=1",
        ),
    }
}

fn delegation(system: &System) -> Check {
    if !system.exists("run/systemd/system") {
        return Check::ok(
            "delegation",
            "no systemd here: the agent makes its cgroups itself",
        );
    }
    let shown = Command::new("systemctl")
        .args([
            "show",
            "--property=LoadState,Delegate",
            "fastcontainer-sites.service",
        ])
        .output();
    judge_unit(
        &shown
            .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
            .unwrap_or_default(),
    )
}

fn judge_unit(properties: &str) -> Check {
    let name = "delegation";
    let is = |line: &str| properties.lines().any(|l| l == line);
    if !is("LoadState=loaded") {
        return Check::warn(
            name,
            "fastcontainer-sites.service is not installed",
            "install the package, or packaging's unit file",
        );
    }
    if is("Delegate=yes") {
        return Check::ok(name, "systemd leaves the unit's cgroups to the agent");
    }
    let advice = "set Delegate=yes in the unit, then systemctl daemon-reload and restart";
    Check::fail(name, "systemd manages the unit's cgroups itself", advice)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Outcome, mounts};
    use super::*;

    fn v1(controllers: &[&str]) -> Vec<Mount> {
        let line =
            |c: &&str| format!("40 30 0:30 / /sys/fs/cgroup/{c} rw - cgroup cgroup rw,{c}\n");
        mounts::parse(&controllers.iter().map(line).collect::<String>())
    }

    #[test]
    fn versions_and_controllers() {
        let full = Some("cpuset cpu io memory hugetlb pids rdma misc");
        assert_eq!(controllers(&[], full).result, Outcome::Ok);
        let missing = controllers(&[], Some("cpu pids"));
        assert_eq!(
            (missing.result, missing.detail.as_str()),
            (Outcome::Fail, "no controller for memory, io")
        );
        let old = ["cpu,cpuacct", "memory", "blkio", "pids"];
        assert_eq!(controllers(&v1(&old), Some("")).result, Outcome::Warn);
        assert_eq!(controllers(&v1(&old), None).result, Outcome::Fail);
        assert_eq!(
            controllers(&v1(&old[..3]), Some("")).detail,
            "no controller for pids"
        );
        assert_eq!(controllers(&[], None).result, Outcome::Fail);
    }

    #[test]
    fn budgets_of_io_need_v2() {
        let checked = io_budgets(&v1(&["cpu,cpuacct", "blkio"]));
        assert_eq!(checked.result, Outcome::Warn);
        assert_eq!(io_budgets(&v1(&["cpu,cpuacct"])).result, Outcome::Ok);
        assert_eq!(io_budgets(&[]).result, Outcome::Ok);
    }

    #[test]
    fn swap_counts_only_where_there_is_some() {
        let dir = tempfile::tempdir().unwrap();
        let system = System::new(dir.path());
        let write = |path: &str, text: &str| {
            let path = system.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let mounts = mounts::parse("40 30 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        write("proc/swaps", "Filename Type Size\n");
        assert_eq!(swap(&system, &mounts).result, Outcome::Ok);
        write("proc/swaps", "Filename Type Size\n/dev/vdc partition 1\n");
        assert_eq!(swap(&system, &mounts).result, Outcome::Warn);
        write("sys/fs/cgroup/a.slice/memory.swap.max", "max\n");
        assert_eq!(swap(&system, &mounts).result, Outcome::Ok);
        assert_eq!(delegation(&system).result, Outcome::Ok);
    }

    #[test]
    fn the_unit_must_delegate() {
        assert_eq!(
            judge_unit("LoadState=loaded\nDelegate=yes\n").result,
            Outcome::Ok
        );
        assert_eq!(
            judge_unit("LoadState=loaded\nDelegate=no\n").result,
            Outcome::Fail
        );
        assert_eq!(
            judge_unit("LoadState=not-found\nDelegate=no\n").result,
            Outcome::Warn
        );
        assert_eq!(judge_unit("").result, Outcome::Warn);
    }
}
