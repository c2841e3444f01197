//! Connections in numbers.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// The default number of connections that the agent serves at a time; seven eighths of it for those who are not operators.
const MOST: usize = 8192;

/// Lets this process have as many descriptors as it may; false if that is too few.
fn descriptors_for(connections: usize) -> bool {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
    let enough = getrlimit(Resource::Nofile)
        .current
        .is_none_or(|most| most > connections as u64 + 200);
    if !enough {
        harness::skip("the hard limit of open files is too low for this many connections");
    }
    enough
}

fn connect(socket: &Path) -> UnixStream {
    // The queue of connections to be accepted may be full for a moment: connect waits then.
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(seconds(30))).unwrap();
    stream
}

#[test]
fn five_thousand_that_send_one_byte_and_wait() {
    if !descriptors_for(5000) {
        return;
    }
    let host = host_with_site("");
    let (socket, pid) = (host.socket(), host.pid());
    let (files, memory) = (host.settled_descriptors(), resident(pid));
    let neighbour = Neighbour::begin(socket.clone(), "a.example.com");
    let mut waiting: Vec<UnixStream> = (0..5000)
        .map(|_| {
            let mut stream = connect(&socket);
            stream.write_all(b"G").unwrap();
            stream
        })
        .collect();
    let grown = resident(pid).saturating_sub(memory);
    println!("5,000 connections cost {grown} kB");
    assert!(
        grown < 5000 * 24,
        "{grown} kB for 5,000 connections that say nothing"
    );
    // Each is closed when its time for a head (5 s) is over: nobody can hold a connection by waiting.
    for stream in &mut waiting {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"),
            "{}",
            String::from_utf8_lossy(&rest)
        );
    }
    let p99 = neighbour.end();
    harness::wait_for("the agent has closed them", seconds(10), || {
        host.descriptors() <= files + 2
    });
    assert_prompt(p99);
    host.finish();
}

#[test]
fn others_cannot_shut_operators_out() {
    if !descriptors_for(MOST) {
        return;
    }
    let host = host_with_site("dispatch_users = [33]\n[api]\nhead_timeout = \"60s\"\n");
    let socket = host.socket();
    let flood: Vec<UnixStream> = harness::client::as_user(33, 33, &[], || {
        (0..MOST).map(|_| connect(&socket)).collect()
    });
    // Those beyond their share are closed at once, by the order in which they came.
    let mut last = flood.last().unwrap();
    assert!(
        matches!(last.read(&mut [0; 1]), Ok(0) | Err(_)),
        "connection {MOST} of a single user is served"
    );
    assert_eq!(host.request("GET", "/v1/status", b"").status, 200);
    assert_eq!(host.dispatch("a.example.com").status, 200);
    drop(flood);
    harness::wait_for("the share is free again", seconds(10), || {
        let asked = body(&json!({"vhost": "a.example.com"}));
        let answer = harness::client::as_user(33, 33, &[], || {
            harness::http::request(&socket, "POST", "/v1/dispatch", &asked)
        });
        answer.is_ok_and(|answer| answer.status == 200)
    });
    host.finish();
}

#[test]
fn a_thousand_that_are_kept() {
    if !descriptors_for(1000) {
        return;
    }
    let host = host_with_site("");
    let (socket, pid) = (host.socket(), host.pid());
    let (files, memory) = (host.settled_descriptors(), resident(pid));
    let mut clients: Vec<Client> = (0..1000)
        .map(|_| Client::connect(&socket).unwrap())
        .collect();
    let asked = body(&json!({"vhost": "a.example.com"}));
    for round in 0..3 {
        // All ask before any reads.
        for client in &mut clients {
            client.send("POST", "/v1/dispatch", "", &asked).unwrap();
        }
        for client in &mut clients {
            let answer = client.answer().unwrap();
            assert_eq!(answer.status, 200, "round {round}");
            assert_eq!(answer.json()["vhost"], "a.example.com");
        }
    }
    let grown = resident(pid).saturating_sub(memory);
    println!("1,000 kept connections cost {grown} kB");
    assert!(grown < 1000 * 32, "{grown} kB for 1,000 connections");
    drop(clients);
    harness::wait_for("the agent has closed them", seconds(10), || {
        host.descriptors() <= files + 2
    });
    host.finish();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let host = host_with_site("");
    let mut client = Client::connect(&host.socket()).unwrap();
    for n in 0..100 {
        let (method, path) = if n % 2 == 0 {
            ("GET", format!("/v1/vhosts/n{n}.example.com"))
        } else {
            ("GET", "/v1/vhosts/a.example.com".to_owned())
        };
        client.send(method, &path, "", b"").unwrap();
    }
    for n in 0..100 {
        let answer = client.answer().unwrap();
        if n % 2 == 0 {
            assert_problem(&answer, 404);
            assert_eq!(answer.json()["vhost"], format!("n{n}.example.com"));
        } else {
            assert_eq!(answer.json()["state"], "running");
        }
    }
    host.finish();
}
