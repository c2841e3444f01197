//! Programs with setuid, setgid or file capabilities: they run, and gain nothing.

use std::process::Command;

use crate::identity::status;
use crate::report::{Report, Targets};

/// What this program got by its execution.
pub(crate) fn power() -> String {
    // AT_SECURE is what the C library goes by as well.
    let secure = crate::sys::secure_execution();
    format!(
        "{} {} {} {} {secure}",
        status("Uid"),
        status("Gid"),
        status("CapPrm"),
        status("CapEff")
    )
}

pub(crate) fn check(report: &mut Report, targets: &Targets) {
    // By executing as anything else would: uid 0 with full capabilities keeps them, so compare with an ordinary copy.
    let run = |path: &str| match Command::new(path).arg("power").output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        Err(error) => format!("cannot run: {error}"),
    };
    let ordinary = run("/proc/self/exe");
    for path in targets.list("setuid") {
        let gained = run(&path);
        report.add(
            &format!("setuid {path}"),
            gained == ordinary,
            format!("{gained}, ordinary: {ordinary}"),
        );
    }
    for path in targets.list("devices") {
        let opened = std::fs::File::open(&path);
        report.add(
            &format!("device {path}"),
            opened.is_err(),
            format!("{opened:?}"),
        );
    }
}
