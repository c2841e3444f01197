//! Documents on file systems that are unlike a disk, and on such that stop answering.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use harness::{Host, OWNER, STATIC, run, seconds, send_signal, wait_for};

const SITE: &str = "hung.example.com";
const OTHER: &str = "b.example.com";

/// A FUSE file system that shows another directory; SIGSTOP makes it hang.
struct Fuse {
    at: PathBuf,
    daemon: Child,
}

impl Fuse {
    fn new(shown: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        let options = format!(
            "allow_other,force-user={OWNER},force-group={OWNER},entry_timeout=0,attr_timeout=0"
        );
        let mut command = Command::new("bindfs");
        command.args(["-f", "-o", &options]).arg(shown).arg(at);
        let daemon = command
            .spawn()
            .expect("bindfs (a Debian package) is installed");
        let device =
            |path: &Path| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).unwrap());
        wait_for("the file system is mounted", seconds(10), || {
            device(at) != device(shown)
        });
        Self {
            at: at.to_owned(),
            daemon,
        }
    }

    fn signal(&self, signal: i32) {
        send_signal(self.daemon.id(), signal);
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
        run("umount", &["-l", self.at.to_str().unwrap()]);
        // It ends by itself when its last user is gone.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// A host with a site whose documents are at `below` in the file system.
fn host(below: &str) -> (Host, Fuse) {
    let host = Host::new("");
    host.documents(&format!("shown/{below}"));
    let shown = host.dir.join("www/shown");
    let fuse = Fuse::new(&shown, &host.dir.join("fuse"));
    host.site(OTHER, STATIC);
    let times = format!(
        "[start]\ntimeout = \"{}s\"\n[stop]\ntimeout = \"1s\"\n",
        seconds(2).as_secs()
    );
    let documents = fuse.at.join(below);
    host.define(
        SITE,
        &format!("owner = \"acme\"\ndocuments = {documents:?}\n{STATIC}{times}"),
    );
    (host, fuse)
}

fn done(host: Host, fuse: Fuse) {
    host.verb(SITE, "stop");
    drop(fuse);
    host.finish();
}

fn in_time(what: &str, limit: Duration, work: impl FnOnce()) {
    let began = Instant::now();
    work();
    assert!(began.elapsed() < limit, "{what} took {:?}", began.elapsed());
}

/// Everything but the site itself answers as ever.
fn others_are_fine(host: &Host) {
    let ok = |method: &str, path: &str| {
        assert_eq!(host.request(method, path, b"").status, 200, "{path}")
    };
    let ctl = |words: &[&str]| {
        let output = host.ctl(words);
        assert!(output.status.success(), "{output:?}");
    };
    let limit = seconds(1);
    in_time("health", limit, || ok("GET", "/health.html"));
    in_time("status", limit, || ok("GET", "/v1/status"));
    in_time("list", limit, || ok("GET", "/v1/vhosts"));
    in_time("its own status", limit, || {
        ok("GET", &format!("/v1/vhosts/{SITE}"))
    });
    in_time("another site", limit, || {
        assert_eq!(host.get(OTHER, "/").status, 200)
    });
    in_time("another site's stop", limit, || {
        assert_eq!(host.verb(OTHER, "stop").status, 200)
    });
    in_time("another site's cold start", limit, || {
        assert_eq!(host.get(OTHER, "/").status, 200)
    });
    in_time("another site's limits", limit, || {
        ctl(&["set", OTHER, "pids=50"])
    });
    in_time("fastctl list", limit, || ctl(&["list"]));
    in_time("fastctl status", limit, || ctl(&["status", SITE]));
}

#[test]
fn a_file_system_without_mapped_ids_serves() {
    let (host, fuse) = host("site");
    for _ in 0..2 {
        assert_eq!(host.get(SITE, "/").body, b"<h1>shown/site</h1>\n");
        assert_eq!(host.verb(SITE, "stop").json()["state"], "stopped");
    }
    let status = host.status(SITE);
    assert_eq!(
        (status["failures"].as_u64(), status["starts"].as_u64()),
        (Some(0), Some(2))
    );
    done(host, fuse);
}

/// `below` is empty for a site that has the whole file system, whose root the kernel knows without asking.
fn a_start_fails_in_time(below: &str) {
    let (host, fuse) = host(below);
    assert_eq!(host.get(SITE, "/").status, 200);
    assert_eq!(host.verb(SITE, "stop").status, 200);
    fuse.signal(libc::SIGSTOP);
    for _ in 0..2 {
        let began = Instant::now();
        let answer = host.dispatch(SITE);
        assert!(matches!(answer.status, 503 | 504), "{answer:?}");
        // The time of a start, and what the kernel may take to end what is left of it before it counts as stuck.
        let limit = seconds(2) + Duration::from_secs(5) + seconds(2);
        assert!(began.elapsed() < limit, "{:?}", began.elapsed());
        others_are_fine(&host);
    }
    let status = host.status(SITE);
    assert!(
        ["stuck", "failed"].contains(&status["state"].as_str().unwrap()),
        "{status}"
    );
    let why = status["last_failure"].as_str().unwrap();
    assert!(
        [
            "did not answer within",
            "did not listen on",
            "do not die within"
        ]
        .iter()
        .any(|reason| why.contains(reason)),
        "{why}"
    );
    in_time("limits of the site", seconds(8), || {
        drop(host.ctl(&["set", SITE, "pids=40"]))
    });
    in_time("I/O limits of the site", seconds(8), || {
        drop(host.ctl(&["set", SITE, "io.write=2MB/s"]))
    });
    others_are_fine(&host);
    fuse.signal(libc::SIGCONT);
    host.ctl(&["set", SITE, "io.write=default"]);
    wait_for("it serves again", seconds(20), || {
        host.dispatch(SITE).status == 200
    });
    assert_eq!(host.get(SITE, "/").status, 200);
    done(host, fuse);
}

#[test]
fn a_start_on_a_file_system_that_hangs_fails_in_time() {
    a_start_fails_in_time("");
}

#[test]
fn a_start_in_a_directory_that_hangs_fails_in_time() {
    a_start_fails_in_time("site");
}

#[test]
fn a_running_site_whose_storage_hangs_harms_nobody() {
    let (host, fuse) = host("site");
    assert_eq!(host.get(SITE, "/").status, 200);
    let upstream = host.status(SITE)["upstream"].as_str().unwrap().to_owned();
    fuse.signal(libc::SIGSTOP);
    assert!(
        harness::http::get(&upstream, "/", Duration::from_secs(1)).is_err(),
        "its storage hangs"
    );
    others_are_fine(&host);
    // Changing its limits is possible or is refused, in time.
    in_time("limits of the site", seconds(8), || {
        drop(host.ctl(&["set", SITE, "pids=40"]))
    });
    in_time("its stop", seconds(12), || {
        let stopped = host.verb(SITE, "stop");
        assert!(
            stopped.status == 200 || stopped.json()["type"] == "stuck",
            "{stopped:?}"
        );
    });
    others_are_fine(&host);
    // A new agent comes up over it.
    host.crash_and_restart();
    others_are_fine(&host);
    fuse.signal(libc::SIGCONT);
    wait_for("it serves again", seconds(30), || {
        host.dispatch(SITE).status == 200
    });
    assert_eq!(host.get(SITE, "/").status, 200);
    done(host, fuse);
}

#[test]
fn a_site_that_goes_while_its_limits_are_being_changed_is_promised_nothing() {
    let (host, fuse) = host("");
    let set = host.ctl(&["set", SITE, "class=guaranteed", "cpu=20%"]);
    assert!(set.status.success(), "{set:?}");
    let promised =
        || host.request("GET", "/v1/status", b"").json()["promises"]["cpu"]["promised"].clone();
    assert_eq!(promised(), "20%");
    let socket = host.socket();
    fuse.signal(libc::SIGSTOP);
    std::thread::scope(|threads| {
        // Until it is clear that the storage does not answer.
        let set = threads.spawn(|| {
            let path = format!("/v1/vhosts/{SITE}/limits");
            let body = br#"{"cpu": "10%", "disk": "1G"}"#;
            harness::http::request(&socket, "PATCH", &path, body).unwrap()
        });
        std::thread::sleep(Duration::from_millis(500));
        let path = format!("/v1/vhosts/{SITE}");
        assert_eq!(host.request("DELETE", &path, b"").status, 200);
        assert_ne!(set.join().unwrap().status, 200);
    });
    wait_for("nothing is promised", seconds(10), || promised() == "0%");
    assert!(!host.dir.join(format!("state/vhosts/{SITE}.json")).exists());
    drop(fuse);
    host.finish();
}
