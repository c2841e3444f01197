//! CPU shares as sites get them, by the kernel's own counters.

use std::time::{Duration, Instant};

use harness::limits::first_of_all;
use harness::time_scale;

use super::*;

/// Serves, and then spins for ever.
const SPINS: &str = r#"
command = ["/usr/bin/busybox", "sh", "-c", "/usr/bin/busybox httpd -p 8080 -h /site; while :; do :; done"]
listen = "tcp:8080"
"#;

/// CPU time of a group so far, from the kernel.
fn used(host: &Host, group: &str) -> Duration {
    if let Some(nanos) = file(host, group, ["cpuacct.usage", "cpuacct.usage"]) {
        return Duration::from_nanos(nanos.trim().parse().unwrap());
    }
    for root in cgroup_roots() {
        let path = Path::new(&root)
            .join(&host.cgroup_parent)
            .join(group)
            .join("cpu.stat");
        let stat = fs::read_to_string(path).unwrap_or_default();
        if let Some(usec) = stat
            .lines()
            .find_map(|line| line.strip_prefix("usage_usec "))
        {
            return Duration::from_micros(usec.parse().unwrap());
        }
    }
    panic!("nobody counts the CPU time of {group}");
}

/// What each of acme's sites gets over `time`, in percent of a core.
fn rates<const N: usize>(host: &Host, sites: [&str; N], time: Duration) -> [f64; N] {
    let now = || sites.map(|site| used(host, &format!("acme/{site}")));
    let (began, before) = (Instant::now(), now());
    // A measurement takes its time: there is nothing to wait for but that.
    std::thread::sleep(time);
    let (after, took) = (now(), began.elapsed());
    std::array::from_fn(|i| (after[i] - before[i]).as_secs_f64() / took.as_secs_f64() * 100.0)
}

/// The three sites get these parts of a budget of `budget` percent of a core, within 2 points of the budget. More is never
/// right; less is measured again, as others may have kept the processors busy.
fn parts(host: &Host, what: &str, budget: f64, expected: [f64; 3]) {
    let mut last = [0.0; 3];
    for _ in 0..5 {
        last = rates(host, [A, B, C], Duration::from_secs(2)).map(|rate| rate / budget * 100.0);
        println!("{what}: {last:.1?} of {expected:?} % of the budget");
        let over = last
            .iter()
            .zip(expected)
            .any(|(got, want)| *got > want + 2.0);
        assert!(
            !over,
            "{what}: {last:.1?} % instead of {expected:?} % of the budget"
        );
        if last
            .iter()
            .zip(expected)
            .all(|(got, want)| *got >= want - 2.0)
        {
            return;
        }
    }
    panic!(
        "{what}: only {last:.1?} % instead of {expected:?} % of the budget\n{}",
        owner(host, "acme")
    );
}

fn spinners(host: &Host) -> [Value; 3] {
    first_of_all(host);
    for site in [A, B, C] {
        define(host, site, "acme", SPINS);
    }
    ctl(
        host,
        &[
            "owner",
            "budget",
            "acme",
            "cpu=60%",
            "memory=1G",
            "sites=20",
            "starts=4",
        ],
    );
    for site in [A, B, C] {
        assert_eq!(host.dispatch(site).status, 200);
    }
    [A, B, C].map(|site| host.status(site)["pid"].clone())
}

fn pids(host: &Host) -> [Value; 3] {
    [A, B, C].map(|site| host.status(site)["pid"].clone())
}

#[test]
fn hard_shares_are_kept_whoever_sleeps_and_whoever_else_spins() {
    let host = host();
    let before = spinners(&host);
    let said = ctl(
        &host,
        &[
            "owner",
            "split",
            "acme",
            "--hard",
            &format!("{A}=20%"),
            &format!("{B}=5%"),
            &format!("{C}=75%"),
        ],
    );
    assert!(said.contains("hard") && said.contains("75%"), "{said}");
    parts(&host, "hard", 60.0, [20.0, 5.0, 75.0]);
    ctl(&host, &["signal", C, "stop"]);
    parts(&host, "hard, c sleeps", 60.0, [20.0, 5.0, 0.0]);
    ctl(&host, &["signal", C, "cont"]);
    define(&host, OTHER, "bolt", SPINS);
    assert_eq!(host.dispatch(OTHER).status, 200);
    parts(&host, "hard, beside bolt", 60.0, [20.0, 5.0, 75.0]);
    // Another budget, live, below and above.
    ctl(&host, &["owner", "budget", "acme", "cpu=40%"]);
    parts(&host, "hard, 40 %", 40.0, [20.0, 5.0, 75.0]);
    ctl(&host, &["owner", "budget", "acme", "cpu=60%"]);
    parts(&host, "hard, 60 % again", 60.0, [20.0, 5.0, 75.0]);
    // Of a site's own limit and its part, the lower one counts.
    ctl(&host, &["set", C, "cpu=12%"]);
    parts(&host, "hard, c limits itself", 60.0, [20.0, 5.0, 20.0]);
    assert_eq!(host.status(C)["limits"]["cpu"], "12%");
    ctl(&host, &["set", C, "cpu=90%"]);
    assert_eq!(host.status(C)["limits"]["cpu"], "45%");
    assert_eq!(pids(&host), before);
    host.finish();
}

#[test]
fn what_sleeps_is_lent_and_given_back_at_once() {
    let host = host();
    let before = spinners(&host);
    ctl(
        &host,
        &[
            "owner",
            "split",
            "acme",
            "--lending",
            &format!("{A}=20%"),
            &format!("{B}=5%"),
            &format!("{C}=75%"),
        ],
    );
    parts(&host, "lending", 60.0, [20.0, 5.0, 75.0]);
    ctl(&host, &["signal", C, "stop"]);
    let quota = |site: &str| {
        let view = owner(&host, "acme");
        let sites = view["sites"].as_array().unwrap().clone();
        let of = sites.into_iter().find(|s| s["vhost"] == site).unwrap()["cpu"].clone();
        of.as_str()
            .unwrap()
            .trim_end_matches('%')
            .parse::<f64>()
            .unwrap()
    };
    wait_for("c's part is lent", seconds(5), || quota(A) > 45.0);
    parts(&host, "lending, c sleeps", 60.0, [80.0, 20.0, 0.0]);
    define(&host, OTHER, "bolt", SPINS);
    assert_eq!(host.dispatch(OTHER).status, 200);
    parts(
        &host,
        "lending, c sleeps, beside bolt",
        60.0,
        [80.0, 20.0, 0.0],
    );
    for _ in 0..3 {
        ctl(&host, &["signal", C, "cont"]);
        let woken = Instant::now();
        let first = rates(&host, [A, B, C], Duration::from_millis(200));
        let then = rates(
            &host,
            [A, B, C],
            Duration::from_millis(1000) * time_scale().min(4),
        );
        println!(
            "c woke: in the first 200 ms {:.1?} %, then {:.1?} % of the budget ({:?} in all)",
            first.map(|r| r / 0.6),
            then.map(|r| r / 0.6),
            woken.elapsed()
        );
        assert!(then[2] / 0.6 >= 71.0, "c has {then:.1?} % of a core");
        ctl(&host, &["signal", C, "stop"]);
        wait_for("c's part is lent again", seconds(5), || quota(A) > 45.0);
    }
    ctl(&host, &["signal", C, "cont"]);
    parts(&host, "lending, all awake", 60.0, [20.0, 5.0, 75.0]);
    host.crash_and_restart();
    parts(&host, "after a crash", 60.0, [20.0, 5.0, 75.0]);
    assert_eq!(owner(&host, "acme")["split"]["kind"], "lending");
    ctl(&host, &["signal", C, "stop"]);
    wait_for("c's part is lent by the next agent", seconds(5), || {
        quota(A) > 45.0
    });
    assert_eq!(pids(&host), before);
    host.finish();
}
