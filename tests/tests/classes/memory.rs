//! Memory guarantees: kept through all levels on cgroup v2, refused on v1.

use super::*;

const SIZE: u64 = 16 << 20;

fn is_v2(host: &Host) -> bool {
    let answer = host.request("GET", "/v1/status", b"").json();
    answer["promises"]["memory"].is_object()
}

#[test]
fn where_the_kernel_cannot_guarantee_memory_nobody_promises_it() {
    let host = Host::new("");
    if is_v2(&host) {
        return host.finish();
    }
    let answer = put(&host, A, "", &json!({"memory_min": "16M"}));
    assert_eq!(answer.status, 409);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("cgroup v1") && detail.contains("leave memory_min out"),
        "{detail}"
    );
    // One that is there already is no reason not to serve the site.
    let documents = host.documents(A);
    let definition = Host::definition(
        &documents,
        &format!("{STATIC}[limits]\nmemory_min = \"16M\"\n"),
    );
    fs::write(
        host.dir.join("vhosts.d/a.example.com.toml"),
        format!("name = {A:?}\n{definition}"),
    )
    .unwrap();
    wait_for("it is reported", seconds(10), || host.problems().len() == 1);
    assert_eq!(host.dispatch(A).status, 200);
    host.finish();
}

/// Page cache of a site.
fn cached(host: &Host, site: &str) -> u64 {
    let stat = file(host, &format!("acme/{site}"), &["memory.stat"]).unwrap();
    let file = stat.lines().find_map(|line| line.strip_prefix("file "));
    file.unwrap().parse().unwrap()
}

#[test]
fn guaranteed_memory_is_not_reclaimed() {
    let host = Host::new("");
    if !is_v2(&host) {
        harness::skip("cgroup v1 has no memory guarantee");
        return host.finish();
    }
    // Not more than it uses: the rest would protect its owner's other sites meanwhile (memory_recursiveprot).
    for (site, limits) in [(A, "[limits]\nmemory_min = \"16M\"\n"), (B, "")] {
        define(&host, site, "acme", limits);
        // Not there before the site reads it: whoever brings a page in pays for it.
        let documents = host.documents(site);
        let file = documents.join("big");
        fs::write(&file, vec![b'x'; usize::try_from(SIZE).unwrap()]).unwrap();
        let opened = fs::File::open(&file).unwrap();
        opened.sync_all().unwrap();
        rustix::fs::fadvise(&opened, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        assert_eq!(host.dispatch(site).status, 200);
        let read = host.ctl(&["exec", site, "--", "/usr/bin/busybox", "cat", "/site/big"]);
        assert!(read.status.success() && read.stdout.len() as u64 == SIZE);
    }
    for group in ["", "acme", "acme/a.example.com"] {
        assert_eq!(
            file(&host, group, &["memory.min"]).unwrap(),
            SIZE.to_string(),
            "{group:?}"
        );
    }
    if [A, B].iter().any(|site| cached(&host, site) < SIZE / 2) {
        harness::skip("this file system keeps no page cache that is charged to its readers");
        return host.finish();
    }
    let reclaim = cgroup_roots().into_iter();
    let mut reclaim = reclaim.map(|root| {
        Path::new(&root)
            .join(&host.cgroup_parent)
            .join("memory.reclaim")
    });
    let Some(reclaim) = reclaim.find(|path| path.exists()) else {
        harness::skip("this kernel has no memory.reclaim");
        return host.finish();
    };
    let before = cached(&host, A);
    // More than there is to be had: it says so, after it has taken what it could.
    let _ = fs::write(&reclaim, (4 * SIZE).to_string());
    let after = [A, B].map(|site| cached(&host, site));
    // Its programs' own memory is guaranteed with it.
    assert!(after[0] > SIZE * 3 / 4, "{before} -> {after:?}");
    assert!(after[1] < SIZE / 4, "{before} -> {after:?}");
    // Without the guarantee it goes the same way.
    assert!(host.ctl(&["set", A, "memory_min=0"]).status.success());
    assert_eq!(
        file(&host, "acme/a.example.com", &["memory.min"]).unwrap(),
        "0"
    );
    assert_eq!(file(&host, "", &["memory.min"]).unwrap(), "0");
    let _ = fs::write(&reclaim, (4 * SIZE).to_string());
    assert!(cached(&host, A) < SIZE / 4);
    host.finish();
}

#[test]
fn what_is_promised_no_more_when_an_agent_starts_is_not_guaranteed_any_more() {
    let host = Host::new("");
    if !is_v2(&host) {
        harness::skip("cgroup v1 has no memory guarantee");
        return host.finish();
    }
    define(&host, A, "acme", "[limits]\nmemory_min = \"16M\"\n");
    assert_eq!(host.dispatch(A).status, 200);
    let groups = ["", "acme", "acme/a.example.com"];
    let guaranteed = || groups.map(|group| file(&host, group, &["memory.min"]).unwrap());
    assert_eq!(guaranteed(), [(); 3].map(|()| SIZE.to_string()));
    host.signal_agent(libc::SIGKILL);
    let path = host.dir.join("vhosts.d/a.example.com.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("memory_min = \"16M\"", "")).unwrap();
    host.start();
    wait_for("nothing is guaranteed", seconds(10), || {
        guaranteed() == [(); 3].map(|()| "0".to_owned())
    });
    host.finish();
}
