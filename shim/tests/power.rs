//! What a site's process may not do, by whatever call.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::*;
use shim::protocol::*;

/// A perl prelude: `try NAME, NUMBER, ARGS` prints `NAME errno-or-0`.
const TRY: &str = r#"
    $| = 1;
    sub try { my ($name, $nr, @args) = @_; $! = 0; my $r = syscall($nr, @args); printf "%s %d\n", $name, $r == -1 ? $!+0 : 0; }
"#;

fn run(site: Site) -> String {
    let spawner = Spawner::new();
    let c = site.run(&spawner);
    c.wait();
    c.output()
}

#[test]
fn forbidden_calls_fail() {
    let script = format!(
        r#"{TRY}
        my $eperm = 1;
        try("mount", 165, "none", "/tmp", "tmpfs", 0, 0); try("umount", 166, "/tmp", 2); try("pivot_root", 155, "/", "/");
        try("unshare_user", 272, 0x10000000); try("unshare_mnt", 272, 0x20000); try("setns", 308, 0, 0);
        try("clone_newuser", 56, 0x10000011, 0, 0, 0, 0); try("clone3", 435, 0, 0);
        try("mknod", 133, "/tmp/dev", 020666, 259); try("chroot", 161, "/tmp"); try("sethostname", 170, "x", 1);
        try("ptrace_init", 101, 16, 1, 0, 0); try("kill_init", 62, 1, 9); try("readv_init", 310, 1, 0, 0, 0, 0, 0);
        try("keyctl", 250, 0, -3, 0, 0, 0); try("add_key", 248, "user", "x", "y", 1, -3);
        try("bpf", 321, 0, 0, 0); try("perf", 298, 0, 0, 0, -1, 0); try("userfaultfd", 323, 0);
        try("io_uring", 425, 1, 0); try("by_handle", 304, 0, 0, 0); try("reboot", 169, 0, 0, 0, 0);
        try("swapon", 167, "/tmp/x", 0); try("module", 313, 0, "", 0); try("settime", 227, 0, 0); try("acct", 163, 0);
        try("syslog", 103, 3, 0, 0); try("quotactl", 179, 0, 0, 0, 0); try("personality", 135, 0x0040000);
        try("af_packet", 41, 17, 3, 0); try("af_alg", 41, 38, 5, 0); try("af_vsock", 41, 40, 1, 0);
        try("netlink_audit", 41, 16, 3, 9); try("netlink_route", 41, 16, 3, 0); try("sctp", 41, 2, 1, 132);
        try("raw", 41, 2, 3, 1); try("tcp", 41, 2, 1, 0); try("unix", 41, 1, 1, 0); try("tiocsti", 16, 0, 0x5412, "x");
        try("setuid0", 105, 0); try("setgid0", 106, 0); try("capset", 126, 0, 0); try("fsopen", 430, "tmpfs", 0);
        try("open_tree", 428, -100, "/", 1); try("kcmp", 312, 1, 2, 0, 0, 0); try("pidfd_getfd", 438, 0, 0, 0);
        try("x32", 0x40000000 + 39); try("new_call", 900); try("mkfifo", 133, "/tmp/fifo", 010600, 0);
        "#
    );
    let output = run(Site::new(&["perl", "-e", &script]));
    let expected = |name: &str| match name {
        "clone3" | "x32" | "new_call" => libc::ENOSYS,
        "af_packet" | "af_alg" | "af_vsock" => libc::EAFNOSUPPORT,
        "netlink_audit" | "sctp" => libc::EPROTONOSUPPORT,
        "capset" => libc::EFAULT,
        "netlink_route" | "tcp" | "unix" | "mkfifo" => 0,
        _ => libc::EPERM,
    };
    assert!(output.lines().count() >= 48, "{output}");
    for line in output.lines() {
        let (name, errno) = line.split_once(' ').unwrap();
        assert_eq!(errno, expected(name).to_string(), "{name}");
    }
}

#[test]
fn set_id_programs_gain_nothing() {
    let tools = Dir::new();
    let program = tools.0.join("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    let mut site =
        Site::sh("stat -c 'mode %a %u' /opt/id; echo uid $(/opt/id -u) gid $(/opt/id -g)");
    site.start.mounts.push(Mount {
        target: "opt".into(),
        directory: true,
        read_only: true,
        devices: false,
        exec: true,
        idmap: IdMap::Container,
    });
    site.pass(FdRole::Mount(3), bind_of(&tools.0));
    let output = run(site);
    assert!(
        output.contains("mode 6755 0"),
        "the template shows its owner as root: {output}"
    );
    assert!(output.contains("uid 4321 gid 4322"), "{output}");
}

/// As uid 0 of the container's user namespace, with every capability over it, without seccomp: far more than any
/// process of a tenant can have. The namespaces belong to the host all the same.
#[test]
fn even_all_capabilities_of_the_user_namespace_change_nothing() {
    let spawner = Spawner::new();
    let c = Site::new(&["sleep", "1000"]).run(&spawner);
    let script = format!(
        r#"{TRY}
        open(my $s, "/proc/self/status"); while (<$s>) {{ print if /^CapEff/ }}
        try("mount", 165, "none", "/tmp", "tmpfs", 0, 0); try("remount_usr", 165, "none", "/usr", "", 32|4096, 0);
        try("remount_root", 165, "none", "/", "", 32|4096, 0); try("umount_dev", 166, "/dev", 2); try("umount_proc_sys", 166, "/proc/sys", 2);
        try("sethostname", 170, "x", 1); try("mknod", 133, "/tmp/dev", 020666, 259); try("ptrace_init", 101, 16, 1, 0, 0);
        try("module", 313, 0, "", 0); try("settime", 227, 0, "\0" x 16); try("reboot", 169, 0xfee1dead, 672274793, 0x89abcdef, 0);
        try("by_handle", 304, -100, "\0" x 16, 0); try("swapoff", 168, "/tmp"); try("bpf", 321, 5, "\0" x 128, 128);
        try("netlink_addr", 41, 17, 3, 0); try("syslog", 103, 3, "\0" x 16, 16); try("kill_host", 62, 999999, 9);
        for my $f ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
                   "/proc/1/environ", "/proc/1/mem", "/proc/1/root/etc/shadow", "/usr/probe", "/etc/probe", "/dev/probe", "/probe",
                   "/etc/passwd", "/sys/kernel/uevent_helper", "/proc/1/oom_score_adj") {{
            printf "write:%s %d\n", $f, (open(my $h, "+>>", $f) ? 0 : $!+0);
        }}
        "#
    );
    let out = Command::new("nsenter")
        .args([
            "-t",
            &c.pid.to_string(),
            "-a",
            "-S",
            "0",
            "-G",
            "0",
            "perl",
            "-e",
            &script,
        ])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&out.stdout);
    assert!(
        output.contains("CapEff:\t000001ff"),
        "has every capability: {output} {}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(output.lines().count(), 32, "{output}");
    for line in output.lines().skip(1) {
        let (name, errno) = line.split_once(' ').unwrap();
        assert_ne!(errno, "0", "{name} worked");
    }
}
