//! Owners: what operators give them, and how they divide it, as the kernel enforces it.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::client::as_user;
use harness::limits::text;
use harness::{Answer, Host, cgroup_roots, inside, seconds, time_scale, wait_for};
use serde_json::{Value, json};

const ACME: u32 = 71_201;
const BOLT: u32 = 71_202;

const A: &str = "a.example.com";
const B: &str = "b.example.com";
const C: &str = "c.example.com";
const OTHER: &str = "x.example.org";

/// Serves, and then spins for ever.
const SPINS: &str = r#"
command = ["/usr/bin/busybox", "sh", "-c", "/usr/bin/busybox httpd -p 8080 -h /site; while :; do :; done"]
listen = "tcp:8080"
"#;

fn host() -> Host {
    Host::new(&format!(
        "[owner.acme]\nuid = {ACME}\n[owner.bolt]\nuid = {BOLT}\n"
    ))
}

fn define(host: &Host, name: &str, owner: &str, rest: &str) {
    let documents = host.documents(name).display().to_string();
    host.define(
        name,
        &format!(
            "owner = {owner:?}\ndocuments = {documents:?}\n{rest}\n[idle]\ntimeout = \"1h\"\n"
        ),
    );
}

fn ctl(host: &Host, words: &[&str]) -> String {
    let output = host.ctl(words);
    assert!(output.status.success(), "{words:?}: {}", text(&output));
    text(&output)
}

fn ask(host: &Host, uid: u32, method: &str, path: &str, body: &Value) -> Answer {
    let socket = host.socket();
    let bytes = if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    };
    as_user(uid, uid, &[], || {
        harness::http::request(&socket, method, path, &bytes)
    })
    .unwrap()
}

fn owner(host: &Host, name: &str) -> Value {
    host.request("GET", &format!("/v1/owners/{name}"), b"")
        .json()
}

/// A file of a group, wherever its controller is.
fn file(host: &Host, group: &str, names: [&str; 2]) -> Option<String> {
    let group = format!("{}/{group}", host.cgroup_parent);
    let paths = cgroup_roots()
        .into_iter()
        .flat_map(|root| names.map(|name| Path::new(&root).join(&group).join(name)));
    paths
        .filter_map(|path| fs::read_to_string(path).ok())
        .next()
}

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
        last = rates(host, [A, B, C], Duration::from_secs(3)).map(|rate| rate / budget * 100.0);
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

/// From now on this test's sites get the processors before everybody else who runs on this machine: what is measured is how
/// they share, not how busy it is.
fn first_of_all(host: &Host) {
    let written = cgroup_roots().into_iter().flat_map(|root| {
        let parent = Path::new(&root).join(&host.cgroup_parent);
        [("cpu.weight", "10000"), ("cpu.shares", "262144")].map(|(name, value)| {
            let path = parent.join(name);
            path.exists().then(|| fs::write(&path, value).unwrap())
        })
    });
    assert_eq!(
        written.flatten().count(),
        1,
        "one hierarchy has the CPU controller"
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

#[test]
fn owners_divide_and_operators_decide() {
    let host = host();
    for (site, of) in [(A, "acme"), (B, "acme"), (OTHER, "bolt")] {
        define(&host, site, of, harness::STATIC);
    }
    let budget = "/v1/owners/acme/budget";
    let split = "/v1/owners/acme/split";
    let shares = |shares: Value| json!({"kind": "hard", "shares": shares});
    // Nothing to divide yet.
    let answer = ask(&host, ACME, "PATCH", split, &shares(json!({A: "20%"})));
    assert_eq!(answer.status, 409);
    for (uid, method, path, body) in [
        (ACME, "PATCH", budget, json!({"cpu": "400%"})),
        (BOLT, "PATCH", budget, json!({"cpu": "1%"})),
        (BOLT, "PATCH", split, shares(json!({OTHER: "20%"}))),
        (BOLT, "GET", "/v1/owners/acme", Value::Null),
        (BOLT, "GET", "/v1/owners/nobody", Value::Null),
        (71_203, "GET", "/v1/owners/acme", Value::Null),
    ] {
        let answer = ask(&host, uid, method, path, &body);
        assert_eq!(
            answer.status,
            403,
            "{uid} {method} {path}: {}",
            answer.json()
        );
    }
    assert_eq!(owner(&host, "acme")["budget"]["cpu"], Value::Null);
    assert_eq!(host.request("GET", "/v1/owners/nobody", b"").status, 404);
    // A dry run leaves everything.
    let said = ctl(&host, &["owner", "budget", "acme", "--dry-run", "cpu=60%"]);
    assert!(said.contains("60%"), "{said}");
    assert_eq!(owner(&host, "acme")["budget"]["cpu"], Value::Null);
    assert_eq!(host.dispatch(A).status, 200);
    ctl(
        &host,
        &["owner", "budget", "acme", "cpu=60%", "memory=512M"],
    );
    let view = owner(&host, "acme");
    assert_eq!(
        view["in_force"],
        json!({"cpu": "60%", "memory": "512M"}),
        "{view}"
    );
    for (body, status, says) in [
        (shares(json!({A: "60%", B: "60%"})), 409, "60% + 60% = 120%"),
        (shares(json!({A: "20%", OTHER: "20%"})), 403, "not yours"),
        (
            shares(json!({A: "20%", "no.example.com": "20%"})),
            404,
            "no.example.com",
        ),
        (shares(json!({A: "0.5%"})), 409, "too small"),
        (shares(json!({A: "120%"})), 400, "more than the whole"),
        (shares(json!({A: "20"})), 400, "%"),
        (json!({"kind": "soft", "shares": {A: "20%"}}), 400, "soft"),
    ] {
        let answer = ask(&host, ACME, "PATCH", split, &body);
        let problem = answer.json();
        assert_eq!(answer.status, status, "{body}: {problem}");
        assert!(
            problem["detail"].as_str().unwrap().contains(says),
            "{body}: {problem}"
        );
        assert_eq!(owner(&host, "acme")["split"], Value::Null);
    }
    let dry = ask(
        &host,
        ACME,
        "PATCH",
        &format!("{split}?dry_run=true"),
        &shares(json!({A: "20%"})),
    );
    assert_eq!(
        (dry.status, owner(&host, "acme")["split"].clone()),
        (200, Value::Null)
    );
    // The owner divides; one half is of a site, the rest is the others'.
    let answer = ask(&host, ACME, "PATCH", split, &shares(json!({A: "50%"})));
    assert_eq!(answer.status, 200, "{}", answer.json());
    assert_eq!(host.status(A)["limits"]["cpu"], "30%");
    assert_eq!(host.dispatch(B).status, 200);
    assert_eq!(host.status(B)["limits"]["cpu"], "30%");
    let shown = ctl(&host, &["owner", "show", "acme"]);
    assert!(
        shown.contains("division hard, 50% left") && shown.contains("60%"),
        "{shown}"
    );
    // All that is kept.
    host.crash_and_restart();
    wait_for("taken over", seconds(5), || {
        owner(&host, "acme")["usage"]["awake"] == 2
    });
    let view = owner(&host, "acme");
    assert_eq!(
        (&view["budget"]["cpu"], &view["split"]["shares"][A]),
        (&json!("60%"), &json!("50%"))
    );
    assert_eq!(host.status(A)["limits"]["cpu"], "30%");
    // Nothing is divided any more: only the budget is left.
    ctl(&host, &["owner", "split", "acme", "--clear"]);
    assert_eq!(host.status(A)["limits"]["cpu"], Value::Null);
    assert_eq!(owner(&host, "acme")["in_force"]["cpu"], "60%");
    ctl(&host, &["owner", "budget", "acme", "cpu=max", "memory="]);
    assert_eq!(
        owner(&host, "acme")["in_force"],
        json!({"cpu": null, "memory": null})
    );
    host.finish();
}

#[test]
fn sites_and_starts_are_counted() {
    let host = host();
    for site in [A, B] {
        define(&host, site, "acme", harness::STATIC);
    }
    let output = host.ctl(&["owner", "budget", "acme", "sites=1"]);
    assert!(
        !output.status.success() && text(&output).contains("2 sites are defined"),
        "{}",
        text(&output)
    );
    ctl(&host, &["owner", "budget", "acme", "sites=2", "starts=1"]);
    let definition = |owner: &str| {
        json!({"owner": owner, "documents": host.documents(C), "command": ["/usr/bin/busybox", "httpd", "-f", "-p", "8080", "-h", "/site"],
               "listen": "tcp:8080"})
    };
    let put = |owner: &str| {
        host.request(
            "PUT",
            &format!("/v1/vhosts/{C}"),
            definition(owner).to_string().as_bytes(),
        )
    };
    let answer = put("acme");
    assert_eq!(answer.status, 409, "{}", answer.json());
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .contains("2 + 1 > 2"),
        "{}",
        answer.json()
    );
    assert_eq!(put("bolt").status, 200);
    // By a file, which only operators write, there can be more; then they cannot all be awake.
    define(&host, "d.example.com", "acme", harness::STATIC);
    std::thread::scope(|scope| {
        for site in [A, B] {
            let socket = host.socket();
            scope.spawn(move || {
                let body = json!({"vhost": site}).to_string();
                let answer =
                    harness::http::request(&socket, "POST", "/v1/dispatch", body.as_bytes())
                        .unwrap();
                assert_eq!(answer.status, 200, "{}", answer.json());
            });
        }
    });
    let refused = host.dispatch("d.example.com");
    assert_eq!(refused.status, 503);
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("budget of acme is 2 sites"),
        "{}",
        refused.json()
    );
    assert_eq!(host.dispatch(C).status, 200, "another owner's");
    assert_eq!(host.verb(A, "stop").status, 200);
    assert_eq!(host.verb("d.example.com", "start").status, 200);
    host.finish();
}

#[test]
fn memory_is_counted_over_all_sites_and_the_budget_is_there_with_the_first_of_them() {
    let host = host();
    for site in [A, B] {
        inside::put(&host.documents(site));
        define(&host, site, "acme", inside::CHECKER);
    }
    ctl(&host, &["owner", "budget", "acme", "memory=96M"]);
    // Nothing was awake when it was set.
    assert_eq!(inside::ask(&host, A, "allocate/64", 30), "64");
    assert_eq!(owner(&host, "acme")["in_force"]["memory"], "96M");
    let memory = ["memory.max", "memory.limit_in_bytes"];
    assert_eq!(
        file(&host, "acme", memory).unwrap().trim(),
        (96u64 << 20).to_string()
    );
    assert_eq!(
        inside::ask(&host, A, "allocate-in-child/120", 30),
        "signal 9"
    );
    // What one holds, the other cannot have.
    let socket = host.dispatch(A).upstream();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // It answers only with its end.
            let _ = harness::http::get(&socket, "/hold/60", seconds(60));
        });
        wait_for("a holds its memory", seconds(20), || {
            owner(&host, "acme")["usage"]["memory_bytes"]
                .as_u64()
                .unwrap_or(0)
                > 60 << 20
        });
        assert_eq!(inside::ask(&host, B, "allocate-in-child/20", 30), "code 0");
        let lower = host.ctl(&["owner", "budget", "acme", "memory=16M"]);
        assert!(!lower.status.success(), "{}", text(&lower));
        assert_eq!(
            file(&host, "acme", memory).unwrap().trim(),
            (96u64 << 20).to_string()
        );
        assert_eq!(owner(&host, "acme")["budget"]["memory"], "96M");
        assert_eq!(host.verb(A, "stop").status, 200);
    });
    // The owner's group goes with its last site, and comes back with its budget.
    assert_eq!(host.verb(B, "stop").status, 200);
    wait_for("acme's group is gone", seconds(20), || {
        file(&host, "acme", memory).is_none()
    });
    assert_eq!(host.dispatch(A).status, 200);
    assert_eq!(
        file(&host, "acme", memory).unwrap().trim(),
        (96u64 << 20).to_string()
    );
    host.finish();
}
