//! I/O of all sites of an owner together: kept on cgroup v2, refused on v1.

use harness::skip;

use super::*;

/// Whether the I/O controller is cgroup v1, whose limits of a group do not hold for those below it.
fn is_v1() -> bool {
    cgroup_roots().iter().any(|root| {
        Path::new(root)
            .join("blkio.throttle.write_bps_device")
            .exists()
            || root.contains("blkio")
    })
}

/// Bytes per second that each of these sites writes while the others do.
fn writing<const N: usize>(host: &Host, sites: [&str; N]) -> [f64; N] {
    let upstreams = sites.map(|site| host.dispatch(site).upstream());
    std::thread::scope(|scope| {
        let each = upstreams.each_ref().map(|upstream| {
            scope.spawn(move || {
                let answer = harness::http::get(upstream, "/write/5000", seconds(120)).unwrap();
                let said = String::from_utf8_lossy(&answer.body).into_owned();
                said.trim().parse().unwrap_or_else(|_| panic!("{said}"))
            })
        });
        each.map(|thread| thread.join().unwrap())
    })
}

/// All together write as much as the budget lets them, within 10 %; what was kept from running is measured again.
fn together<const N: usize>(host: &Host, sites: [&str; N], expected: f64) {
    let mut last = 0.0;
    for _ in 0..3 {
        let rates = writing(host, sites);
        // As much each, until the slowest was done.
        last = N as f64 * rates.iter().copied().fold(f64::INFINITY, f64::min);
        println!(
            "{rates:.0?} bytes/s: {:.3} MB/s of {:.0}",
            last / 1e6,
            expected / 1e6
        );
        if (last / expected - 1.0).abs() <= 0.1 {
            return;
        }
    }
    panic!("{last:.0} bytes/s instead of {expected:.0}");
}

#[test]
fn all_sites_together_write_no_more_than_the_budget() {
    let host = host();
    if is_v1() {
        skip("cgroup v1 keeps no I/O budget");
        return host.finish();
    }
    for site in [A, B] {
        inside::put(&host.documents(site));
        inside::put_a_file(&host, site);
        define(&host, site, "acme", inside::CHECKER);
    }
    // There before the first of them starts.
    ctl(&host, &["owner", "budget", "acme", "io.write=2MB/s"]);
    let answer = host.dispatch(A);
    if answer.status != 200 && String::from_utf8_lossy(&answer.body).contains("no block device") {
        skip("this directory's file system is on no disk");
        return host.finish();
    }
    assert_eq!(answer.status, 200, "{}", answer.json());
    together(&host, [A], 2e6);
    together(&host, [A, B], 2e6);
    let before = [A, B].map(|site| host.status(site)["pid"].clone());
    let said = ctl(
        &host,
        &[
            "owner",
            "budget",
            "acme",
            "io.write=5MB/s",
            "io.read_iops=1000",
        ],
    );
    assert!(said.contains("2MB/s → 5MB/s"), "{said}");
    together(&host, [A, B], 5e6);
    let in_force = || owner(&host, "acme")["in_force"]["io"].clone();
    assert_eq!(in_force(), json!({"write": "5MB/s", "read_iops": 1000}));
    // A site's own limit holds below it.
    ctl(&host, &["set", B, "io.write=1MB/s"]);
    together(&host, [B], 1e6);
    ctl(&host, &["set", B, "io.write=default"]);
    // Somebody else writes there: it is told and mended.
    let told = file(&host, "acme", ["io.max", "io.max"]).unwrap();
    let device = told.split_whitespace().next().unwrap().to_owned();
    let lifted = format!("{device} wbps=max");
    harness::limits::by_hand(&host, "acme", ["io.max", "io.max"], &lifted);
    let drift = host.status(A)["drift"].clone();
    assert_eq!(
        (&drift[0]["key"], &drift[0]["wanted"], &drift[0]["found"]),
        (&json!("owner.io.write"), &json!("5MB/s"), &json!("max")),
        "{drift}"
    );
    ctl(&host, &["set", A, "--mend"]);
    assert_eq!(in_force(), json!({"write": "5MB/s", "read_iops": 1000}));
    // The next agent keeps it, and takes it back when it is told to.
    host.crash_and_restart();
    wait_for("taken over", seconds(10), || {
        owner(&host, "acme")["usage"]["awake"] == 2
    });
    assert_eq!(in_force()["write"], "5MB/s");
    ctl(&host, &["owner", "budget", "acme", "io.write=3MB/s"]);
    assert_eq!(in_force(), json!({"write": "3MB/s", "read_iops": 1000}));
    ctl(
        &host,
        &["owner", "budget", "acme", "io.write=", "io.read_iops=max"],
    );
    assert_eq!(in_force(), Value::Null);
    assert_eq!([A, B].map(|site| host.status(site)["pid"].clone()), before);
    host.finish();
}

#[test]
fn agent_toml_gives_budgets_of_io_and_who_is_no_more_given_one_is_free() {
    let io = "io = { write = \"4MB/s\", write_iops = 50 }";
    let host = Host::new(&format!("[budget]\n{io}\n[owner.acme]\nuid = {ACME}\n"));
    define(&host, A, "acme", harness::STATIC);
    let view = owner(&host, "acme");
    let problems = host.problems();
    if is_v1() {
        assert_eq!(view["budget"]["io"], Value::Null);
        assert!(
            problems.len() == 1 && problems[0].contains("cgroup v1"),
            "{problems:?}"
        );
        assert_eq!(host.dispatch(A).status, 200);
        return host.finish();
    }
    assert!(problems.is_empty(), "{problems:?}");
    let answer = host.dispatch(A);
    if answer.status != 200 && String::from_utf8_lossy(&answer.body).contains("no block device") {
        skip("this directory's file system is on no disk");
        return host.finish();
    }
    let wanted = json!({"write": "4MB/s", "write_iops": 50});
    let in_force = || owner(&host, "acme")["in_force"]["io"].clone();
    assert_eq!(in_force(), wanted);
    // The group lives on for some seconds; what it was told is known.
    assert_eq!(host.verb(A, "stop").status, 200);
    ctl(
        &host,
        &[
            "owner",
            "budget",
            "acme",
            "io.write=max",
            "io.write_iops=max",
        ],
    );
    assert_eq!(host.dispatch(A).status, 200);
    assert_eq!(in_force(), Value::Null);
    ctl(
        &host,
        &["owner", "budget", "acme", "io.write=", "io.write_iops="],
    );
    assert_eq!(in_force(), wanted);
    // An agent to which nobody says anything of this owner finds it on the group, and lifts it.
    host.signal_agent(libc::SIGKILL);
    fs::write(host.dir.join("agent.toml"), "").unwrap();
    fs::remove_file(host.dir.join("state/owners/acme.json")).unwrap();
    host.start();
    wait_for("nothing is bounded", seconds(10), || {
        let text = file(&host, "acme", ["io.max", "io.max"]).unwrap();
        text.trim().is_empty()
    });
    host.finish();
}

#[test]
fn where_the_kernel_cannot_keep_it_nobody_is_given_one() {
    let host = host();
    if !is_v1() {
        return host.finish();
    }
    define(&host, A, "acme", harness::STATIC);
    for dry_run in [true, false] {
        let words = [
            "owner",
            "budget",
            "acme",
            "cpu=50%",
            "io.write=2MB/s",
            "--dry-run",
        ];
        let output = host.ctl(&words[..if dry_run { 6 } else { 5 }]);
        let said = text(&output);
        assert!(
            !output.status.success() && said.contains("cgroup v1") && said.contains("below it"),
            "{said}"
        );
    }
    assert_eq!(owner(&host, "acme")["budget"]["cpu"], Value::Null);
    // Nothing is asked for by "max".
    ctl(&host, &["owner", "budget", "acme", "io.write=max"]);
    let page = text(&host.ctl(&["doctor"]));
    assert!(page.contains("I/O budgets"), "{page}");
    host.finish();
}
