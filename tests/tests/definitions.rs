//! Definitions as files: what changes when they do, and what stays when they are wrong.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;

use harness::{Host, STATIC, seconds, wait_for};
use serde_json::Value;

const SITE: &str = "a.example.com";

fn write(host: &Host, file: &str, text: &str) {
    fs::write(host.dir.join("new.tmp"), text).unwrap();
    fs::rename(
        host.dir.join("new.tmp"),
        host.dir.join("vhosts.d").join(file),
    )
    .unwrap();
}

fn text(host: &Host, rest: &str) -> String {
    let documents = host.dir.join("www").join(SITE);
    format!("name = {SITE:?}\n{}", Host::definition(&documents, rest))
}

#[test]
fn a_bad_file_is_reported_and_the_last_good_one_stays() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    let pid = {
        host.dispatch(SITE).upstream();
        host.status(SITE)["pid"].clone()
    };
    for (bad, says) in [
        ("comand = [\"x\"]\n", vec!["comand", "command"]),
        ("[limits]\nmemry = \"64M\"\n", vec!["memry", "memory"]),
        ("[idle]\ntimeout = \"soon\"\n", vec!["soon"]),
        ("this is no toml", vec!["toml"]),
    ] {
        write(
            &host,
            "a.example.com.toml",
            &text(&host, &format!("{STATIC}{bad}")),
        );
        wait_for("the problem is reported", seconds(5), || {
            host.problems().iter().any(|p| {
                p.contains("a.example.com.toml") && says.iter().all(|word| p.contains(word))
            })
        });
        assert_eq!(host.status(SITE)["pid"], pid, "{bad}");
        assert_eq!(host.get(SITE, "/").status, 200);
    }
    // A second file for the same name is one too.
    write(&host, "a.example.com.toml", &text(&host, STATIC));
    wait_for("solved", seconds(5), || host.problems().is_empty());
    write(&host, "other.toml", &text(&host, STATIC));
    wait_for("the conflict is reported", seconds(5), || {
        host.problems().iter().any(|p| p.contains("other.toml"))
    });
    fs::remove_file(host.dir.join("vhosts.d/other.toml")).unwrap();
    wait_for("solved", seconds(5), || host.problems().is_empty());
    assert_eq!(host.status(SITE)["pid"], pid);
    host.finish();
}

#[test]
fn limits_change_live_everything_else_recycles() {
    let host = Host::new("");
    // What every site has: the host's own defaults.
    host.site("b.example.com", STATIC);
    host.dispatch("b.example.com").upstream();
    let unlimited = host.status("b.example.com")["limits"].clone();
    host.site(SITE, &format!("{STATIC}[limits]\npids = 20\n"));
    host.dispatch(SITE).upstream();
    let pid = host.status(SITE)["pid"].clone();
    assert_eq!(host.status(SITE)["limits"]["pids"], 20);
    write(
        &host,
        "a.example.com.toml",
        &text(
            &host,
            &format!("{STATIC}[limits]\npids = 33\nmemory = \"96M\"\n"),
        ),
    );
    // In force: read back from the control group.
    wait_for("the new limits are in force", seconds(5), || {
        let limits = host.status(SITE)["limits"].clone();
        limits["pids"] == 33 && limits["memory"] == "96M"
    });
    assert_eq!(host.status(SITE)["pid"], pid);
    write(&host, "a.example.com.toml", &text(&host, STATIC));
    wait_for("they are lifted", seconds(5), || {
        host.status(SITE)["limits"] == unlimited
    });
    assert_eq!(host.status(SITE)["pid"], pid);
    write(
        &host,
        "a.example.com.toml",
        &text(&host, &format!("{STATIC}env = {{ A = \"b\" }}\n")),
    );
    wait_for("it is recycled", seconds(10), || {
        host.state(SITE) == "stopped"
    });
    assert_eq!(host.dispatch(SITE).json()["cold"], true);
    host.finish();
}

#[test]
fn a_removed_file_ends_the_site() {
    let host = Host::new("");
    let rest = format!("aliases = [\"www.example.com\"]\n{STATIC}");
    host.site(SITE, &rest);
    assert_eq!(host.dispatch("www.example.com").json()["vhost"], SITE);
    assert_eq!(host.dispatch("WWW.Example.COM.").json()["cold"], false);
    fs::remove_file(host.dir.join("vhosts.d/a.example.com.toml")).unwrap();
    wait_for("it is unknown", seconds(10), || {
        host.dispatch(SITE).status == 404
    });
    assert_eq!(host.dispatch("www.example.com").status, 404);
    wait_for("nothing runs", seconds(10), || {
        host.snapshot().processes.is_empty() && host.snapshot().sites.is_empty()
    });
    // And back again.
    host.site(SITE, &rest);
    assert_eq!(host.dispatch("www.example.com").json()["cold"], true);
    host.finish();
}

#[test]
fn many_files_changing_at_once_all_arrive() {
    let host = Host::new("");
    host.documents(SITE);
    let file = |number: u32, owner: &str| {
        let documents = host.dir.join("www").join(SITE);
        let text = format!(
            "name = \"n{number}.example.com\"\nowner = {owner:?}\ndocuments = {documents:?}\n{STATIC}"
        );
        write(&host, &format!("n{number}.toml"), &text);
    };
    (0..500).for_each(|number| file(number, "one"));
    (0..500)
        .filter(|number| number % 2 == 0)
        .for_each(|number| file(number, "two"));
    (0..500)
        .filter(|number| number % 5 == 0)
        .for_each(|number| {
            fs::remove_file(host.dir.join(format!("vhosts.d/n{number}.toml"))).unwrap()
        });
    let owners = || -> Vec<(String, String)> {
        let list = host.request("GET", "/v1/vhosts", b"").json();
        let word = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
        list["vhosts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| (word(v, "vhost"), word(v, "owner")))
            .collect()
    };
    let mut wanted: Vec<(String, String)> = (0..500)
        .filter(|number| number % 5 != 0)
        .map(|number| {
            (
                format!("n{number}.example.com"),
                if number % 2 == 0 { "two" } else { "one" }.to_owned(),
            )
        })
        .collect();
    wanted.sort();
    wait_for("all changes are in force", seconds(10), || {
        owners() == wanted
    });
    host.finish();
}

/// The project that an agent has given a vhost's documents; written by hand, as not every kernel has quotas.
fn limited(host: &Host, name: &str) -> std::path::PathBuf {
    let path = host.dir.join(format!("state/disk/{name}.json"));
    let documents = host.dir.join("www").join(name);
    let entry =
        serde_json::json!({"project": 0x4600_0007, "documents": documents, "labelled": true});
    fs::write(&path, entry.to_string()).unwrap();
    path
}

#[test]
fn a_definition_that_is_broken_when_the_agent_starts_is_not_gone() {
    let host = Host::new("");
    host.documents(SITE);
    host.signal_agent(libc::SIGTERM);
    let kept = limited(&host, SITE);
    let before = fs::read(&kept).unwrap();
    write(&host, "a.example.com.toml", "this is no toml");
    host.start();
    assert_eq!(fs::read(&kept).unwrap(), before);
    // Broken in another way, then mended: what it has keeps its project.
    write(&host, "a.example.com.toml", &text(&host, "comand = 1\n"));
    wait_for("it is reported", seconds(5), || {
        host.problems().iter().any(|p| p.contains("comand"))
    });
    write(&host, "a.example.com.toml", &text(&host, STATIC));
    wait_for("it is in force", seconds(5), || {
        host.problems().is_empty()
            && host.request("GET", "/v1/vhosts/a.example.com", b"").status == 200
    });
    assert_eq!(fs::read(&kept).unwrap(), before);
    // Gone for good, with its file broken and the agent away: when that file is gone too.
    host.signal_agent(libc::SIGTERM);
    write(&host, "a.example.com.toml", "this is no toml");
    host.start();
    assert!(kept.exists());
    fs::remove_file(host.dir.join("vhosts.d/a.example.com.toml")).unwrap();
    wait_for("it is forgotten", seconds(10), || !kept.exists());
    host.finish();
}

#[test]
fn who_was_never_woken_is_listed_with_the_hosts_defaults() {
    let host = Host::new("[limits]\nmemory = \"96M\"\nclass = \"guaranteed\"\ncpu = \"2%\"\n");
    let listed = || host.request("GET", "/v1/vhosts", b"").json()["vhosts"][0].clone();
    // Waits for the list only: whoever asks for one vhost wakes it.
    host.documents(SITE);
    let text = text(&host, &format!("{STATIC}[limits]\npids = 20\n"));
    write(&host, "a.example.com.toml", &text);
    wait_for("it is listed", seconds(5), || listed()["vhost"] == SITE);
    let asleep = listed();
    for (key, value) in [("memory", "96M"), ("cpu", "2%")] {
        assert_eq!(asleep["limits"][key], value);
    }
    assert_eq!(asleep["limits"]["pids"], 20);
    assert_eq!(asleep["class"], "guaranteed");
    // As once it is woken.
    let woken = host.status(SITE);
    for key in ["limits", "class", "promised"] {
        assert_eq!(asleep[key], woken[key]);
    }
    host.finish();
}
