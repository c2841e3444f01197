//! Who this process is and what it was given.

use std::fs;

use crate::report::Report;
use crate::sys;

/// Variables of a site's command.
const ENVIRONMENT: [&str; 6] = ["HOME", "LANG", "PATH", "TMPDIR", "USER", "VHOST"];

/// Open descriptors and what they are: `0 /dev/null`.
pub(crate) fn descriptors() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else {
        return vec!["unreadable".into()];
    };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            let target = target.to_string_lossy().into_owned();
            let kind = target.split(':').next().unwrap_or_default().to_owned();
            // The listing's own descriptor.
            (!target.ends_with("/fd"))
                .then(|| format!("{} {kind}", entry.file_name().to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

/// The value of a line of /proc/self/status, its white space made single.
pub(crate) fn status(name: &str) -> String {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or("missing")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

pub(crate) fn check(report: &mut Report, inherited: Option<&[String]>) {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        report.equal(
            &format!("capabilities {set}"),
            &status(set),
            "0000000000000000",
        );
    }
    report.equal("no_new_privs", &status("NoNewPrivs"), "1");
    report.equal("seccomp", &status("Seccomp"), "2");
    report.equal("groups", &status("Groups"), "");
    for ids in ["Uid", "Gid"] {
        let text = status(ids);
        let first = text.split(' ').next().unwrap_or_default();
        report.equal(&format!("all four {ids}"), &text, &[first; 4].join(" "));
    }
    let setgroups = fs::read_to_string("/proc/self/setgroups").unwrap_or_default();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let host = |line: &str| {
        line.split_whitespace()
            .nth(1)
            .and_then(|n| n.parse::<u64>().ok())
    };
    report.add(
        "uid map",
        map.lines().filter_map(host).all(|id| id >= 65_536),
        format!("{map:?} setgroups {setgroups:?}"),
    );
    let lowered = fs::write("/proc/self/oom_score_adj", "-500");
    report.add(
        "oom score lowered",
        lowered.is_err(),
        format!("{lowered:?}"),
    );
    let tty = fs::File::open("/dev/tty");
    report.add("no terminal", tty.is_err(), format!("{tty:?}"));
    if let Some(inherited) = inherited {
        command(report, inherited);
    }
}

/// What only the site's command itself has exactly so.
fn command(report: &mut Report, inherited: &[String]) {
    report.equal(
        "descriptors",
        &inherited.join(", "),
        "0 /dev/null, 1 pipe, 2 pipe",
    );
    let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    names.sort();
    report.equal("environment", &names.join(" "), &ENVIRONMENT.join(" "));
    report.equal("umask", &status("Umask"), "0022");
    let own = std::process::id().to_string();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let session = after
        .split_whitespace()
        .nth(3)
        .unwrap_or("missing")
        .to_owned();
    report.equal("session", &session, &own);
    for (name, resource, most) in [
        ("core", libc::RLIMIT_CORE, 1),
        ("memlock", libc::RLIMIT_MEMLOCK, 64 << 10),
        ("msgqueue", libc::RLIMIT_MSGQUEUE, 0),
        ("nice", libc::RLIMIT_NICE, 0),
        ("rtprio", libc::RLIMIT_RTPRIO, 0),
        ("sigpending", libc::RLIMIT_SIGPENDING, 4096),
        ("nofile", libc::RLIMIT_NOFILE, 1 << 20),
    ] {
        let (soft, hard) = sys::rlimit(i64::from(resource));
        report.add(
            &format!("rlimit {name}"),
            soft <= most && hard <= most,
            format!("{soft}:{hard}, at most {most}"),
        );
    }
}
