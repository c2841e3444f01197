//! Which hosts are recognised, from the text of /proc/self/mountinfo.
#![allow(clippy::unwrap_used)]

use cgroup::{Controller, Error, Hierarchy, Version};

const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const DEBIAN_12: &str = "cpuset cpu io memory hugetlb pids rdma misc\n";
const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
    35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
    37 31 0:34 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
    38 31 0:35 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
    39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

#[test]
fn pure_v2_has_everything() {
    let host = Hierarchy::from_text(V2, DEBIAN_12).unwrap();
    assert_eq!(host.version(), Version::V2);
    assert_eq!(host.missing(), []);
    assert!(
        Controller::USED
            .iter()
            .all(|c| host.controllers().contains(c))
    );
}

#[test]
fn v2_with_a_controller_switched_off_says_so() {
    let host = Hierarchy::from_text(V2, "cpuset cpu io hugetlb pids\n").unwrap();
    assert_eq!(host.version(), Version::V2);
    let missing = host.missing();
    assert_eq!(missing.len(), 1, "{missing:?}");
    assert_eq!(missing[0].controller, Controller::Memory);
    assert!(
        missing[0].text.contains("cgroup_enable="),
        "{}",
        missing[0].text
    );
}

#[test]
fn hybrid_with_comounted_controllers() {
    let host = Hierarchy::from_text(HYBRID, "hugetlb\n").unwrap();
    assert_eq!(host.version(), Version::Hybrid);
    assert_eq!(host.missing(), []);
    assert!(host.is_v1(Controller::Io));
    let together = host
        .v1_mounts()
        .find(|(path, _)| path.ends_with("cpu,cpuacct"))
        .unwrap();
    // CPU time is counted by v2 wherever it is mounted.
    assert_eq!(together.1, &[Controller::Cpu].into());
    assert!(!host.is_v1(Controller::Cpuacct));
    assert_eq!(
        host.v2_mount().unwrap().to_str(),
        Some("/sys/fs/cgroup/unified")
    );
}

#[test]
fn v1_without_a_v2_mount_is_hybrid_and_misses_it() {
    let text: String = HYBRID
        .lines()
        .filter(|l| !l.contains("cgroup2"))
        .map(|l| format!("{l}\n"))
        .collect();
    let host = Hierarchy::from_text(&text, "").unwrap();
    assert_eq!(host.version(), Version::Hybrid);
    assert!(host.v2_mount().is_none());
    assert!(host.is_v1(Controller::Cpuacct));
    assert!(
        host.missing().iter().any(|m| m.text.contains("cgroup2")),
        "{:?}",
        host.missing()
    );
}

#[test]
fn v2_host_where_somebody_mounted_an_unrelated_v1_controller() {
    let text = format!("{V2}50 23 0:50 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls\n");
    let host = Hierarchy::from_text(&text, DEBIAN_12).unwrap();
    assert_eq!(host.version(), Version::V2);
}

#[test]
fn controllers_may_be_split_between_both() {
    let text = format!("{V2}50 23 0:50 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n");
    let host = Hierarchy::from_text(&text, "cpu io memory\n").unwrap();
    assert_eq!(host.version(), Version::Hybrid);
    assert!(host.is_v1(Controller::Pids) && !host.is_v1(Controller::Memory));
    assert_eq!(host.missing(), []);
}

#[test]
fn a_bound_part_is_used_only_where_there_is_nothing_whole() {
    let text = "50 23 0:50 /docker/x /part rw - cgroup cgroup rw,memory\n\
        51 23 0:50 / /whole rw - cgroup cgroup rw,memory\n";
    let host = Hierarchy::from_text(text, "").unwrap();
    let points: Vec<_> = host
        .v1_mounts()
        .map(|(p, _)| p.to_str().unwrap().to_owned())
        .collect();
    assert_eq!(points, ["/whole"]);
}

#[test]
fn nothing_mounted_is_an_error() {
    let result = Hierarchy::from_text("22 1 0:20 / /proc rw - proc proc rw\n", "");
    assert!(matches!(result, Err(Error::NoCgroups)));
}

#[test]
fn this_host_is_recognised() {
    let host = Hierarchy::detect().unwrap();
    assert!(!host.controllers().is_empty());
    for (path, _) in host.v1_mounts() {
        assert!(path.join("cgroup.procs").exists());
    }
}
