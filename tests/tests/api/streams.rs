//! Answers that go on: events and logs.

use harness::client::as_user;

use super::*;

/// The lines of a stream; chunk sizes are taken out.
struct Lines {
    client: Client,
    text: String,
}

impl Lines {
    fn open(socket: &Path, path: &str) -> Self {
        let mut client = Client::connect(socket).unwrap();
        client.send("GET", path, "", b"").unwrap();
        let head = client.head().unwrap();
        assert_eq!(harness::client::status(&head), 200, "{head}");
        Self {
            client,
            text: String::new(),
        }
    }

    /// The next line for which `wanted` holds.
    fn find(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            while let Some((line, rest)) = self.text.split_once('\n') {
                let (line, rest) = (line.trim_end().to_owned(), rest.to_owned());
                self.text = rest;
                if wanted(&line) {
                    return line;
                }
            }
            self.text += &String::from_utf8_lossy(&self.client.take().unwrap());
        }
    }
}

#[test]
fn events_come_as_they_happen() {
    let host = Host::new("[owner.bolt]\nuid = 71002\n");
    host.site("a.example.com", harness::STATIC);
    let mut all = Lines::open(&host.socket(), "/v1/events?follow=true");
    let mut one = Lines::open(&host.socket(), "/v1/events?follow=true&vhost=b.example.com");
    let socket = host.socket();
    let mut bolt = as_user(71_002, 71_002, &[], || {
        Lines::open(&socket, "/v1/events?follow=true")
    });
    let documents = host.documents("b.example.com").display().to_string();
    host.define(
        "b.example.com",
        &format!(
            "owner = \"bolt\"\ndocuments = {documents:?}\n{}",
            harness::STATIC
        ),
    );
    host.dispatch("a.example.com").upstream();
    host.request(
        "PATCH",
        "/v1/vhosts/a.example.com/limits",
        br#"{"pids": 60}"#,
    );
    host.dispatch("b.example.com").upstream();
    let is = |line: &str, vhost: &str, event: &str, text: &str| {
        serde_json::from_str::<Value>(line)
            .is_ok_and(|v| v["vhost"] == vhost && v["event"] == event)
            && line.contains(text)
    };
    let line = all.find(|line| is(line, "a.example.com", "state", "running"));
    let event: Value = serde_json::from_str(&line).unwrap();
    assert!(
        event["time"].as_str().unwrap().ends_with('Z') && event["owner"] == "acme",
        "{event}"
    );
    all.find(|line| is(line, "a.example.com", "limits", "60"));
    all.find(|line| is(line, "b.example.com", "state", "running"));
    // What was asked for only, and what is theirs only.
    for stream in [&mut one, &mut bolt] {
        stream.find(|line| {
            assert!(!line.contains("a.example.com"), "{line}");
            is(line, "b.example.com", "state", "running")
        });
    }
    host.finish();
}

#[test]
fn logs_are_read_and_followed() {
    let host = Host::new("");
    let command = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done; exec /usr/bin/busybox httpd -f -vv -p 8080 -h /site";
    host.site("a.example.com", &harness::sites::script(command));
    let upstream = host.dispatch("a.example.com").upstream();
    harness::wait_for("the log has been written", seconds(5), || {
        host.request("GET", "/v1/vhosts/a.example.com/logs", b"")
            .body
            .ends_with(b"line 29\n")
    });
    let last = host.request("GET", "/v1/vhosts/a.example.com/logs?lines=2", b"");
    let text = String::from_utf8(last.body).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].ends_with(" a.example.com out line 29"), "{text}");
    let mut follow = Lines::open(
        &host.socket(),
        "/v1/vhosts/a.example.com/logs?follow=true&lines=1",
    );
    follow.find(|line| line.ends_with("out line 29"));
    harness::http::get(&upstream, "/followed", seconds(10)).unwrap();
    follow.find(|line| line.contains(" a.example.com err ") && line.contains("followed"));
    for bad in ["lines=x", "lines=-1", "lines=99999999999999999999"] {
        assert_problem(
            &host.request("GET", &format!("/v1/vhosts/a.example.com/logs?{bad}"), b""),
            400,
        );
    }
    assert_problem(
        &host.request("GET", "/v1/vhosts/no.example.com/logs?follow=true", b""),
        404,
    );
    // A number of lines that no log has is no reason to hold memory for them.
    assert_eq!(
        host.request("GET", "/v1/vhosts/a.example.com/logs?lines=4000000000", b"")
            .status,
        200
    );
    host.finish();
}

#[test]
fn readers_that_do_not_read_cost_no_memory() {
    let host = Host::new("[log]\nrate = \"100MB/s\"\nfile_bytes = \"1M\"\n");
    // Freezing is no use of a site, and a slow machine takes longer for all of it than a site may be idle.
    let awake = "[idle]\ntimeout = \"1h\"\n";
    host.site("a.example.com", &format!("{}{awake}", harness::STATIC));
    let loud = harness::sites::script(
        "yes 'a line that is as long as lines are, more or less' & exec /usr/bin/busybox httpd -f -p 8080 -h /site",
    );
    host.site(
        "loud.example.com",
        &format!("{loud}{awake}[limits]\ncpu = \"50%\"\n"),
    );
    for vhost in ["a.example.com", "loud.example.com"] {
        host.dispatch(vhost).upstream();
    }
    let (pid, files) = (host.pid(), host.settled_descriptors());
    let paths = [
        "/v1/events?follow=true",
        "/v1/vhosts/loud.example.com/logs?follow=true",
    ];
    let mut slow: Vec<Client> = Vec::new();
    for n in 0..harness::rounds(60, 10) {
        let mut client = Client::connect(&host.socket()).unwrap();
        let path = paths[n as usize % 2];
        client.send("GET", path, "", b"").unwrap();
        slow.push(client);
    }
    let freeze_and_thaw = |times: u32| {
        for _ in 0..times {
            assert_eq!(host.verb("a.example.com", "freeze").status, 200);
            assert_eq!(host.verb("a.example.com", "thaw").status, 200);
        }
    };
    // Until all buffers between here and there are full.
    freeze_and_thaw(300);
    let memory = resident(pid);
    let neighbour = Neighbour::begin(host.socket(), "loud.example.com");
    // More events in all than the agent keeps for who is slow (1024) and buffers hold.
    freeze_and_thaw(harness::rounds(1000, 600));
    let p99 = neighbour.end();
    let after = resident(pid);
    println!("memory {memory} kB, then {after} kB");
    assert!(
        after < memory + (8 << 10),
        "memory grew from {memory} to {after} kB"
    );
    // Who comes back is told what was missed.
    let mut late = Lines {
        client: slow.swap_remove(0),
        text: String::new(),
    };
    late.find(|line| line.contains("\"lost\""));
    drop(slow);
    drop(late);
    harness::wait_for("the streams are closed", seconds(10), || {
        host.descriptors() <= files + 2
    });
    assert_prompt(p99);
    host.finish();
}

#[test]
fn followers_that_have_gone_give_their_places_back() {
    const PLACES: usize = 64;
    let host = Host::new(&format!("[api]\nmax_connections = {PLACES}\n"));
    host.site("a.example.com", harness::STATIC);
    host.dispatch("a.example.com").upstream();
    let files = host.settled_descriptors();
    let socket = host.socket();
    // Nothing is said on either while this test runs: that they have gone is all there is to see.
    let paths = [
        "/v1/events?follow=true&vhost=none.example.com",
        "/v1/vhosts/a.example.com/logs?follow=true",
    ];
    for round in 0..3 {
        let mut followers: Vec<Lines> = (0..50)
            .map(|n| Lines::open(&socket, paths[n % 2]))
            .collect();
        if round == 1 {
            // Those that have said before that they send nothing any more.
            for follower in &followers {
                follower.client.stream().shutdown(Shutdown::Write).unwrap();
            }
        }
        let mut last = followers.pop().unwrap();
        drop(followers);
        let mut clients: Vec<Client> = Vec::new();
        harness::wait_for("the places of all who have gone", seconds(2), || {
            clients.clear();
            (0..PLACES - 2).all(|_| {
                let Ok(mut client) = Client::connect(&socket) else {
                    return false;
                };
                let answered = client.request("GET", "/v1/status", b"");
                clients.push(client);
                answered.is_ok_and(|answer| answer.status == 200)
            })
        });
        drop(clients);
        // The one that has not gone is still served, even if all it does is listen.
        last.client.stream().shutdown(Shutdown::Write).unwrap();
        let timeout = Some(Duration::from_millis(300) * time_scale());
        last.client.stream().set_read_timeout(timeout).unwrap();
        let error = last.client.take().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
    }
    harness::wait_for("the descriptors are closed", seconds(5), || {
        host.descriptors() <= files + 2
    });
    host.finish();
}

#[test]
fn a_follower_that_only_listens_hears() {
    let host = Host::new("");
    let mut events = Lines::open(&host.socket(), "/v1/events?follow=true");
    events.client.stream().shutdown(Shutdown::Write).unwrap();
    host.site("a.example.com", harness::STATIC);
    let mut log = Lines::open(&host.socket(), "/v1/vhosts/a.example.com/logs?follow=true");
    log.client.stream().shutdown(Shutdown::Write).unwrap();
    host.site("b.example.com", harness::STATIC);
    events.find(|line| line.contains("b.example.com"));
    let dir = host.dir.join("state/logs/a.example.com");
    fs_append(
        &dir,
        "2026-11-22T05:51:02.123456Z a.example.com out heard\n",
    );
    log.find(|line| line.ends_with("heard"));
    host.finish();
}

/// What a site would say.
fn fs_append(dir: &Path, line: &str) {
    std::fs::create_dir_all(dir).unwrap();
    let mut options = std::fs::File::options();
    let options = options.create(true).append(true);
    let mut file = options.open(dir.join("current")).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}
