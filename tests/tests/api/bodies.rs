//! Bodies of 64 MiB.

use super::*;

const SIZE: usize = 64 << 20;

/// Sends a body with as much of it as is taken; how much that was, and the answer.
fn send_body(socket: &Path, head: &str, chunked: bool) -> (usize, Answer) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(seconds(30))).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let mut piece = vec![b' '; 64 << 10];
    if chunked {
        piece.splice(0..0, *b"10000\r\n");
        piece.extend_from_slice(b"\r\n");
    }
    let mut sent = 0;
    while sent < SIZE && stream.write_all(&piece).is_ok() {
        sent += 64 << 10;
    }
    let mut bytes = Vec::new();
    // The agent closes a connection with bytes that nobody will read: a reset after the answer.
    let _ = stream.read_to_end(&mut bytes);
    let answer = harness::http::read_answer(&bytes[..]).unwrap_or_else(|e| panic!("{head}: {e}"));
    (sent, answer)
}

#[test]
fn large_bodies_are_refused_early() {
    let host = host_with_site("");
    let (socket, pid) = (host.socket(), host.pid());
    let paths = [
        ("POST", "/v1/dispatch"),
        ("PUT", "/v1/vhosts/new.example.com"),
        ("PATCH", "/v1/vhosts/a.example.com/limits"),
        ("POST", "/v1/vhosts/a.example.com/signal"),
    ];
    let announced = format!("Content-Length: {SIZE}");
    let memory = resident(pid);
    let neighbour = Neighbour::begin(socket.clone(), "a.example.com");
    std::thread::scope(|scope| {
        for (method, path) in paths {
            for length in [announced.as_str(), "Transfer-Encoding: chunked"] {
                let socket = &socket;
                scope.spawn(move || {
                    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n\r\n");
                    let chunked = length.starts_with('T');
                    for _ in 0..4 {
                        let (sent, answer) = send_body(socket, &head, chunked);
                        assert_problem(&answer, 413);
                        assert!(
                            sent < SIZE / 4,
                            "{sent} bytes were taken before the refusal"
                        );
                    }
                });
            }
        }
    });
    let p99 = neighbour.end();
    let after = resident(pid);
    println!("memory {memory} kB, then {after} kB");
    // Eight at a time, each of which may hold 1 MiB (max_body), twice while it is put together.
    assert!(
        after < memory + (24 << 10),
        "memory grew from {memory} to {after} kB"
    );
    assert_prompt(p99);
    host.finish();
}

#[test]
fn a_body_that_does_not_come_is_given_up() {
    let host = host_with_site("[api]\nbody_timeout = \"1s\"\nhead_timeout = \"1s\"\n");
    let mut client = Client::connect(&host.socket()).unwrap();
    client
        .stream()
        .write_all(b"POST /v1/dispatch HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        .unwrap();
    assert_problem(&client.answer().unwrap(), 400);
    let mut client = Client::connect(&host.socket()).unwrap();
    client.stream().write_all(b"POST /v1/disp").unwrap();
    assert!(client.answer().is_err(), "an unfinished head was answered");
    host.finish();
}
