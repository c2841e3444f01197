//! The end of the agent, with requests under way.

use super::*;

#[test]
fn what_was_accepted_is_answered() {
    let host = Host::new("");
    host.site(
        "slow.example.com",
        &harness::sites::script(
            "touch /site/begun; sleep 1; exec /usr/bin/busybox httpd -f -p 8080 -h /site",
        ),
    );
    let documents = host.dir.join("www/slow.example.com");
    let socket = host.socket();
    let asked = body(&json!({"vhost": "slow.example.com"}));
    let mut idle = Client::connect(&socket).unwrap();
    assert_eq!(idle.request("GET", "/v1/status", b"").unwrap().status, 200);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let (socket, asked) = (socket.clone(), asked.clone());
            std::thread::spawn(move || {
                harness::http::request(&socket, "POST", "/v1/dispatch", &asked).unwrap()
            })
        })
        .collect();
    let requests = || host.status("slow.example.com")["usage"]["dispatches"].as_u64();
    harness::wait_for("the start is under way", seconds(10), || {
        documents.join("begun").exists()
    });
    harness::wait_for("all are waiting", seconds(10), || {
        requests().is_none_or(|n| n >= 50)
    });
    host.signal_agent(libc::SIGTERM);
    for thread in waiting {
        let answer = thread.join().unwrap();
        assert_eq!(
            answer.status,
            200,
            "{}",
            String::from_utf8_lossy(&answer.body)
        );
    }
    // A connection without a request ends without an answer; nobody is left who could take one.
    assert!(idle.request("GET", "/v1/status", b"").is_err());
    assert!(
        !socket.exists(),
        "the socket of an agent that has ended is still there"
    );
    host.start();
    assert_eq!(host.state("slow.example.com"), "running");
    host.finish();
}

#[test]
fn nobody_who_goes_on_reading_holds_the_end_up() {
    let host = host_with_site("");
    let mut stream = Client::connect(&host.socket()).unwrap();
    stream
        .send("GET", "/v1/events?follow=true", "", b"")
        .unwrap();
    stream.head().unwrap();
    let mut silent = Client::connect(&host.socket()).unwrap();
    silent.stream().write_all(b"GET /v1/sta").unwrap();
    let began = Instant::now();
    host.signal_agent(libc::SIGTERM);
    let took = began.elapsed();
    // The agent's grace is 10 s.
    assert!(took < seconds(12), "the agent took {took:?} to end");
    assert!(silent.answer().is_err());
    host.start();
    assert_eq!(host.state("a.example.com"), "running");
    host.finish();
}
