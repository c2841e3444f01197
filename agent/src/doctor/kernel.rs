//! The kernel itself: version, namespaces, pidfds, seccomp, pressure, limits.
use super::{Check, System};

/// Oldest kernel with all that a start needs (cgroup.kill, idmapped mounts of ext4 and xfs, clone into a cgroup).
const OLDEST: (u32, u32) = (5, 14);
/// Oldest kernel that is tested.
const TESTED: (u32, u32) = (6, 1);
/// Each container takes one of each kind.
const NAMESPACES: [&str; 7] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"];
/// Containers on one host that should be possible.
const MANY: u64 = 4096;

/// `6.1.0-18-amd64` as (6, 1).
pub(super) fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

pub(super) fn checks(system: &System) -> Vec<Check> {
    vec![
        kernel(&system.read("proc/sys/kernel/osrelease").unwrap_or_default()),
        namespaces(|kind| system.number(&format!("proc/sys/user/max_{kind}_namespaces"))),
        clone(system.kernel()),
        pidfd(),
        seccomp(
            system
                .read("proc/sys/kernel/seccomp/actions_avail")
                .as_deref(),
        ),
        pressure(std::fs::read_to_string(system.path("proc/pressure/memory"))),
        pid_max(system.number("proc/sys/kernel/pid_max")),
        yama(system.number("proc/sys/kernel/yama/ptrace_scope")),
        clock(system.read("sys/devices/system/clocksource/clocksource0/current_clocksource")),
    ]
}

fn kernel(release: &str) -> Check {
    match version(release) {
        (0, _) => Check::warn("kernel", "its version cannot be read", "mount /proc"),
        v if v < OLDEST => Check::fail("kernel", release, "use Linux 6.1 or newer"),
        v if v < TESTED => Check::warn(
            "kernel",
            format!("{release}, older than what is tested"),
            "use Linux 6.1 or newer",
        ),
        _ => Check::ok("kernel", release),
    }
}

fn namespaces(limit: impl Fn(&str) -> Option<u64>) -> Check {
    let name = "namespaces";
    let limits: Vec<_> = NAMESPACES.map(|kind| (kind, limit(kind))).to_vec();
    if let Some((kind, _)) = limits.iter().find(|(_, n)| n.is_none()) {
        let advice = "use a kernel with all namespaces (CONFIG_USER_NS and its siblings)";
        return Check::fail(
            name,
            format!("this kernel has no {kind} namespaces"),
            advice,
        );
    }
    let least = limits
        .iter()
        .filter_map(|(kind, n)| n.map(|n| (n, *kind)))
        .min();
    let (least, kind) = least.unwrap_or_default();
    let detail = format!("at most {least} {kind} namespaces");
    let advice = format!("sysctl user.max_{kind}_namespaces=63000 (and in /etc/sysctl.d)");
    match least {
        0 => Check::fail(name, detail, advice),
        n if n < MANY => Check::warn(name, detail, advice),
        n => Check::ok(name, format!("all seven kinds, {n} each or more")),
    }
}

fn clone(kernel: (u32, u32)) -> Check {
    let name = "clone into cgroup";
    if kernel >= (5, 7) {
        return Check::ok(name, "clone3 with CLONE_INTO_CGROUP");
    }
    Check::fail(
        name,
        "clone3 cannot start a process in a cgroup",
        "use Linux 6.1 or newer",
    )
}

fn pidfd() -> Check {
    let flags = rustix::process::PidfdFlags::empty();
    match rustix::process::pidfd_open(rustix::process::getpid(), flags) {
        Ok(_) => Check::ok("pidfd", "works"),
        Err(e) => Check::fail(
            "pidfd",
            format!("pidfd_open: {e}"),
            "use Linux 6.1 or newer; allow pidfd_open if a seccomp filter is in the way",
        ),
    }
}

fn seccomp(actions: Option<&str>) -> Check {
    let actions = actions.unwrap_or_default();
    let has = |action| actions.split_whitespace().any(|a| a == action);
    if has("errno") && has("kill_process") {
        Check::ok("seccomp", "filters with errno and kill_process")
    } else {
        Check::fail(
            "seccomp",
            "no seccomp filters",
            "use a kernel with CONFIG_SECCOMP_FILTER",
        )
    }
}

/// The file is there but cannot be read when pressure is compiled in and switched off.
fn pressure(memory: std::io::Result<String>) -> Check {
    match memory {
        Ok(text) if text.contains("avg10=") => Check::ok("pressure (PSI)", "measured"),
        _ => Check::warn(
            "pressure (PSI)",
            "not measured: load control sees less",
            "boot with psi=1",
        ),
    }
}

fn pid_max(limit: Option<u64>) -> Check {
    let advice = "sysctl kernel.pid_max=4194304 (and in /etc/sysctl.d)";
    match limit {
        Some(n) if n >= 131_072 => Check::ok("pid_max", n.to_string()),
        Some(n) => Check::warn(
            "pid_max",
            format!("{n} is few for thousands of sites"),
            advice,
        ),
        None => Check::warn("pid_max", "cannot be read", "mount /proc"),
    }
}

fn yama(scope: Option<u64>) -> Check {
    match scope {
        None => Check::ok("ptrace scope", "no Yama; containers do not depend on it"),
        Some(0) => Check::warn(
            "ptrace scope",
            "any process may trace others of its user",
            "sysctl kernel.yama.ptrace_scope=1 (and in /etc/sysctl.d)",
        ),
        Some(n) => Check::ok("ptrace scope", format!("Yama {n}")),
    }
}

fn clock(source: Option<String>) -> Check {
    let advice =
        "every look at the clock is a system call or worse: see dmesg for why tsc was given up";
    match source.as_deref() {
        None => Check::warn("clock source", "cannot be read", "mount /sys"),
        Some(slow @ ("hpet" | "acpi_pm" | "jiffies" | "pit" | "refined-jiffies")) => {
            Check::warn("clock source", format!("{slow} is slow"), advice)
        }
        Some(other) => Check::ok("clock source", other),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("6.1.0-18-amd64"), (6, 1));
        assert_eq!(version("6.18.5"), (6, 18));
        assert_eq!(version("5.10-rc1+"), (5, 10));
        assert_eq!(version(""), (0, 0));
        let result = |release| kernel(release).result;
        assert_eq!(result("5.10.0-28-amd64"), Outcome::Fail);
        assert_eq!(result("5.15.0"), Outcome::Warn);
        assert_eq!(result("6.1.0-18-amd64"), Outcome::Ok);
        assert_eq!(result("10.0.0"), Outcome::Ok);
    }

    #[test]
    fn one_kind_of_namespace_too_few() {
        assert_eq!(namespaces(|_| Some(60_000)).result, Outcome::Ok);
        let check = namespaces(|kind| Some(if kind == "net" { 100 } else { 60_000 }));
        assert_eq!(
            (check.result, check.detail.as_str()),
            (Outcome::Warn, "at most 100 net namespaces")
        );
        assert_eq!(
            namespaces(|kind| (kind != "user").then_some(9)).result,
            Outcome::Fail
        );
        assert_eq!(namespaces(|_| Some(0)).result, Outcome::Fail);
    }

    #[test]
    fn the_rest() {
        assert_eq!(
            seccomp(Some("kill_process kill_thread trap errno trace log allow")).result,
            Outcome::Ok
        );
        assert_eq!(seccomp(None).result, Outcome::Fail);
        assert_eq!(
            pressure(Ok("some avg10=0.00 avg60=0.00".to_owned())).result,
            Outcome::Ok
        );
        assert_eq!(
            pressure(Err(std::io::ErrorKind::Unsupported.into())).result,
            Outcome::Warn
        );
        assert_eq!(pid_max(Some(32_768)).result, Outcome::Warn);
        assert_eq!(clock(Some("kvm-clock".to_owned())).result, Outcome::Ok);
        assert_eq!(clock(Some("acpi_pm".to_owned())).result, Outcome::Warn);
        assert_eq!(clone((5, 6)).result, Outcome::Fail);
        assert_eq!(yama(Some(0)).result, Outcome::Warn);
    }
}
