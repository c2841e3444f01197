//! Clients that go away or do not read, many at once, and servers that do not accept.

use std::sync::Barrier;
use std::thread;

use super::*;

/// Nothing is left of clients that are gone.
fn descriptors_again(host: &Host, before: usize) {
    wait_for("descriptors are as before", seconds(20), || {
        host.descriptors() <= before
    });
}

#[test]
fn who_goes_away_or_does_not_read_keeps_nothing() {
    let host = Host::new("[api]\nbody_timeout = \"1s\"\n[pool]\naddress = 0\nprivate = 0\n");
    let slow = "command = [\"/bin/sh\", \"-c\", \"touch /site/began; while ! [ -e /site/go ]; do sleep 0.1; done; exec busybox httpd -f -p \
                8080 -h /site\"]\nlisten = \"tcp:8080\"\n[start]\ntimeout = \"300s\"\n[network]\nmode = \"private\"\n";
    let documents = host.site("slow.example.com", slow);
    host.site(SITE, PRIVATE);
    // What is made once is there afterwards.
    hold(&host.connector(), SITE);
    host.verb(SITE, "stop");
    let alone = host.settled_descriptors();
    let gone: Vec<Connector> = (0..20).map(|_| host.connector()).collect();
    for connector in &gone {
        connector.send(b"{\"vhost\":\"slow.example.com\"}").unwrap();
    }
    host.wait_state("slow.example.com", "starting", 10);
    wait_for("all wait", seconds(10), || {
        host.status("slow.example.com")["dispatches"] == 20
    });
    wait_for("its command runs", seconds(10), || {
        documents.join("began").exists()
    });
    let waiting = host.descriptors();
    drop(gone);
    // Both of each: the connection, and what watches it for its end.
    descriptors_again(&host, waiting - 40);
    put(&documents, "go", "");
    let handed = host.connector().ask("slow.example.com").unwrap();
    assert_eq!(handed.get("/").unwrap().status, 200);
    host.verb("slow.example.com", "stop");

    let deaf = host.connector();
    // Ends with the agent's patience: first answers fill the client's queue, then requests the agent's.
    let mut sent = 0;
    while deaf
        .send(format!("{{\"vhost\":\"{SITE}\"}}").as_bytes())
        .is_ok()
    {
        sent += 1;
        assert!(sent < 100_000);
    }
    assert!(sent > 10, "{sent}");
    drop(deaf);
    host.verb(SITE, "stop");
    // The user namespaces of the site that was not there before are kept for its next start.
    descriptors_again(&host, alone + 2);
    host.finish();
}

#[test]
fn a_hundred_at_once_are_one_start() {
    let host = Host::new("");
    host.site(SITE, PRIVATE);
    hold(&host.connector(), SITE);
    host.verb(SITE, "stop");
    let (together, before) = (Barrier::new(100), host.settled_descriptors());
    // All connected before any waits for the others: one that cannot be would leave them waiting.
    let connectors: Vec<Connector> = (0..100).map(|_| host.connector()).collect();
    thread::scope(|scope| {
        for connector in connectors {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                for _ in 0..3 {
                    let handed = connector.ask(SITE).unwrap();
                    assert_eq!(handed.get("/").unwrap().status, 200);
                }
            });
        }
    });
    let status = host.status(SITE);
    assert_eq!(
        (&status["starts"], &status["dispatches"]),
        (&2.into(), &301.into())
    );
    host.verb(SITE, "stop");
    descriptors_again(&host, before);
    host.finish();
}

#[test]
fn a_server_that_does_not_accept_is_waited_for() {
    let host = Host::new("");
    let limit = 2 + harness::time_scale() / 2;
    let rest = format!("[start]\ntimeout = \"{limit}s\"\n[network]\nmode = \"private\"\n");
    let sites = [
        (SITE, "tcp:8080", ""),
        ("b.example.com", "unix:/run/site/s", "/run/site/s"),
    ];
    for (name, listen, path) in sites {
        python(&host, name, ["full", path], listen, &rest);
    }
    thread::scope(|scope| {
        for (name, _, _) in sites {
            let (connector, documents) = (host.connector(), host.documents(name));
            scope.spawn(move || {
                let mut held = Vec::new();
                let refused = loop {
                    let handed = connector.ask(name).unwrap();
                    match handed.connection {
                        Some(connection) => held.push(connection),
                        None => break handed.json,
                    }
                    assert!(held.len() < 10);
                };
                assert_eq!(
                    (&refused["status"], &refused["type"]),
                    (&504.into(), &"connect-timeout".into())
                );
                // Some wait in the queue; one more has its turn when the server accepts.
                assert!(!held.is_empty());
                connector
                    .send(format!("{{\"vhost\":{name:?}}}").as_bytes())
                    .unwrap();
                put(&documents, "go", "");
                held.into_iter()
                    .for_each(|held| assert_eq!(get(held, "/").unwrap().body, b"full"));
                assert_eq!(connector.receive().unwrap().get("/").unwrap().body, b"full");
            });
        }
    });
    host.finish();
}

#[test]
fn a_server_that_listens_anew_is_reached_again() {
    let host = Host::new("");
    let private = "[network]\nmode = \"private\"\n";
    python(&host, SITE, ["again", ""], "tcp:8080", private);
    let (unix, path) = ("b.example.com", "/run/site/s");
    python(
        &host,
        unix,
        ["again", path],
        &format!("unix:{path}"),
        private,
    );
    let connector = host.connector();
    for vhost in [SITE, unix] {
        for asked in 1..=4 {
            let answer = connector.ask(vhost).unwrap().get("/").unwrap();
            assert_eq!(answer.body, b"again", "{vhost}");
            // However often it was tried.
            assert_eq!(host.status(vhost)["dispatches"], asked, "{vhost}");
        }
        assert_eq!(host.status(vhost)["starts"], 1);
    }
    host.finish();
}

#[test]
fn who_waits_for_a_server_wakes_it_again() {
    let host = Host::new("");
    let (path, private) = ("/run/site/s", "[network]\nmode = \"private\"\n");
    let documents = host.documents(SITE);
    python(
        &host,
        SITE,
        ["full", path],
        &format!("unix:{path}"),
        private,
    );
    // One fits into the queue.
    let (first, waiting) = (host.connector(), host.connector());
    let held = hold(&first, SITE);
    waiting
        .send(format!("{{\"vhost\":\"{SITE}\"}}").as_bytes())
        .unwrap();
    wait_for("it waits", seconds(10), || {
        host.status(SITE)["dispatches"] == 2
    });
    assert_eq!(host.verb(SITE, "freeze").status, 200);
    put(&documents, "go", "");
    assert_eq!(get(held, "/").unwrap().body, b"full");
    assert_eq!(waiting.receive().unwrap().get("/").unwrap().body, b"full");
    let status = host.status(SITE);
    assert_eq!(
        (&status["dispatches"], &status["starts"]),
        (&2.into(), &1.into())
    );
    host.finish();
}
