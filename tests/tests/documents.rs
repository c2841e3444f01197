//! Documents are the tenant's: whatever lies there, and whatever changes while a container starts, leads the root agent
//! nowhere.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use harness::{Host, OWNER, STATIC, rounds};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};
use serde_json::Value;

/// A site below a directory that the tenant owns, and what the tenant puts in its place.
struct Attack {
    /// Owned by the tenant.
    home: PathBuf,
    /// What lies in `home`: the real one is exchanged with each of these in turn.
    decoys: Vec<PathBuf>,
}

fn own(path: &Path, uid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(uid)).unwrap();
}

fn directory(path: &Path, uid: u32, marker: &str) {
    fs::create_dir_all(path).unwrap();
    fs::write(path.join("marker"), marker).unwrap();
    own(&path.join("marker"), uid);
    own(path, uid);
}

impl Attack {
    fn new(host: &Host, victim: &Path) -> Self {
        let home = host.dir.join("www/home");
        directory(&home, OWNER, "home");
        directory(&home.join("site/real"), OWNER, "attacker");
        own(&home.join("site"), OWNER);
        let decoys = home.join("decoys");
        directory(&decoys, OWNER, "decoys");
        let mut list = Vec::new();
        let mut add = |name: &str, make: &dyn Fn(&Path)| {
            let path = decoys.join(name);
            make(&path);
            own(&path, OWNER);
            list.push(path);
        };
        let parent = victim.parent().unwrap().to_owned();
        add("to-etc", &|path| symlink("/etc", path).unwrap());
        add("to-root", &|path| symlink("/", path).unwrap());
        add("to-victim", &|path| symlink(victim, path).unwrap());
        add("to-proc", &|path| symlink("/proc/self/cwd", path).unwrap());
        add("to-parent", &|path| symlink(&parent, path).unwrap());
        add("fifo", &|path| {
            mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap()
        });
        add("file", &|path| fs::write(path, "file").unwrap());
        add("hard-link", &|path| {
            fs::hard_link(decoys.join("marker"), path).unwrap()
        });
        // A directory with a link where the last component is expected.
        add("nested", &|path| {
            directory(path, OWNER, "attacker");
            symlink(victim, path.join("real")).unwrap();
            own(&path.join("real"), OWNER);
        });
        Self { home, decoys: list }
    }

    /// Exchanges the directory on the way to the documents, or the documents themselves, with a decoy and back, for ever.
    fn run(self, stop: Arc<AtomicBool>, swaps: Arc<AtomicU32>) -> JoinHandle<()> {
        std::thread::spawn(move || {
            // As the tenant: for this thread alone.
            let (uid, gid) = (
                rustix::thread::Uid::from_raw(OWNER),
                rustix::thread::Gid::from_raw(OWNER),
            );
            rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            let exchange =
                |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
            let places = [self.home.join("site"), self.home.join("site/real")];
            while !stop.load(Ordering::Relaxed) {
                for decoy in &self.decoys {
                    for place in &places {
                        exchange(place, decoy);
                        exchange(place, decoy);
                        swaps.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })
    }
}

/// What is mounted at /site of a running container: its marker, and who its process is on the host.
fn mounted(status: &Value) -> (String, u64) {
    let init = &status["init_pid"];
    let marker = fs::read_to_string(format!("/proc/{init}/root/site/marker"))
        .unwrap_or_else(|e| e.to_string());
    let kind = fs::symlink_metadata(format!("/proc/{init}/root/site")).unwrap();
    assert!(kind.is_dir());
    (marker, u64::from(kind.uid()))
}

#[test]
fn exchanging_the_documents_during_starts_leads_nowhere() {
    let host = Host::new("");
    let victim = host.dir.join("www/victim");
    directory(&victim, OWNER + 1, "victim");
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o700)).unwrap();
    let attack = Attack::new(&host, &victim);
    let path = attack.home.join("site/real");
    // The front page is the marker, so that the server serves from wherever it finds itself.
    host.define(
        "a.example.com",
        &format!(
            "owner = \"acme\"\ndocuments = {:?}\n{STATIC}[stop]\ntimeout = \"100ms\"\n",
            path.display().to_string()
        ),
    );
    let (stop, swaps) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU32::new(0)),
    );
    let attacker = attack.run(stop.clone(), swaps.clone());
    let (mut started, mut refused) = (0, 0);
    for _ in 0..rounds(200, 20) {
        let answer = host.verb("a.example.com", "start");
        if answer.status == 200 {
            started += 1;
            let status = answer.json();
            let (marker, uid) = mounted(&status);
            assert_eq!(marker, "attacker", "{status}");
            let range = status["uid"].as_u64().unwrap();
            assert_eq!(uid, range, "the documents belong to the site");
        } else {
            refused += 1;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let expected = [
                "symbolic link",
                "must be a directory",
                "create the directory",
            ];
            assert!(
                expected.iter().any(|e| text.contains(e)),
                "{} {text}",
                answer.status
            );
        }
        assert!(
            host.verb("a.example.com", "stop").status == 200,
            "{}",
            host.status("a.example.com")
        );
    }
    stop.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    println!(
        "{started} starts, {refused} refusals, {} exchanges",
        swaps.load(Ordering::Relaxed)
    );
    assert!(
        started > 0 && refused > 0,
        "both happened: {started} starts, {refused} refusals"
    );
    assert_eq!(fs::read_to_string(victim.join("marker")).unwrap(), "victim");
    let status = fs::metadata(&victim).unwrap();
    assert_eq!((status.uid(), status.mode() & 0o7777), (OWNER + 1, 0o700));
    host.finish();
}

#[test]
fn documents_of_root_or_of_the_systems_users_are_refused() {
    let host = Host::new("");
    let documents = host.site("a.example.com", STATIC);
    for (uid, gid, says) in [
        (0, 0, "root"),
        (0, OWNER, "root"),
        (33, 33, "minimum"),
        (999, OWNER, "minimum"),
        (OWNER, 0, "minimum"),
        (OWNER, 42, "minimum"),
    ] {
        chown(&documents, Some(uid), Some(gid)).unwrap();
        let answer = host.verb("a.example.com", "start");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status >= 400, "{uid}:{gid} was started: {text}");
        assert!(
            text.contains(says) || text.contains("minimum"),
            "{uid}:{gid}: {text}"
        );
        assert_eq!(host.snapshot().processes.len(), 0, "{uid}:{gid}");
    }
    // Nor does `user` lead around it.
    for rest in [
        "user = \"root\"",
        "user = \"0:0\"",
        "user = \"33:33\"",
        "user = \"www-data\"",
    ] {
        let text = format!(
            "name = \"b.example.com\"\nowner = \"acme\"\ndocuments = {:?}\n{rest}\n{STATIC}",
            documents.display().to_string()
        );
        fs::write(host.dir.join("vhosts.d/b.example.com.toml"), text).unwrap();
        harness::wait_for("it is refused", harness::seconds(5), || {
            let answer = host.verb("b.example.com", "start");
            assert_ne!(answer.status, 200, "{rest}");
            // Either the definition or the start is.
            !host.problems().is_empty() || String::from_utf8_lossy(&answer.body).contains("minimum")
        });
    }
    fs::remove_file(host.dir.join("vhosts.d/b.example.com.toml")).unwrap();
    chown(&documents, Some(OWNER), Some(OWNER)).unwrap();
    assert_eq!(host.verb("a.example.com", "start").status, 200);
    host.finish();
}

#[test]
fn setuid_bits_of_the_documents_directory_change_nothing() {
    let host = Host::new("");
    let documents = host.site("a.example.com", STATIC);
    fs::set_permissions(&documents, fs::Permissions::from_mode(0o6777)).unwrap();
    let status = host.verb("a.example.com", "start").json();
    let process = fs::read_to_string(format!("/proc/{}/status", status["pid"])).unwrap();
    let ids = |name: &str| {
        process
            .lines()
            .find(|l| l.starts_with(name))
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .to_owned()
    };
    assert_eq!(ids("Uid:"), status["uid"].to_string());
    assert_eq!(ids("CapEff:"), "0000000000000000");
    host.finish();
}

#[test]
fn a_template_that_is_not_roots_is_refused() {
    let host = Host::new("");
    let template = host.dir.join("template");
    fs::create_dir_all(template.join("usr/bin")).unwrap();
    fs::copy("/usr/bin/busybox", template.join("usr/bin/busybox")).unwrap();
    let documents = host.documents("a.example.com");
    host.define(
        "a.example.com",
        &format!(
            "owner = \"acme\"\ndocuments = {:?}\ntemplate = {:?}\n{STATIC}",
            documents.display().to_string(),
            template.display().to_string()
        ),
    );
    for (uid, mode) in [(OWNER, 0o755), (0, 0o777), (0, 0o775)] {
        chown(&template, Some(uid), Some(0)).unwrap();
        fs::set_permissions(&template, fs::Permissions::from_mode(mode)).unwrap();
        let answer = host.verb("a.example.com", "start");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(
            answer.status >= 400 && text.contains("template"),
            "{uid} {mode:o}: {} {text}",
            answer.status
        );
    }
    chown(&template, Some(0), Some(0)).unwrap();
    fs::set_permissions(&template, fs::Permissions::from_mode(0o755)).unwrap();
    // Done by hand, so the failures before do not count.
    assert_eq!(host.verb("a.example.com", "up").status, 200);
    assert_eq!(host.get("a.example.com", "/index.html").status, 200);
    host.finish();
}
