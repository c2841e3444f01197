//! The spawner's own surroundings: a mount namespace that consists of one tiny tmpfs, so that each clone copies two
//! mounts and not the host's hundreds, with the /dev that all containers share and the /sys of those without a link; and what
//! the kernel offers to mask.

use std::os::fd::OwnedFd;

use crate::report::{Done, Step};
use crate::{confine, sys};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, makedev, mknodat, open, openat, statx,
    symlink,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};

/// The shared device directory.
pub(crate) const DEV: &str = "/dev";
/// The shared sysfs.
pub(crate) const SYS: &str = "/sys";

/// Paths of /proc that are hidden, as the OCI runtimes do; also `pressure`, which shows the load of all tenants and
/// whose files anybody may write to have the kernel watch it.
const PROC_MASKED: &[&str] = &[
    "acpi",
    "asound",
    "cmdline",
    "config.gz",
    "diskstats",
    "interrupts",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "latency_stats",
    "locks",
    "pressure",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// Paths of /proc that stay visible but cannot be written through. Of all others only the host's root may write, whom no
/// id of a container maps to; what may be written below sys is decided by namespaces.
const PROC_READ_ONLY: &[&str] = &["sys"];
/// Paths of /sys that are hidden. Nothing is mounted below a container's own sysfs, so that its mount points
/// (fs/cgroup, fs/bpf, kernel/debug, kernel/tracing, kernel/security) are empty by themselves.
const SYS_MASKED: &[&str] = &["firmware", "devices/virtual/powercap", "kernel/boot_params"];

/// A path to hide.
#[derive(Debug)]
pub(crate) struct Masked {
    pub(crate) path: String,
    pub(crate) directory: bool,
}

/// What is known of the host, found once.
#[derive(Debug)]
pub(crate) struct Host {
    /// Below /proc, hidden.
    pub(crate) proc_masked: Vec<Masked>,
    /// Below /proc, read-only.
    pub(crate) proc_read_only: Vec<Masked>,
    /// Below /sys, hidden.
    pub(crate) sys_masked: Vec<Masked>,
    /// The tenants' seccomp filter.
    pub(crate) filter: Vec<libc::sock_filter>,
    /// Init's own.
    pub(crate) init_filter: Vec<libc::sock_filter>,
    /// The network namespace that [`SYS`] shows: nothing but a loopback device, and empty once nobody has the namespace.
    /// So each init of a container that shows it keeps this.
    pub(crate) lone: OwnedFd,
}

impl Host {
    /// Looks around; the second value is the host's /proc, for the spawner only.
    pub(crate) fn look(lone: OwnedFd) -> Done<(Self, OwnedFd)> {
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = open("/proc", dir, Mode::empty()).step("open", "/proc")?;
        let host = Self {
            proc_masked: existing("/proc", PROC_MASKED),
            proc_read_only: existing("/proc", PROC_READ_ONLY),
            sys_masked: existing("/sys", SYS_MASKED),
            filter: crate::seccomp::program(),
            init_filter: crate::seccomp::program_of_init(),
            lone,
        };
        Ok((host, proc))
    }
}

fn existing(below: &str, names: &[&str]) -> Vec<Masked> {
    let kind = |name: &&str| -> Option<Masked> {
        let found: Statx = statx(
            CWD,
            format!("{below}/{name}"),
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::TYPE | StatxFlags::MODE,
        )
        .ok()?;
        // Only the host's root may read it, whom no id of a container maps to: each mount costs at start and end.
        if found.stx_mode & 0o077 == 0 {
            return None;
        }
        match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::Directory => Some(Masked {
                path: (*name).to_owned(),
                directory: true,
            }),
            FileType::RegularFile => Some(Masked {
                path: (*name).to_owned(),
                directory: false,
            }),
            _ => None,
        }
    };
    names.iter().filter_map(kind).collect()
}

/// Containers do not inherit the protection from the OOM killer that the agent's unit gives the agent: where the host is out
/// of memory they go first, before its own services. The agent takes this from sites that are promised what they have.
pub(crate) fn be_killable() -> Done<()> {
    const ADJUST: &str = "/proc/self/oom_score_adj";
    // As if a process used half of the host's memory beside its own; the agent knows this number too.
    const SHED: i32 = 500;
    let now = std::fs::read_to_string(ADJUST).unwrap_or_default();
    // Raising it needs no right; one that is higher already is left.
    if now.trim().parse::<i32>().is_ok_and(|now| now >= SHED) {
        return Ok(());
    }
    std::fs::write(ADJUST, SHED.to_string())
        .map_err(|e| crate::report::failure("reset", ADJUST, e.raw_os_error().unwrap_or(0)))
}

/// Leaves the host's mounts for a namespace with nothing but the shared /dev and /sys. `proc` is the host's.
pub(crate) fn own_mounts(proc: &OwnedFd, lone: &OwnedFd) -> Done<()> {
    sys::unshare(libc::CLONE_NEWNS).step("unshare the mount namespace", "")?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .step("make private", "/")?;
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).step("open a file system", "tmpfs")?;
    for (key, value) in [("size", "64k"), ("nr_inodes", "64"), ("mode", "0755")] {
        fsconfig_set_string(&fs, key, value).step("configure tmpfs", key)?;
    }
    fsconfig_create(&fs).step("create a file system", "tmpfs")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step("mount", "tmpfs")?;
    // Any directory will do: the host's own view of it does not change.
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", CWD, "/proc", flags).step("attach", "the spawner's root")?;
    rustix::process::fchdir(&mount).step("enter", "the spawner's root")?;
    rustix::process::pivot_root(".", ".").step("pivot the root", "")?;
    unmount(".", UnmountFlags::DETACH).step("detach", "the host's root")?;
    rustix::process::chdir("/").step("enter", "/")?;
    devices()?;
    shared_sys(proc, lone)
}

/// A sysfs shows the network namespace of whoever makes it. One costs as much as the rest of a network namespace does, and
/// a time that grows with how many there are: the kernel looks through all of them for one that is there already.
fn shared_sys(proc: &OwnedFd, lone: &OwnedFd) -> Done<()> {
    const OWN: &str = "self/ns/net";
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let home = openat(proc, OWN, flags, Mode::empty()).step("open", OWN)?;
    confine::enter_network_namespace(lone)?;
    let fs = fsopen("sysfs", FsOpenFlags::FSOPEN_CLOEXEC).step("open a file system", "sysfs")?;
    fsconfig_create(&fs).step("create a file system", "sysfs")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step("mount", "sysfs")?;
    rustix::fs::mkdir(SYS, Mode::from(0o755)).step("make", SYS)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", CWD, SYS, flags).step("attach", SYS)?;
    confine::enter_network_namespace(&home)
}

fn devices() -> Done<()> {
    rustix::fs::mkdir(DEV, Mode::from(0o755)).step("make", DEV)?;
    for (name, major, minor) in [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ] {
        let path = format!("{DEV}/{name}");
        mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::from(0o666),
            makedev(major, minor),
        )
        .step("make the device", &path)?;
    }
    for (name, to) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("shm", "/run/shm"),
    ] {
        let path = format!("{DEV}/{name}");
        symlink(to, &path).step("make the link", &path)?;
    }
    Ok(())
}
