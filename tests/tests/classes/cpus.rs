//! CPUs for guaranteed sites only.

use std::collections::BTreeSet;

use harness::limits::by_hand;
use harness::sites::script;

use super::*;

const DIVIDED: &str = "guaranteed_cpus = \"0\"\n";

/// All CPUs but the first, as the kernel writes them; and all.
fn others_and_all() -> (String, String) {
    let last = cores() / 100 - 1;
    assert!(last > 0, "nothing can be divided on a host with one CPU");
    let others = match last {
        1 => "1".to_owned(),
        last => format!("1-{last}"),
    };
    (others, format!("0-{last}"))
}

fn processes(host: &Host, group: &str) -> Vec<i32> {
    let pids = file(host, group, &["cgroup.procs"]).unwrap();
    pids.lines().map(|pid| pid.parse().unwrap()).collect()
}

/// The CPUs that the kernel lets a site's processes have, all the same for each of them.
fn allowed(host: &Host, group: &str) -> String {
    let of = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.map(|list| list.trim().to_owned())
    };
    let all: BTreeSet<String> = processes(host, group).iter().filter_map(of).collect();
    Vec::from_iter(all).join(" and ")
}

/// The CPUs that those of a site's processes are on that run or are about to.
fn ran_on(host: &Host, group: &str) -> BTreeSet<String> {
    let of = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        (fields.next() == Some("R")).then(|| fields.nth(35).map(str::to_owned))?
    };
    processes(host, group).iter().filter_map(of).collect()
}

fn restart_with(host: &Host, config: &str) {
    host.signal_agent(libc::SIGKILL);
    fs::write(host.dir.join("agent.toml"), config).unwrap();
    host.start();
}

#[test]
fn nobody_else_runs_on_the_cpus_of_guaranteed_sites() {
    let (others, all) = others_and_all();
    let host = Host::new("");
    let (a, b) = ("acme/a.example.com", "acme/b.example.com");
    define(&host, A, "acme", &format!("{GUARANTEED}cpu = \"20%\""));
    let spins = script(
        "for i in 1 2 3; do while :; do :; done & done\nexec busybox httpd -f -p 8080 -h /site",
    );
    host.site(B, &format!("{spins}\n[idle]\ntimeout = \"1h\"\n"));
    for site in [A, B] {
        assert_eq!(host.dispatch(site).status, 200);
    }
    assert_eq!(
        (allowed(&host, a), allowed(&host, b)),
        (all.clone(), all.clone())
    );
    assert!(host.status(A)["cpus"].is_null() && promises(&host)["cpus"].is_null());
    // Those who live already are put where they belong, by an agent that is told to divide.
    let pids = [A, B].map(|site| host.status(site)["pid"].clone());
    restart_with(&host, DIVIDED);
    let divided = || (allowed(&host, a), allowed(&host, b)) == ("0".to_owned(), others.clone());
    wait_for("the CPUs are divided", seconds(20), divided);
    assert_eq!([A, B].map(|site| host.status(site)["pid"].clone()), pids);
    wait_for("those that spin run there", seconds(20), || {
        let cpus = ran_on(&host, b);
        !cpus.is_empty() && !cpus.contains("0")
    });
    assert_eq!(host.status(B)["cpus"], others);
    let page = text(&host.ctl(&["status"]));
    assert!(
        page.contains(&format!(
            "0 for guaranteed sites only, {others} for the others"
        )),
        "{page}"
    );
    // Also who starts now.
    for site in [A, B] {
        assert_eq!(host.verb(site, "restart").status, 200);
    }
    assert!(divided());
    // What is promised has to fit on these.
    let output = host.ctl(&["set", A, "cpu=101%"]);
    assert!(text(&output).contains("1% too much"), "{}", text(&output));
    // A change of class moves a site that runs, there and back.
    let pid = host.status(B)["pid"].clone();
    for (class, cpus) in [("guaranteed", "0"), ("best-effort", &*others)] {
        let change = format!("class={class}");
        let output = host.ctl(&["set", B, &change, "cpu=10%"]);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(allowed(&host, b), cpus);
        assert_eq!(
            (&host.status(B)["cpus"], &host.status(B)["pid"]),
            (&json!(cpus), &pid)
        );
    }
    // What somebody else writes is found, and put right.
    assert!(host.status(B)["drift"].as_array().is_none_or(Vec::is_empty));
    by_hand(&host, b, ["cpuset.cpus"; 2], &all);
    let drift = host.status(B)["drift"][0].clone();
    assert_eq!(
        (&drift["key"], &drift["wanted"], &drift["found"]),
        (&json!("cpus"), &json!(others), &json!(all)),
        "{drift}"
    );
    let output = host.ctl(&["set", B, "--mend"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(divided());
    // Without the division everybody has everything again.
    restart_with(&host, "");
    wait_for("nothing is divided any more", seconds(20), || {
        (allowed(&host, a), allowed(&host, b)) == (all.clone(), all.clone())
    });
    assert!(promises(&host)["cpus"].is_null());
    host.finish();
}
