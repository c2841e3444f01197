//! The whole tree: what can be written, what must not be there.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::report::{Report, Targets};
use crate::sys::{Arg, call};

/// Places that a site may write; everything below is its own as well.
const WRITABLE: [&str; 4] = ["/run", "/site", "/tmp", "/var/tmp"];
/// Devices: writing there goes nowhere.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];
/// What a host has and no container may show.
const ABSENT: [&str; 11] = [
    "/root",
    "/home",
    "/boot",
    "/srv",
    "/etc/fastcontainer",
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/systemd",
    "/run/dbus",
    "/run/fastcontainer",
    "/etc/ssh",
];

/// Whether the kernel would let this process write there (read-only mounts say no, too).
pub(crate) fn writable(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    const AT_EACCESS: u64 = 0x200;
    let here = libc::AT_FDCWD as u64;
    call(
        libc::SYS_faccessat2,
        &[
            Arg::N(here),
            Arg::S(&path),
            Arg::N(libc::W_OK as u64),
            Arg::N(AT_EACCESS),
        ],
    )
    .is_ok()
}

/// What a walk has met.
#[derive(Default)]
struct Met {
    writable: Vec<String>,
    marked: Vec<String>,
    devices: Vec<String>,
    sockets: Vec<String>,
    entries: usize,
    seen: BTreeSet<(u64, u64)>,
}

fn walk(directory: PathBuf, marker: &str, met: &mut Met) {
    let Ok(status) = fs::symlink_metadata(&directory) else {
        return;
    };
    if !met.seen.insert((status.dev(), status.ino())) {
        return;
    }
    let Ok(entries) = fs::read_dir(&directory) else {
        return;
    };
    for entry in entries.flatten() {
        met.entries += 1;
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else {
            continue;
        };
        debug_assert!(entry.ino() > 0);
        let shown = path.display().to_string();
        if path.to_string_lossy().contains(marker) {
            met.marked.push(shown.clone());
        }
        if kind.is_symlink() {
            continue;
        }
        let own = WRITABLE.iter().any(|place| path.starts_with(place));
        let device = path.parent() == Some(Path::new("/dev")) && kind.is_char_device();
        if !own && !device && writable(&path) {
            met.writable.push(shown.clone());
        }
        if kind.is_char_device() || kind.is_block_device() {
            if fs::File::open(&path).is_ok() && !device {
                met.devices.push(shown);
            }
        } else if kind.is_socket() && !own {
            met.sockets.push(shown);
        } else if kind.is_dir() && !matches!(shown.as_str(), "/proc" | "/sys") {
            walk(path, marker, met);
        }
    }
}

pub(crate) fn check(report: &mut Report, targets: &Targets) {
    let marker = targets
        .text("marker")
        .unwrap_or("no marker given")
        .to_owned();
    let mut met = Met::default();
    walk("/".into(), &marker, &mut met);
    report.add(
        "tree walked",
        met.entries > 10,
        format!("{} entries", met.entries),
    );
    report.none("writable outside the site's places", &met.writable);
    report.none("marked files of others", &met.marked);
    report.none("devices", &met.devices);
    report.none("sockets of others", &met.sockets);
    let mut names: Vec<String> = fs::read_dir("/dev")
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.retain(|name| !matches!(name.as_str(), "fd" | "stdin" | "stdout" | "stderr" | "shm"));
    names.sort();
    report.equal("device nodes", &names.join(" "), &DEVICES.join(" "));
    let absent = ABSENT
        .iter()
        .map(|path| (*path).to_owned())
        .chain(targets.list("absent"));
    // A template may have the directory; then it must be empty or closed.
    let something = |path: &String| match fs::symlink_metadata(path) {
        Err(_) => false,
        Ok(status) if status.is_dir() => {
            fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
        }
        Ok(_) => true,
    };
    report.none(
        "what no container shows",
        &absent.filter(something).collect::<Vec<_>>(),
    );
    let secrets = [
        "/etc/shadow",
        "/etc/gshadow",
        "/etc/shadow-",
        "/etc/sudoers",
    ];
    let readable = |path: &&str| fs::File::open(path).is_ok();
    report.none(
        "secrets",
        &secrets
            .iter()
            .filter(|p| readable(p))
            .map(|p| (*p).to_owned())
            .collect::<Vec<_>>(),
    );
    let readable: Vec<String> = targets
        .list("unreadable")
        .into_iter()
        .filter(|path| fs::File::open(path).is_ok())
        .collect();
    report.none("readable of others", &readable);
    let written: Vec<String> = targets
        .list("unreadable")
        .into_iter()
        .filter(|p| fs::OpenOptions::new().append(true).open(p).is_ok())
        .collect();
    report.none("writable of others", &written);
    let top = |path: &str| fs::metadata(path).map(|s| (s.dev(), s.ino())).ok();
    report.add(
        "no way up from the root",
        top("/") == top("/..") && top("/") == top("/proc/self/root"),
        "/.. is /",
    );
    mounts(report);
}

/// Every mount is nosuid, only the shared devices are without nodev, and only the site's places are writable.
fn mounts(report: &mut Report) {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let (mut suid, mut dev, mut write, mut shared) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (Some(place), Some(options)) = (words.get(4), words.get(5)) else {
            continue;
        };
        let has = |option| options.split(',').any(|o| o == option);
        if !has("nosuid") {
            suid.push((*place).to_owned());
        }
        if !has("nodev") && *place != "/dev" {
            dev.push((*place).to_owned());
        }
        let own = *place == "/proc" || WRITABLE.iter().any(|w| Path::new(place).starts_with(w));
        if has("rw") && !own {
            write.push((*place).to_owned());
        }
        if line.contains(" shared:") || line.contains(" master:") {
            shared.push((*place).to_owned());
        }
    }
    report.add("mounts", !text.is_empty(), text.lines().count().to_string());
    report.none("mounts with setuid", &suid);
    report.none("mounts with devices", &dev);
    report.none("writable mounts", &write);
    report.none("mounts that propagate", &shared);
}
