//! What a dead agent left that is no living container goes; what only looks like it is not touched.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use harness::sites::{put, script};
use harness::{Host, STATIC, cgroup_roots, run, seconds, send_signal, wait_for};
use serde_json::Value;

const SITE: &str = "a.example.com";

fn pid_of(host: &Host, key: &str) -> u32 {
    u32::try_from(host.status(SITE)[key].as_u64().unwrap()).unwrap()
}

fn record(host: &Host) -> PathBuf {
    host.run_dir.join("sites").join(SITE).join("container.json")
}

/// A process of this test that nobody may touch.
struct Bystander(Child);

impl Bystander {
    fn new() -> Self {
        Self(Command::new("sleep").arg("1000").spawn().unwrap())
    }

    fn lives(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_killed_in_the_middle_of_a_start_leaves_nothing() {
    let host = Host::new("");
    let documents = host.site(
        SITE,
        &script(
            "until [ -e /site/go ]; do sleep 0.02; done; exec busybox httpd -f -p 8080 -h /site",
        ),
    );
    for _ in 0..3 {
        let socket = host.socket();
        let asker = std::thread::spawn(move || {
            harness::http::request(
                &socket,
                "POST",
                "/v1/dispatch",
                format!("{{\"vhost\":{SITE:?}}}").as_bytes(),
            )
        });
        wait_for("its command runs", seconds(10), || {
            host.snapshot().processes.len() >= 2
        });
        host.crash_and_restart();
        assert!(asker.join().unwrap().is_err(), "its connection was cut");
        wait_for("nothing is left", seconds(10), || {
            host.snapshot().processes.is_empty() && host.snapshot().sites.is_empty()
        });
    }
    put(&documents, "go", "");
    assert_eq!(host.get(SITE, "/").status, 200);
    host.finish();
}

#[test]
fn a_record_of_somebody_elses_process_is_not_believed() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    let mut bystander = Bystander::new();
    let stat = fs::read_to_string(format!("/proc/{}/stat", bystander.0.id())).unwrap();
    let start_time: u64 = stat
        .rsplit(") ")
        .next()
        .unwrap()
        .split(' ')
        .nth(19)
        .unwrap()
        .parse()
        .unwrap();
    for (time, dead) in [
        (start_time, true),
        (start_time + 1, true),
        (start_time, false),
        (1, false),
    ] {
        host.dispatch(SITE).upstream();
        let init = pid_of(&host, "init_pid");
        host.signal_agent(libc::SIGKILL);
        if dead {
            send_signal(init, libc::SIGKILL);
            wait_for("it is dead", seconds(10), || {
                host.snapshot().processes.is_empty()
            });
        }
        let mut json: Value = serde_json::from_slice(&fs::read(record(&host)).unwrap()).unwrap();
        json["pid"] = bystander.0.id().into();
        json["main_pid"] = bystander.0.id().into();
        json["start_time"] = time.into();
        fs::write(record(&host), json.to_string()).unwrap();
        host.start();
        host.wait_state(SITE, "stopped", 10);
        assert!(host.snapshot().processes.is_empty());
        assert!(bystander.lives());
    }
    assert_eq!(host.get(SITE, "/").status, 200);
    host.finish();
}

#[test]
fn a_record_that_cannot_be_read_costs_that_container_only() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.site("b.example.com", STATIC);
    host.dispatch("b.example.com").upstream();
    let other = host.status("b.example.com")["pid"].clone();
    for junk in [
        "",
        "{",
        "{}",
        "null",
        "[1,2]",
        "\u{0}\u{1}",
        "{\"vhost\":\"../../x\",\"owner\":\"..\"}",
    ] {
        host.dispatch(SITE).upstream();
        host.signal_agent(libc::SIGKILL);
        fs::write(record(&host), junk).unwrap();
        host.start();
        host.wait_state(SITE, "stopped", 10);
        assert_eq!(host.status("b.example.com")["pid"], other, "{junk}");
        wait_for("nothing is left of it", seconds(5), || {
            !host.run_dir.join("sites").join(SITE).exists()
        });
    }
    assert_eq!(host.get(SITE, "/").status, 200);
    host.finish();
}

#[test]
fn orphans_are_found_and_removed() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    let pid = pid_of(&host, "pid");
    let before = host.snapshot();
    host.signal_agent(libc::SIGKILL);
    // A cgroup with a process in it, in every hierarchy that the agent uses.
    let mut orphan = Bystander::new();
    let mut made = 0;
    for root in cgroup_roots() {
        let group = Path::new(&root).join(&host.cgroup_parent);
        if group.is_dir() {
            let group = group.join("acme/orphan.example.com");
            fs::create_dir(&group).unwrap();
            fs::write(group.join("cgroup.procs"), orphan.0.id().to_string()).unwrap();
            made += 1;
        }
    }
    assert!(made > 0);
    // Run directories without a container, one of them with a socket's tmpfs.
    let sites = host.run_dir.join("sites");
    for name in ["gone.example.com", "socket.example.com/socket"] {
        fs::create_dir_all(sites.join(name)).unwrap();
    }
    fs::write(sites.join("gone.example.com/exit"), "code 3 1700000000\n").unwrap();
    run(
        "mount",
        &[
            "-t",
            "tmpfs",
            "fastcontainer",
            sites.join("socket.example.com/socket").to_str().unwrap(),
        ],
    );
    // Firewall entries of an address that nobody has.
    let sets = run("nft", &["-j", "list", "table", "inet", "fastcontainer"]);
    let sets: Value = serde_json::from_str(&sets).unwrap();
    let outbound = sets["nftables"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["set"]["type"] == "ipv4_addr");
    let outbound = outbound.expect("a set of addresses")["set"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    run(
        "nft",
        &[
            "add",
            "element",
            "inet",
            "fastcontainer",
            &outbound,
            "{ 10.88.77.77 }",
        ],
    );
    assert_eq!(host.snapshot().elements, before.elements + 1);

    host.start();
    wait_for("the orphans are gone", seconds(15), || {
        let now = host.snapshot();
        (now.elements, &now.sites, &now.mounts, &now.cgroups)
            == (
                before.elements,
                &before.sites,
                &before.mounts,
                &before.cgroups,
            )
    });
    wait_for("the orphan process is killed", seconds(5), || {
        !orphan.lives()
    });
    assert_eq!(pid_of(&host, "pid"), pid, "what is no orphan lives on");
    assert_eq!(host.get(SITE, "/").status, 200);
    host.finish();
}
