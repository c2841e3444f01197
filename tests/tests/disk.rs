//! Limits of disk space, as the site itself and others on its file system feel them.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::inside::{ask, checker, site};
use harness::limits::{SITE, events, patch, set, text};
use harness::quotas::Quotas;
use harness::sites::put;
use harness::{Host, OWNER, STATIC, http, run, seconds, wait_for};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

fn used(host: &Host) -> u64 {
    host.status(SITE)["usage"]["disk_bytes"].as_u64().unwrap()
}

/// Writes until it is refused: all of the limit is used, and nothing more.
fn fill_up(host: &Host, limit: u64) {
    let said = ask(host, SITE, "fill/40000", 300);
    let (_, errno) = said.split_once(' ').unwrap();
    assert!(
        [libc::EDQUOT, libc::ENOSPC]
            .map(|e| e.to_string())
            .contains(&errno.to_owned()),
        "{said}"
    );
    let used = used(host);
    assert!(
        used <= limit && limit - used < 16 << 10,
        "{used} of {limit}: {said}"
    );
}

/// Project and flags of a file, as the kernel says.
fn project(path: &Path) -> (u32, bool) {
    let said = run("lsattr", &["-pd", path.to_str().unwrap()]);
    let mut words = said.split_whitespace();
    let id = words.next().unwrap().parse().unwrap();
    (id, words.next().unwrap().contains('P'))
}

/// 25 MB, as the site's owner writes them from outside: whether all of it has found room, and how much did.
fn upload(documents: &Path, name: &str) -> (bool, u64) {
    let path = documents.join(name);
    let script = format!("head -c 25M /dev/zero > {}", path.display());
    let done = Command::new("/bin/sh")
        .args(["-c", &script])
        .uid(OWNER)
        .gid(OWNER)
        .status();
    (done.unwrap().success(), fs::metadata(path).unwrap().len())
}

fn kept(host: &Host, name: &str) -> Option<Value> {
    let path = host.dir.join(format!("state/disk/{name}.json"));
    fs::read(path)
        .ok()
        .map(|text| serde_json::from_slice(&text).unwrap())
}

#[test]
fn where_there_are_no_quotas_it_is_refused_before_anything_changes() {
    let host = Host::new("");
    let documents = site(&host, SITE, "");
    for running in [false, true] {
        if running {
            assert_eq!(host.dispatch(SITE).status, 200);
        }
        let before = host.status(SITE);
        let answer = patch(&host, &json!({"pids": 50, "disk": "5G"}));
        let said = answer.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 409, "{said}");
        for part in [
            format!("cannot limit disk of {SITE}: "),
            format!("{} is on ", documents.display()),
            "without project quotas; ".to_owned(),
        ] {
            assert!(said.contains(&part), "{said}");
        }
        let after = host.status(SITE);
        assert_eq!(
            (&before["limits"], &before["pid"]),
            (&after["limits"], &after["pid"])
        );
        assert_eq!(after["overrides"], json!({}));
        // Asked only, it is refused as it would be.
        let asked = host.ctl(&["set", SITE, "pids=50", "disk=5G", "--dry-run"]);
        let (dry, bare) = (text(&asked), said.split(": ").last().unwrap());
        assert!(!asked.status.success() && dry.contains(bare), "{dry}");
        let asked = host.ctl(&["set", SITE, "pids=50", "disk=max", "--dry-run"]);
        assert!(asked.status.success(), "{}", text(&asked));
        // There is nothing to be lifted.
        set(&host, &["disk=max"]);
        set(&host, &["disk=default"]);
    }
    // One that says so in its definition does not start, and says why.
    host.site(
        "b.example.com",
        &format!("{STATIC}[limits]\ndisk = \"5G\"\n"),
    );
    assert_eq!(host.dispatch("b.example.com").status, 503);
    let why = host.status("b.example.com")["last_failure"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(why.contains("cannot limit disk of b.example.com"), "{why}");
    assert!(kept(&host, SITE).is_none() && kept(&host, "b.example.com").is_none());
    host.finish();
}

#[test]
fn holds_exactly_at_start_and_changed_live_and_the_tenant_cannot_leave() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        return host.finish();
    };
    // What was there before counts too; where links lead does not.
    let documents = host.documents(SITE);
    let deep = documents.join("a/b/c");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("old"), vec![1; MIB as usize]).unwrap();
    let outside = host.dir.join("www/outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "not the site's").unwrap();
    symlink(&outside, documents.join("link")).unwrap();
    symlink(outside.join("file"), deep.join("link")).unwrap();
    site(&host, SITE, "[limits]\ndisk = \"24M\"\n");
    assert_eq!(host.dispatch(SITE).status, 200);
    let entry = kept(&host, SITE).unwrap();
    let id = u32::try_from(entry["project"].as_u64().unwrap()).unwrap();
    for path in [&documents, &deep] {
        assert_eq!(project(path), (id, true));
    }
    assert_eq!(project(&deep.join("old")).0, id);
    for path in [&outside, &outside.join("file")] {
        assert_eq!(project(path), (0, false));
    }
    let status = host.status(SITE);
    assert_eq!(status["limits"]["disk"], "24M");
    assert!(used(&host) > MIB);

    fill_up(&host, 24 * MIB);
    wait_for("it is told", seconds(20), || {
        events(&host, "disk_full")
            .iter()
            .any(|event| (&event["limit"], &event["amount"]) == (&json!("24M"), &json!(1)))
    });
    let said = set(&host, &["disk=28M"]);
    assert!(said.contains("24M") && said.contains("28M"), "{said}");
    fill_up(&host, 28 * MIB);
    // Not its neighbour's concern, who is on the same file system.
    site(&host, "b.example.com", "[limits]\ndisk = \"16M\"\n");
    assert_eq!(ask(&host, "b.example.com", "fill/1024", 60), "1048576 0");
    assert_ne!(
        kept(&host, "b.example.com").unwrap()["project"],
        entry["project"]
    );

    // Below what is in use is refused, and what was in force stays.
    let answer = patch(&host, &json!({"disk": "20M", "pids": 60}));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 409, "{detail}");
    assert!(
        detail.contains("20M is below the 2")
            && detail.contains("in use; raise it or remove files"),
        "{detail}"
    );
    let limits = host.status(SITE)["limits"].clone();
    assert_eq!(
        (&limits["disk"], &limits["pids"]),
        (&json!("28M"), &status["limits"]["pids"])
    );
    let asked = host.ctl(&["set", SITE, "disk=20M", "--dry-run"]);
    let dry = text(&asked);
    assert!(
        !asked.status.success() && dry.contains("20M is below the 2"),
        "{dry}"
    );
    // Other limits of a site that is full can be set.
    set(&host, &["pids=60"]);

    // From inside: to none, to another, to not handing it down.
    let einval = libc::EINVAL.to_string();
    assert_eq!(
        ask(&host, SITE, "escape", 30),
        // A file has nothing to hand down.
        format!("{} 0", [einval.as_str(); 5].join(" "))
    );
    assert_eq!(project(&documents), (id, true));
    assert_eq!(project(&documents.join("fill")).0, id);
    // It is the user namespace that forbids it: outside the same calls of the same user work.
    let own = outside.join("own");
    fs::write(&own, "").unwrap();
    chown(&own, Some(OWNER), Some(OWNER)).unwrap();
    fs::set_permissions(
        &outside,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let free = Command::new(checker())
        .arg("escape")
        .arg(&own)
        .uid(OWNER)
        .gid(OWNER)
        .output();
    assert_eq!(
        String::from_utf8(free.unwrap().stdout).unwrap().trim(),
        "0 0 0"
    );

    // Down, live, once there is room; then none at all.
    assert_eq!(ask(&host, SITE, "empty", 30), "empty");
    set(&host, &["disk=22M"]);
    fill_up(&host, 22 * MIB);
    set(&host, &["disk=max"]);
    assert_eq!(ask(&host, SITE, "fill/4096", 60), format!("{} 0", 4 * MIB));
    let after = host.status(SITE);
    assert_eq!(
        (&after["pid"], &after["limits"]["disk"]),
        (&status["pid"], &Value::Null)
    );
    host.verb(SITE, "down");
    host.verb("b.example.com", "down");
    drop(quotas);
    host.finish();
}

#[test]
fn outlives_agent_and_sleep_and_goes_with_the_vhost() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        return host.finish();
    };
    let definition = "[limits]\ndisk = \"24M\"\n";
    let documents = site(&host, SITE, definition);
    assert_eq!(host.dispatch(SITE).status, 200);
    let id = project(&documents).0;
    host.crash_and_restart();
    assert_eq!(host.status(SITE)["limits"]["disk"], "24M");
    fill_up(&host, 24 * MIB);
    assert_eq!(ask(&host, SITE, "empty", 30), "empty");

    // A definition that is broken when the agent starts is not gone.
    let file = host.dir.join(format!("vhosts.d/{SITE}.toml"));
    let good = fs::read_to_string(&file).unwrap();
    host.signal_agent(libc::SIGTERM);
    fs::write(&file, "name = ").unwrap();
    host.start();
    assert_eq!(kept(&host, SITE).unwrap()["project"], id);
    let (complete, bytes) = upload(&documents, "upload");
    assert!(!complete && bytes < 24 * MIB, "{bytes}");
    fs::remove_file(documents.join("upload")).unwrap();
    fs::write(&file, good).unwrap();
    wait_for("it is in force again", seconds(10), || {
        host.dispatch(SITE).status == 200
    });
    assert_eq!(project(&documents), (id, true));

    // It holds while the site sleeps, for whoever writes there then.
    host.verb(SITE, "stop");
    set(&host, &["disk=20M"]);
    let (complete, bytes) = upload(&documents, "upload");
    assert!(!complete && bytes < 20 * MIB, "{bytes}");
    fs::remove_file(documents.join("upload")).unwrap();

    // Another directory at the same place is labelled at the next start, with the same project.
    fs::rename(&documents, host.dir.join("www/old")).unwrap();
    fs::create_dir(&documents).unwrap();
    chown(&documents, Some(OWNER), Some(OWNER)).unwrap();
    for name in ["checker", "index.html"] {
        let new = documents.join(name);
        fs::copy(host.dir.join("www/old").join(name), &new).unwrap();
        chown(&new, Some(OWNER), Some(OWNER)).unwrap();
    }
    put(&documents, "new", "new");
    fs::remove_dir_all(host.dir.join("www/old")).unwrap();
    assert_eq!(project(&documents), (0, false));
    assert_eq!(host.dispatch(SITE).status, 200);
    assert_eq!(project(&documents), (id, true));
    assert_eq!(project(&documents.join("new")).0, id);
    fill_up(&host, 20 * MIB);

    // A site inside a site: whose would the files be?
    let inner = documents.join("inner");
    fs::create_dir(&inner).unwrap();
    chown(&inner, Some(OWNER), Some(OWNER)).unwrap();
    let text = Host::definition(&inner, &format!("{STATIC}{definition}"));
    host.define("inner.example.com", &text);
    assert_eq!(host.dispatch("inner.example.com").status, 503);
    let why = host.status("inner.example.com")["last_failure"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        why.contains(&format!("inside, the documents of {SITE}")),
        "{why}"
    );

    // With the vhost its limit goes, and nobody gets its project while files have it.
    assert_eq!(ask(&host, SITE, "empty", 30), "empty");
    fs::remove_file(host.dir.join(format!("vhosts.d/{SITE}.toml"))).unwrap();
    wait_for("its limit is lifted", seconds(20), || {
        kept(&host, SITE).is_none()
    });
    assert_eq!(upload(&documents, "upload"), (true, 25 * MIB));
    site(&host, "c.example.com", definition);
    assert_eq!(host.dispatch("c.example.com").status, 200);
    assert_ne!(project(&host.dir.join("www/c.example.com")).0, id);
    host.verb("c.example.com", "down");
    drop(quotas);
    host.finish();
}

/// How long it took to go through a site's documents.
fn walked(host: &Host, name: &str) -> Option<f64> {
    let log = host.log();
    let lines = log.lines();
    let mut lines = lines.filter(|line| line.contains("are counted for its disk limit"));
    let line = lines.find(|line| line.contains(&format!("{name}: ")))?;
    let (_, took) = line.rsplit_once('(')?;
    took.trim_end_matches(" s)").parse().ok()
}

#[test]
fn many_documents_take_no_start_its_time_and_the_limit_holds_from_the_first() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        return host.finish();
    };
    let limited = "[limits]\ndisk = \"100M\"\n";
    site(&host, SITE, limited);
    // Three times what one takes whose documents are counted already.
    let once = || {
        host.verb(SITE, "stop");
        let began = Instant::now();
        assert_eq!(host.dispatch(SITE).status, 200);
        began.elapsed()
    };
    once();
    let start = (3 * once().max(once())).max(Duration::from_millis(300));
    // More and more, until going through them takes longer than a start may.
    let enough = [6_000, 24_000, 50_000].into_iter().any(|files| {
        let name = format!("n{files}.example.com");
        let documents = host.documents(&name);
        fs::create_dir(documents.join("many")).unwrap();
        for number in 0..files {
            fs::File::create(documents.join(format!("many/{number}"))).unwrap();
        }
        let limit = format!("[start]\ntimeout = \"{}ms\"\n{limited}", start.as_millis());
        site(&host, &name, &limit);
        let early = std::thread::scope(|scope| {
            let (socket, body) = (host.socket(), json!({"vhost": name}).to_string());
            let dispatch = scope.spawn(move || {
                http::request(&socket, "POST", "/v1/dispatch", body.as_bytes())
                    .unwrap()
                    .status
            });
            // ext4 tells in a project's directories how large the project may be.
            let limit_is_set = || {
                let fs = rustix::fs::statvfs(&documents).unwrap();
                fs.f_blocks * fs.f_frsize == 100 * MIB
            };
            wait_for("the limit is set", seconds(120), || {
                limit_is_set() || dispatch.is_finished()
            });
            let early = limit_is_set() && walked(&host, &name).is_none();
            assert_eq!(dispatch.join().unwrap(), 200, "of {files} files");
            early
        });
        let took = walked(&host, &name).unwrap();
        host.verb(&name, "down");
        let long = took > start.as_secs_f64();
        assert!(
            early || !long,
            "no limit while {files} files are gone through"
        );
        long
    });
    assert!(enough, "no walk took longer than {start:?}");
    host.verb(SITE, "down");
    drop(quotas);
    host.finish();
}

#[test]
fn an_agent_without_resources_counts_what_is_more_than_the_limit() {
    // Quotas hold for it too: what is above a limit cannot be given to a project while that has it.
    let resources = rustix::thread::CapabilitySet::SYS_RESOURCE;
    rustix::thread::remove_capability_from_bounding_set(resources).unwrap();
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        return host.finish();
    };
    let documents = site(&host, SITE, "");
    put(&documents, "old", &"x".repeat(6 << 20));
    for running in [false, true] {
        if running {
            assert_eq!(host.dispatch(SITE).status, 200);
        }
        let refused = patch(&host, &json!({"disk": "4M"}));
        let why = refused.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(refused.status, 409, "{why}");
        assert!(why.contains("4M is below"), "{why}");
    }
    host.verb(SITE, "stop");
    site(&host, SITE, "[limits]\ndisk = \"4M\"\n");
    assert_eq!(host.dispatch(SITE).status, 200);
    let id = u32::try_from(kept(&host, SITE).unwrap()["project"].as_u64().unwrap()).unwrap();
    assert_eq!(project(&documents.join("old")).0, id);
    let (complete, bytes) = upload(&documents, "upload");
    assert!(!complete && bytes == 0, "{bytes}");
    host.verb(SITE, "down");
    drop(quotas);
    host.finish();
}

#[test]
fn xfs_holds_it_too() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "xfs") else {
        return host.finish();
    };
    let documents = site(&host, SITE, "[limits]\ndisk = \"24M\"\n");
    put(&documents, "old", &"x".repeat(100_000));
    let before = host.status(SITE)["pid"].clone();
    fill_up(&host, 24 * MIB);
    assert_ne!(host.status(SITE)["pid"], before);
    let pid = host.status(SITE)["pid"].clone();
    set(&host, &["disk=28M"]);
    fill_up(&host, 28 * MIB);
    assert_eq!(patch(&host, &json!({"disk": "20M"})).status, 409);
    let einval = libc::EINVAL.to_string();
    let escaped = ask(&host, SITE, "escape", 30);
    assert!(
        escaped.starts_with(&format!("{einval} {einval}")),
        "{escaped}"
    );
    fill_up(&host, 28 * MIB);
    set(&host, &["disk=max"]);
    assert_eq!(ask(&host, SITE, "fill/4096", 60), format!("{} 0", 4 * MIB));
    assert_eq!(host.status(SITE)["pid"], pid);
    host.verb(SITE, "down");
    drop(quotas);
    host.finish();
}
