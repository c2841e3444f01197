//! /proc and /sys: nothing writable, nothing that tells of the host what is hidden for a reason.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::files::writable;
use crate::report::Report;

/// Everything below `directory` that could be written, without links.
fn written(directory: PathBuf, skip: &dyn Fn(&str) -> bool, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(&directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_symlink() || skip(&name) {
            continue;
        }
        let path = entry.path();
        // Belief in permissions is not enough: sysctl files have rules of their own.
        if writable(&path)
            || (kind.is_file() && fs::OpenOptions::new().write(true).open(&path).is_ok())
        {
            found.push(path.display().to_string());
        }
        if kind.is_dir() {
            written(path, skip, found);
        }
    }
}

fn bytes_of(path: &Path) -> usize {
    let mut buffer = [0; 64];
    fs::File::open(path)
        .and_then(|mut file| file.read(&mut buffer))
        .unwrap_or(0)
}

pub(crate) fn check(report: &mut Report) {
    let mut found = Vec::new();
    written("/sys".into(), &|_| false, &mut found);
    report.none("writable in /sys", &found);
    found.clear();
    let process = |name: &str| {
        name.bytes().all(|b| b.is_ascii_digit()) || name == "self" || name == "thread-self"
    };
    written("/proc".into(), &process, &mut found);
    report.none("writable in /proc", &found);
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sysrq-trigger",
        "/proc/sys/vm/drop_caches",
    ] {
        let open = fs::OpenOptions::new().write(true).open(path);
        report.add(
            &format!("written {path}"),
            open.is_err(),
            format!("{open:?}"),
        );
    }
    for path in [
        "/proc/kcore",
        "/proc/keys",
        "/proc/timer_list",
        "/proc/latency_stats",
        "/proc/kmsg",
        "/proc/sched_debug",
    ] {
        report.equal(
            &format!("bytes of {path}"),
            &bytes_of(Path::new(path)).to_string(),
            "0",
        );
    }
    for path in [
        "/sys/fs/cgroup",
        "/sys/fs/bpf",
        "/sys/firmware",
        "/sys/kernel/debug",
        "/sys/kernel/tracing",
        "/sys/kernel/security",
        "/proc/acpi",
        "/proc/scsi",
    ] {
        let count = fs::read_dir(path).map_or(0, Iterator::count);
        report.equal(&format!("entries of {path}"), &count.to_string(), "0");
    }
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let outside: Vec<String> = groups
        .lines()
        .filter(|line| !line.ends_with(":/"))
        .map(str::to_owned)
        .collect();
    report.none("cgroups above its own", &outside);
}
