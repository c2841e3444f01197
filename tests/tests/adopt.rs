//! The agent goes, containers stay; the next agent takes over what lives.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;

use harness::limits::{by_hand, in_cgroup};
use harness::sites::{put, script};
use harness::{Host, STATIC, seconds, wait_for};

const SITE: &str = "a.example.com";

fn pid_of(host: &Host, key: &str) -> u32 {
    u32::try_from(host.status(SITE)[key].as_u64().unwrap()).unwrap()
}

#[test]
fn containers_outlive_the_agent_however_it_ends() {
    let host = Host::new("");
    host.site(
        SITE,
        &format!("{STATIC}[idle]\ntimeout = \"2s\"\n[limits]\npids = 17\n"),
    );
    host.dispatch(SITE).upstream();
    let (pid, upstream) = (
        pid_of(&host, "pid"),
        host.status(SITE)["upstream"].as_str().unwrap().to_owned(),
    );
    // What holds it awake meanwhile.
    let connection = std::net::TcpStream::connect(&upstream).unwrap();
    for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT] {
        host.signal_agent(signal);
        assert_eq!(
            harness::http::get(&upstream, "/", seconds(5))
                .unwrap()
                .status,
            200,
            "it serves without an agent"
        );
        host.start();
        let status = host.status(SITE);
        assert_eq!(
            (status["state"].as_str(), status["pid"].as_u64()),
            (Some("running"), Some(pid.into()))
        );
        assert_eq!(status["limits"]["pids"], 17);
        assert_eq!(host.dispatch(SITE).json()["cold"], false);
    }
    drop(connection);
    host.wait_state(SITE, "stopped", 15);
    assert_eq!(host.dispatch(SITE).json()["cold"], true);
    host.finish();
}

#[test]
fn an_end_while_no_agent_ran_is_known_afterwards() {
    let host = Host::new("");
    let documents = host.site(
        SITE,
        &script(
            "busybox httpd -p 8080 -h /site; until [ -e /site/end ]; do sleep 0.05; done; exit 42",
        ),
    );
    host.dispatch(SITE).upstream();
    host.signal_agent(libc::SIGKILL);
    put(&documents, "end", "");
    wait_for("it has ended", seconds(10), || {
        host.snapshot().processes.is_empty()
    });
    fs::remove_file(documents.join("end")).unwrap();
    host.start();
    host.wait_state(SITE, "stopped", 5);
    let exit = host.status(SITE)["last_exit"].clone();
    assert_eq!(
        (exit["code"].as_i64(), exit["cause"].as_str()),
        (Some(42), Some("exited with code 42"))
    );
    assert_eq!(host.snapshot().sites.len(), 0);
    assert_eq!(host.dispatch(SITE).json()["cold"], true);
    host.finish();
}

#[test]
fn a_definition_removed_meanwhile_ends_its_container() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    host.signal_agent(libc::SIGKILL);
    fs::remove_file(host.dir.join("vhosts.d/a.example.com.toml")).unwrap();
    host.start();
    assert_eq!(host.dispatch(SITE).status, 404);
    wait_for("nothing is left", seconds(10), || {
        host.snapshot().processes.is_empty() && host.snapshot().sites.is_empty()
    });
    host.finish();
}

#[test]
fn a_definition_that_was_broken_meanwhile_ends_nothing() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    let pid = pid_of(&host, "pid");
    let file = host.dir.join("vhosts.d/a.example.com.toml");
    let text = fs::read_to_string(&file).unwrap();
    let restart_with = |text: &str| {
        host.signal_agent(libc::SIGKILL);
        fs::write(&file, text).unwrap();
        host.start();
    };
    restart_with("this is no toml");
    assert_eq!(host.dispatch(SITE).status, 404);
    let told = |word: &str| host.problems().iter().any(|p| p.contains(word));
    assert!(told("cannot be reached"), "{:?}", host.problems());
    // Others do not get what is its own.
    host.site("b.example.com", STATIC);
    host.dispatch("b.example.com").upstream();
    fs::write(&file, &text).unwrap();
    wait_for("it is in force", seconds(10), || host.problems().is_empty());
    assert_eq!(host.dispatch(SITE).json()["cold"], false);
    assert_eq!(pid_of(&host, "pid"), pid);
    // Gone for good when the broken file is, too.
    restart_with("this is no toml");
    assert!(told("cannot be reached"), "{:?}", host.problems());
    fs::remove_file(&file).unwrap();
    wait_for("its container is gone", seconds(10), || {
        host.snapshot().sites.len() == 1
    });
    assert_eq!(host.dispatch("b.example.com").json()["cold"], false);
    host.finish();
}

#[test]
fn what_was_changed_meanwhile_is_in_force_afterwards() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    let pid = pid_of(&host, "pid");
    let file = host.dir.join("vhosts.d/a.example.com.toml");
    let text = fs::read_to_string(&file).unwrap();
    host.signal_agent(libc::SIGKILL);
    fs::write(&file, format!("{text}\n[limits]\npids = 23\n")).unwrap();
    host.start();
    wait_for("the limit is in force", seconds(5), || {
        host.status(SITE)["limits"]["pids"] == 23
    });
    assert_eq!(pid_of(&host, "pid"), pid);
    host.signal_agent(libc::SIGKILL);
    fs::write(&file, format!("env = {{ A = \"b\" }}\n{text}")).unwrap();
    host.start();
    host.wait_state(SITE, "stopped", 20);
    assert_eq!(host.dispatch(SITE).json()["cold"], true);
    host.finish();
}

/// A process's children, by pid.
fn children(of: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    pids.filter(|pid| parent(*pid) == Some(of)).collect()
}

#[test]
fn an_agent_that_is_told_to_end_leaves_no_helper_behind() {
    let host = Host::new("");
    let spawner = children(host.pid());
    assert_eq!(spawner.len(), 1);
    wait_for("inits are made ahead", seconds(20), || {
        !children(spawner[0]).is_empty()
    });
    let helpers = [spawner.clone(), children(spawner[0])].concat();
    host.signal_agent(libc::SIGTERM);
    let left: Vec<_> = helpers
        .iter()
        .filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok())
        .collect();
    assert!(left.is_empty(), "{left:?}");
    host.start();
    host.finish();
}

#[test]
fn one_that_the_agent_had_stopped_for_a_moment_goes_on() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    let pid = pid_of(&host, "pid");
    for rested in [false, true] {
        if rested {
            assert_eq!(host.verb(SITE, "freeze").status, 200);
            assert_eq!(host.dispatch(SITE).json()["cold"], false);
        }
        host.signal_agent(libc::SIGKILL);
        // As an agent does that changes the open files of all its processes.
        by_hand(&host, &format!("acme/{SITE}"), ["cgroup.freeze"; 2], "1");
        wait_for("it is frozen", seconds(10), || {
            in_cgroup(&host, ["cgroup.events"; 2]).contains("frozen 1")
        });
        host.start();
        assert_eq!(host.state(SITE), "running");
        assert_eq!(host.get(SITE, "/").status, 200);
        assert_eq!(pid_of(&host, "pid"), pid);
    }
    host.finish();
}

#[test]
fn who_is_defined_anew_waits_until_its_last_container_is_gone() {
    let host = Host::new("");
    let many = "for i in $(seq 100); do sleep 1000 & done; exec busybox httpd -f -p 8080 -h /site";
    host.site(SITE, &script(many));
    host.dispatch(SITE).upstream();
    let file = host.dir.join("vhosts.d/a.example.com.toml");
    let text = fs::read_to_string(&file).unwrap();
    host.signal_agent(libc::SIGKILL);
    fs::remove_file(&file).unwrap();
    host.start();
    fs::write(&file, &text).unwrap();
    wait_for("it is defined", seconds(10), || {
        let answer = host.dispatch(SITE);
        assert!(answer.status != 200 || answer.json()["cold"] == true);
        answer.status == 200
    });
    let gone = "removed what was left of it";
    assert!(host.log().contains(gone), "nobody starts before");
    let pid = pid_of(&host, "pid");
    // Nor has it lost anything by which the next agent finds it.
    host.crash_and_restart();
    assert_eq!(host.dispatch(SITE).json()["cold"], false);
    assert_eq!(pid_of(&host, "pid"), pid);
    host.finish();
}

#[test]
fn a_spawner_that_dies_in_the_middle_of_an_upgrade_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let shim = dir.path().join("fastcontainer-shim");
    fs::copy(&harness::programs().shim, &shim).unwrap();
    let host = Host::new(&format!("shim = {shim:?}\n"));
    host.site(SITE, STATIC);
    let spawner = || host.request("GET", "/v1/status", b"").json()["spawner_pid"].clone();
    // As package managers do. This one is no spawner at all.
    let next = dir.path().join("next");
    fs::copy("/bin/true", &next).unwrap();
    fs::rename(&next, &shim).unwrap();
    let old = spawner();
    harness::send_signal(old.as_u64().unwrap().try_into().unwrap(), libc::SIGKILL);
    wait_for("the agent has seen its end", seconds(10), || {
        !std::path::Path::new(&format!("/proc/{old}")).exists()
    });
    assert_eq!(host.get(SITE, "/").status, 200);
    assert_ne!(spawner(), old);
    host.finish();
}

#[test]
fn ids_of_a_container_are_nobody_elses_also_when_ranges_begin_elsewhere_now() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.site("b.example.com", STATIC);
    host.dispatch(SITE).upstream();
    host.signal_agent(libc::SIGKILL);
    let config = host.dir.join("agent.toml");
    let mut text = fs::read_to_string(&config).unwrap();
    // Less than a range off, in the count of this agent: each of the two numbers there would overlap.
    text.insert_str(0, "uid_base = 536805376\n");
    fs::write(&config, text).unwrap();
    host.start();
    assert_eq!(host.dispatch(SITE).json()["cold"], false, "it lives on");
    host.dispatch("b.example.com").upstream();
    let base = |site: &str| {
        let record = fs::read(host.run_dir.join(format!("sites/{site}/container.json"))).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        record["ids"]["base"].as_u64().unwrap()
    };
    let (one, other) = (base(SITE), base("b.example.com"));
    assert!(one.abs_diff(other) >= 65_536, "{one} and {other}");
    // Its next container gets a range of this agent's.
    assert_eq!(host.verb(SITE, "stop").json()["state"], "stopped");
    host.dispatch(SITE).upstream();
    assert_ne!(base(SITE), one);
    assert!(base(SITE).abs_diff(other) >= 65_536);
    host.finish();
}
