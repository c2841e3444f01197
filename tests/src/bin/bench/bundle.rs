//! An OCI bundle with the isolation that our containers have, for runc and crun.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::exits;

/// System calls that are refused; a representative part of what our filter refuses.
const REFUSED: [&str; 24] = [
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "delete_module",
    "finit_module",
    "fsopen",
    "init_module",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "mount",
    "move_mount",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "ptrace",
    "reboot",
    "request_key",
    "setns",
    "swapon",
    "umount2",
    "unshare",
    "userfaultfd",
];

pub(crate) struct Bundle {
    dir: PathBuf,
    root: PathBuf,
    parent: String,
    number: Cell<u32>,
}

impl Bundle {
    /// Makes the bundle below `dir`, the runtimes' state below `run_dir`; its cgroups are `parent`'s neighbour.
    pub(crate) fn new(dir: &Path, run_dir: &Path, parent: &str) -> Self {
        let (dir, root) = (dir.join("bundle"), run_dir.join("bundle-state"));
        let rootfs = dir.join("rootfs");
        for name in ["usr", "proc", "sys", "dev", "tmp", "etc", "site"] {
            fs::create_dir_all(rootfs.join(name)).expect("a directory of the bundle");
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            symlink(format!("usr/{name}"), rootfs.join(name)).expect("a link of the bundle");
        }
        let parent = format!("{parent}-peers");
        let config = config(&parent);
        fs::write(dir.join("config.json"), config.to_string()).expect("the bundle's configuration");
        Self {
            dir,
            root,
            parent,
            number: Cell::new(0),
        }
    }

    /// One container from creation to removal.
    pub(crate) fn run(&self, program: &str) -> Result<Duration, String> {
        self.number.set(self.number.get() + 1);
        let name = format!("fct{}", self.number.get());
        let (root, dir) = (
            self.root.join(program).display().to_string(),
            self.dir.display().to_string(),
        );
        exits::run(program, &["--root", &root, "run", "--bundle", &dir, &name])
    }
}

impl Drop for Bundle {
    /// Removes the empty cgroups above those that the runtimes have removed.
    fn drop(&mut self) {
        for root in harness::cgroup_roots() {
            let parent = Path::new(&root).join(&self.parent);
            for group in [parent.join("no-op"), parent] {
                // Err: this hierarchy has none.
                let _ = fs::remove_dir(group);
            }
        }
    }
}

fn config(parent: &str) -> Value {
    let mount = |to: &str, kind: &str, options: &[&str]| json!({"destination": to, "type": kind, "source": kind, "options": options});
    let bind = |to: &str| json!({"destination": to, "type": "bind", "source": to, "options": ["rbind", "ro", "nosuid", "nodev"]});
    let range = json!([{"containerID": 0, "hostID": 0x3000_0000, "size": 65536}]);
    let namespaces: Vec<Value> = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"]
        .iter()
        .map(|kind| json!({"type": kind}))
        .collect();
    json!({
        "ociVersion": "1.0.2",
        "hostname": "a.example.com",
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "terminal": false, "cwd": "/", "args": ["/usr/bin/true"], "env": ["PATH=/usr/bin"],
            "user": {"uid": 1001, "gid": 1001}, "noNewPrivileges": true,
            "capabilities": {"bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
        },
        "mounts": [
            bind("/usr"), mount("/proc", "proc", &[]), mount("/dev", "tmpfs", &["nosuid", "mode=755", "size=64k"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]), mount("/tmp", "tmpfs", &["nosuid", "nodev", "size=64m"]),
        ],
        "linux": {
            "namespaces": namespaces, "uidMappings": range, "gidMappings": range,
            "cgroupsPath": format!("/{parent}/no-op"),
            "resources": {
                "cpu": {"quota": 100_000, "period": 100_000}, "memory": {"limit": 64 << 20}, "pids": {"limit": 64},
            },
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
