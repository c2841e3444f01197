//! What a site can see, do and reach: a checker program looks from inside, as the site's user and as uid 0 of the
//! container's user namespace.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::inside::{ask, broken, report, site};
use harness::world::world;
use harness::{Host, STATIC, seconds, skip, wait_for};

/// What only seccomp or the missing capabilities hold back from uid 0 of the container's user namespace: its namespaces
/// alone would let it. Nothing of this leads out of the container; with a bug of the kernel behind it, it might.
const HELD_BY_CONFINEMENT: [&str; 41] = [
    // It is uid 0 with all capabilities of its own user namespace, without filter: that is what is tried.
    "capabilities CapPrm",
    "capabilities CapEff",
    "capabilities CapBnd",
    "no_new_privs",
    "seccomp",
    "setgroups",
    "become another",
    "capset",
    "oom score lowered",
    "chroot",
    // Namespaces below its own, which own nothing of the host.
    "unshare user",
    "unshare mount",
    "unshare pid",
    "unshare net",
    "unshare ipc",
    "unshare uts",
    "unshare cgroup",
    "unshare time",
    "clone user",
    "clone mount",
    "clone pid",
    "clone net",
    "clone ipc",
    "clone uts",
    "clone cgroup",
    // System calls that need no privilege and are refused for the kernel's sake.
    "add_key",
    "keyctl",
    "request_key",
    "io_uring_setup",
    "userfaultfd",
    "fanotify_init",
    "ptrace",
    "kcmp",
    "process_vm_readv",
    "move_pages",
    "personality",
    "TIOCSTI",
    "TIOCSTI in disguise",
    "TIOCLINUX",
    "32-bit calls",
    "quotactl",
];

/// Prefixes of more such checks.
const HELD_BY_CONFINEMENT_TOO: [&str; 4] = ["clone3 ", "socket families", "SCTP", "bpf"];

#[test]
fn the_sites_user_and_uid_0_of_its_namespace_get_nowhere() {
    let world = world("");
    let lines = report(&ask(&world.host, "a.example.com", "report", 120));
    assert_eq!(broken(&lines), [""; 0], "as the site's user");
    let reached = lines
        .iter()
        .filter(|line| line.check.starts_with("reach "))
        .count();
    assert_eq!(
        reached,
        world.services.len() + 1,
        "every service and the abstract socket were tried"
    );
    assert_eq!(
        broken(&world.as_user()),
        [""; 0],
        "as one more command of the site's user"
    );
    assert_eq!(
        broken(&world.as_root("confined")),
        [""; 0],
        "as uid 0, confined as init's children are"
    );
    let bare = world.as_root("bare");
    let found: BTreeSet<&str> = bare
        .iter()
        .filter(|line| !line.ok)
        .map(|line| line.check.as_str())
        .collect();
    let expected = |check: &&str| {
        HELD_BY_CONFINEMENT.contains(check)
            || HELD_BY_CONFINEMENT_TOO.iter().any(|p| check.starts_with(p))
    };
    let unexpected: Vec<&str> = found
        .iter()
        .copied()
        .filter(|check| !expected(check))
        .collect();
    let details: Vec<String> = broken(&bare)
        .into_iter()
        .filter(|line| unexpected.iter().any(|u| line.starts_with(u)))
        .collect();
    assert!(
        unexpected.is_empty(),
        "the namespaces alone do not hold:\n{}",
        details.join("\n")
    );
    assert!(
        found.contains("unshare user") && found.contains("seccomp"),
        "it was bare: {found:?}"
    );
    println!(
        "held by seccomp or missing capabilities only: {}",
        found.into_iter().collect::<Vec<_>>().join(", ")
    );
    world.no_datagrams();
    world.finish();
}

/// The root of another Debian release, made once per machine; None if that is not possible here.
fn another_release() -> Option<PathBuf> {
    const CACHE: &str = "/var/cache/fastcontainer/templates";
    const RELEASE: &str = "trixie";
    let (ready, fresh) = (
        Path::new(CACHE).join(RELEASE),
        Path::new(CACHE).join(format!("{RELEASE}.{}", std::process::id())),
    );
    if !ready.is_dir() {
        fs::create_dir_all(CACHE).unwrap();
        let made = Command::new("mmdebstrap")
            .args(["--mode=root", "--variant=essential", "--quiet", RELEASE])
            .arg(&fresh)
            .arg("http://deb.debian.org/debian")
            .output();
        let made = match made {
            Ok(output) if output.status.success() => {
                fs::rename(&fresh, &ready).map_err(|e| e.to_string())
            }
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = made {
            // A second test process may have been faster.
            let _ = fs::remove_dir_all(&fresh);
            if !ready.is_dir() {
                skip(&format!(
                    "cannot make a root of Debian {RELEASE}: {}",
                    error.trim()
                ));
                return None;
            }
        }
    }
    Some(ready)
}

#[test]
fn another_release_of_debian_as_template() {
    let Some(root) = another_release() else {
        return;
    };
    let world = world(&format!(
        "template = {:?}\n[network]\nmode = \"private\"\n",
        root.display().to_string()
    ));
    let status = world.host.verb("a.example.com", "start").json();
    let init = &status["init_pid"];
    let release = fs::read_to_string(format!("/proc/{init}/root/usr/lib/os-release")).unwrap();
    assert!(release.contains("VERSION_CODENAME=trixie"), "{release}");
    for (how, lines) in [
        ("confined", world.as_root("confined")),
        ("as the site's user", world.as_user()),
    ] {
        assert_eq!(broken(&lines), [""; 0], "{how}");
    }
    world.no_datagrams();
    world.finish();
}

#[test]
fn a_site_without_a_link_sees_a_loopback_for_as_long_as_it_lives() {
    let host = Host::new("");
    let private = format!("{STATIC}[network]\nmode = \"private\"\n");
    host.site("a.example.com", &private);
    let init = host.verb("a.example.com", "start").json()["init_pid"].clone();
    let of_init = |path: &str| PathBuf::from(format!("/proc/{init}/{path}"));
    let seen = || {
        let flags = fs::read_to_string(of_init("root/sys/class/net/lo/flags"));
        flags.unwrap_or_else(|error| format!("no loopback: {error}"))
    };
    let loopback_up = "0x9\n";
    assert_eq!(seen(), loopback_up);
    // It is the loopback of a namespace that all such sites show, and that is empty once nobody has it.
    let status = host.request("GET", "/v1/status", b"").json();
    let spawner = status["spawner_pid"].as_u64().unwrap();
    host.crash_and_restart();
    wait_for("the spawner has ended with its agent", seconds(20), || {
        !Path::new(&format!("/proc/{spawner}/ns/net")).exists()
    });
    let own = fs::read_link(of_init("ns/net")).unwrap();
    let held = fs::read_dir(of_init("fd")).unwrap().flatten();
    let held: Vec<_> = held
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter(|link| link.to_string_lossy().starts_with("net:") && *link != own)
        .collect();
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!(seen(), loopback_up);
    host.finish();
}

#[test]
fn what_tenants_use_up_is_not_the_hosts() {
    let host = Host::new("");
    site(&host, "greedy.example.com", "");
    let got: usize = ask(&host, "greedy.example.com", "inotify/4000", 60)
        .parse()
        .unwrap();
    assert!(got > 0, "the site has some");
    // Held by its process for as long as it lives: root's own are untouched.
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let own: Vec<_> = (0..most.min(16))
        .map(|n| {
            rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC)
                .unwrap_or_else(|e| panic!("root's number {n}: {e}"))
        })
        .collect();
    assert_eq!(own.len(), most.min(16));
    // Nor another tenant's.
    site(&host, "modest.example.com", "");
    let others: usize = ask(&host, "modest.example.com", "inotify/10", 60)
        .parse()
        .unwrap();
    assert_eq!(others, 10);
    host.finish();
}
