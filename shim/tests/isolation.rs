//! What a site's process can see and do, checked from inside.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use common::*;
use shim::protocol::{ExitStatus, Rlimit};

/// `NAME VALUE` lines as a lookup that names what is missing.
fn lookup(output: &str, name: &str) -> String {
    let line = output
        .lines()
        .find_map(|l| l.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("no {name} in:\n{output}"))
        .trim()
        .to_owned()
}

fn run(site: Site) -> String {
    let spawner = Spawner::new();
    let c = site.run(&spawner);
    c.wait();
    c.output()
}

#[test]
fn identity_and_power() {
    let output = run(Site::sh(
        "cat /proc/self/status; echo umask $(umask); echo cwd $(pwd); ls /proc | grep -c '^[0-9]' | sed 's/^/processes /'; \
         ls -l /proc/self/fd | grep -c -- '->' | sed 's/^/fds /'; echo files $(ulimit -Sn) $(ulimit -Hn); \
         env | sed 's/^/env /'; echo session $(cut -d' ' -f6 /proc/$$/stat); echo self $$; echo ifaces $(ls /sys/class/net); \
         cat /proc/self/uid_map | sed 's/^/map /'; cat /proc/self/cgroup | sed 's/^/cgroup /'",
    ));
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert!(
            output.contains(&format!("{set}\t0000000000000000")),
            "{set} in {output}"
        );
    }
    for line in [
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Uid:\t4321\t4321\t4321\t4321",
        "Gid:\t4322\t4322\t4322\t4322",
        "SigBlk:\t0000000000000000",
        "SigIgn:\t0000000000000000",
        "umask 0022",
        "cwd /site",
        "files 512 1024",
        "session 2",
        "self 2",
        "ifaces lo",
    ] {
        assert!(
            output.lines().any(|l| l.trim_end() == line),
            "{line:?} in {output}"
        );
    }
    assert!(
        output.lines().any(|l| l.trim_end() == "Groups:"),
        "supplementary groups in {output}"
    );
    // init, this shell, ls, grep, sed: nothing of the host.
    assert!(
        lookup(&output, "processes").parse::<u32>().unwrap() <= 6,
        "{output}"
    );
    // ls itself has the directory open, and the pipe is its standard output.
    assert_eq!(lookup(&output, "fds"), "4", "{output}");
    let env: Vec<&str> = output
        .lines()
        .filter_map(|l| l.strip_prefix("env "))
        .collect();
    assert!(
        env.iter()
            .all(|e| ["PATH=", "HOME=", "PWD=", "OLDPWD=", "_=", "SHLVL="]
                .iter()
                .any(|k| e.starts_with(k))),
        "{env:?}"
    );
    assert!(
        output
            .lines()
            .filter(|l| l.starts_with("cgroup "))
            .all(|l| l.ends_with(":/")),
        "{output}"
    );
}

#[test]
fn only_the_writable_places_are_writable() {
    let output = run(Site::sh(
        "for f in / /usr /etc /dev /proc /proc/sys/kernel /sys /sys/class /run /run/site /tmp /var /var/tmp /dev/shm /site; do \
           if (echo x > $f/probe) 2>/dev/null; then echo $f yes; else echo $f no; fi; done; \
         for f in /proc/sys/kernel/hostname /proc/sys/vm/swappiness /proc/sysrq-trigger /proc/sys/net/ipv4/ip_forward; do \
           if (echo 1 > $f) 2>/dev/null; then echo $f yes; else echo $f no; fi; done; \
         cp /usr/bin/true /run/site/true; if /run/site/true 2>/dev/null; then echo run-exec yes; else echo run-exec no; fi; \
         cp /usr/bin/true /tmp/true; if /tmp/true; then echo tmp-exec yes; else echo tmp-exec no; fi; \
         echo passwd $(cat /etc/passwd); (echo >> /etc/passwd) 2>/dev/null && echo passwd-written; \
         echo null $(cat /dev/null | wc -c) $(head -c 4 /dev/zero | wc -c); ls -ld /tmp /run/site | sed 's/^/ls /'; \
         readlink /bin; sed 's/^/mi /' /proc/self/mountinfo",
    ));
    for path in [
        "/run",
        "/run/site",
        "/tmp",
        "/var/tmp",
        "/dev/shm",
        "/site",
        "tmp-exec",
    ] {
        assert_eq!(lookup(&output, path), "yes", "{path}\n{output}");
    }
    for path in [
        "/",
        "/usr",
        "/etc",
        "/dev",
        "/proc",
        "/proc/sys/kernel",
        "/sys",
        "/sys/class",
        "/var",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/swappiness",
        "/proc/sysrq-trigger",
        "/proc/sys/net/ipv4/ip_forward",
        "run-exec",
    ] {
        assert_eq!(lookup(&output, path), "no", "{path}\n{output}");
    }
    assert_eq!(lookup(&output, "passwd"), "site:x:4321:4322::/site:/bin/sh");
    assert!(!output.contains("passwd-written"));
    assert_eq!(lookup(&output, "null"), "0 4");
    assert!(
        output
            .lines()
            .any(|l| l.starts_with("ls drwxrwxrwt") && l.ends_with("/tmp")),
        "{output}"
    );
    assert!(
        output
            .lines()
            .any(|l| l.starts_with("ls drwx------") && l.ends_with("/run/site")),
        "{output}"
    );
    // Every mount is nosuid; only the shared devices are without nodev.
    for mount in output.lines().filter_map(|l| l.strip_prefix("mi ")) {
        let words: Vec<&str> = mount.split(' ').collect();
        let (place, options) = (words[4], words[5]);
        assert!(options.contains("nosuid"), "{mount}");
        assert!(options.contains("nodev") || place == "/dev", "{mount}");
        let writable = ["/tmp", "/run", "/var/tmp", "/site", "/proc"].contains(&place);
        assert_eq!(options.split(',').any(|o| o == "rw"), writable, "{mount}");
    }
}

#[test]
fn sensitive_parts_of_proc_and_sys_are_hidden() {
    let output = run(Site::sh(
        "for f in kcore keys timer_list latency_stats; do echo /proc/$f $(cat /proc/$f 2>/dev/null | head -c 64 | wc -c); done; \
         for d in /proc/acpi /proc/scsi /sys/firmware /sys/fs/cgroup /sys/fs/bpf /sys/kernel/debug /sys/kernel/security /sys/kernel/tracing; do \
           echo $d $(ls -A $d 2>/dev/null | wc -l); done; \
         for f in environ mem maps root cwd exe fd; do if ls -A /proc/1/$f/ >/dev/null 2>&1 || head -c1 /proc/1/$f >/dev/null 2>&1; then echo init-$f open; else echo init-$f closed; fi; done",
    ));
    assert_eq!(output.lines().count(), 19, "{output}");
    for line in output.lines() {
        let (what, value) = line.split_once(' ').unwrap();
        let hidden = if what.starts_with("init-") {
            "closed"
        } else {
            "0"
        };
        assert_eq!(value, hidden, "{what}");
    }
}

#[test]
fn documents_belong_to_the_site_and_nobody_else() {
    let site = Site::sh(
        "id; touch /site/made; mkdir /site/dir; cat /site/index.html; stat -c 'owner %n %u:%g' /site /site/made /site/foreign; \
         (echo x >> /site/foreign) 2>/dev/null && echo foreign-written; cat /site/secret 2>/dev/null && echo secret-read; \
         (echo x > /site/closed/x) 2>/dev/null && echo closed-written; chown 5000 /site/made 2>/dev/null && echo chowned; \
         cp /usr/bin/busybox /site/own; chmod 4755 /site/own; stat -c 'mode %a' /site/own",
    );
    let at = |n: &str| site.documents.0.join(n);
    fs::write(at("foreign"), "theirs\n").unwrap();
    chown(at("foreign"), Some(9999), Some(9999)).unwrap();
    fs::write(at("secret"), "secret\n").unwrap();
    fs::set_permissions(at("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir(at("closed")).unwrap();
    let spawner = Spawner::new();
    let c = site.run(&spawner);
    c.wait();
    let output = c.output();
    assert!(output.contains("hello"), "{output}");
    for good in [
        "owner /site 4321:4322",
        "owner /site/made 4321:4322",
        "owner /site/foreign 65534:65534",
        "mode 4755",
    ] {
        assert!(output.lines().any(|l| l == good), "{good:?} in {output}");
    }
    for bad in [
        "foreign-written",
        "secret-read",
        "closed-written",
        "chowned",
    ] {
        assert!(!output.contains(bad), "{output}");
    }
    for name in ["made", "dir", "own"] {
        let m = fs::metadata(c.documents.0.join(name)).unwrap();
        assert_eq!((m.uid(), m.gid()), (UID, GID), "{name} on disk");
    }
}

#[test]
fn nobody_changes_whether_cores_are_dumped() {
    let spawner = Spawner::new();
    let mut site = Site::sh(
        "ulimit -c 0; ulimit -c unlimited; ulimit -n 100; prlimit --core=0:0 --pid $$ 2>&1; \
         grep -E 'core|open' /proc/self/limits",
    );
    site.start.program.rlimits.push(Rlimit {
        resource: libc::RLIMIT_CORE,
        soft: 1,
        hard: 1,
    });
    let c = site.run(&spawner);
    assert_eq!(c.wait(), ExitStatus::Code(0), "{}", c.log());
    let output = c.output();
    let words = |name: &str| {
        let line = output.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(words("Max core file size")[4..6], ["1", "1"], "{output}");
    assert_eq!(words("Max open files")[3], "100", "{output}");
}
