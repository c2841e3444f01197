//! Random and malformed requests.

use super::*;

const REQUESTS: usize = 10_000;
/// What the agent's memory may grow by, kB.
const GROWTH: u64 = 24 << 10;

const METHODS: [&str; 8] = [
    "GET",
    "POST",
    "PUT",
    "PATCH",
    "HEAD",
    "BREW",
    "get",
    "\u{1}\u{2}",
];
const PATHS: [&str; 14] = [
    "/",
    "/v1",
    "/v1/dispatch",
    "/v1/status",
    "/v1/vhosts",
    "/v1/vhosts/",
    "/v1/vhosts/a.example.com",
    "/v1/vhosts/%",
    "/v1/vhosts/%00",
    "/v1/vhosts/no.example.com/limits",
    "/v1/vhosts/no.example.com/start",
    "/v1/events?follow=false",
    "//////",
    "*",
];
const BODIES: [&str; 10] = [
    "",
    "{",
    "null",
    "[]",
    "{\"vhost\":5}",
    "{\"vhost\":\"no.example.com\",\"more\":1}",
    "{\"vhost\":null}",
    "\u{0}",
    "{\"signal\":\"NOPE\"}",
    "{\"cpu\":{\"a\":[]}}",
];

/// One thing to send; the same for the same state of `random`.
fn noise(random: &mut Random) -> Vec<u8> {
    let method = random.one_of(&METHODS);
    let path = random.one_of(&PATHS);
    let text = random.one_of(&BODIES);
    let head = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n");
    match random.below(13) {
        // Bytes.
        0 => random.bytes(600),
        // Wrong methods, paths, types.
        1 | 2 => format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).into_bytes(),
        // Huge headers, many headers.
        3 => format!("{head}X-Long: {}\r\n\r\n", "y".repeat(random.below(40_000))).into_bytes(),
        4 => {
            let lines: String = (0..random.below(200))
                .map(|n| format!("X-{n}: {n}\r\n"))
                .collect();
            format!("{head}{lines}\r\n").into_bytes()
        }
        // Bodies that are not as long as they say, or say two things.
        5 => format!("{head}Content-Length: {}\r\n\r\n{text}", random.next()).into_bytes(),
        6 => format!(
            "{head}Content-Length: 3\r\nContent-Length: {}\r\n\r\n{text}",
            random.below(9)
        )
        .into_bytes(),
        7 => format!("{head}Content-Length: -1\r\nTransfer-Encoding: chunked\r\n\r\n{text}")
            .into_bytes(),
        // Chunks.
        8 => {
            let mut bytes =
                b"POST /v1/dispatch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                    .to_vec();
            for _ in 0..random.below(6) {
                let size = random.one_of(&[
                    "5",
                    "0",
                    "ffffffffffffffff",
                    "-1",
                    "zz",
                    "5;x=y",
                    "00000000000000000000001",
                ]);
                bytes.extend_from_slice(format!("{size}\r\n{text}\r\n").as_bytes());
            }
            bytes
        }
        // Several at once.
        9 => {
            let one = format!("{head}Content-Length: {}\r\n\r\n{text}", text.len());
            one.repeat(1 + random.below(20)).into_bytes()
        }
        // Cut off somewhere.
        10 => {
            let whole = format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()).into_bytes();
            let keep = random.below(whole.len());
            whole[..keep].to_vec()
        }
        // A name that is none.
        11 => {
            let mut bytes = b"GET /v1/dispatch HTTP/1.1\r\nHost: a\r\nX-Vhost: ".to_vec();
            bytes.extend(
                random
                    .bytes(400)
                    .into_iter()
                    .filter(|b| !matches!(b, b'\r' | b'\n')),
            );
            bytes.extend_from_slice(b"\r\n\r\n");
            bytes
        }
        // A good request with a few wrong bytes.
        _ => {
            let mut bytes = b"POST /v1/dispatch HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\n{\"vhost\":\"no.example.com\"}\n".to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = u8::try_from(random.next() >> 56).unwrap();
            }
            bytes
        }
    }
}

/// Everything in `answer` is HTTP, and errors that the agent itself made are problems.
fn check(sent: &[u8], answer: &[u8]) -> Vec<u16> {
    let mut statuses = Vec::new();
    let text = String::from_utf8_lossy(answer);
    for part in text.split("HTTP/1.1 ").skip(1) {
        let status: u16 = part[..3]
            .parse()
            .unwrap_or_else(|e| panic!("{e}: {part:?}"));
        assert!(
            (100..600).contains(&status) && status != 500,
            "{status} for {:?}:\n{part}",
            String::from_utf8_lossy(sent)
        );
        if let Some((head, body)) = part.split_once("\r\n\r\n")
            && !body.is_empty()
            && status >= 400
        {
            assert!(head.contains("application/problem+json"), "{part}");
            let problem: Value =
                serde_json::from_str(body.trim()).unwrap_or_else(|e| panic!("{e}: {body}"));
            assert_eq!(problem["status"].as_u64(), Some(status.into()));
        }
        statuses.push(status);
    }
    assert!(
        answer.is_empty() || text.starts_with("HTTP/1.1 "),
        "no HTTP: {text}"
    );
    statuses
}

#[test]
fn ten_thousand_malformed_requests() {
    let host = host_with_site("");
    let (socket, pid) = (host.socket(), host.pid());
    // What the first requests of each kind allocate for good is not growth.
    let mut random = Random(0x5EED);
    for _ in 0..500 {
        exchange(&socket, &noise(&mut random));
    }
    let (files, memory) = (host.settled_descriptors(), resident(pid));
    let neighbour = Neighbour::begin(socket.clone(), "a.example.com");
    let mut seen = std::collections::BTreeMap::<u16, usize>::new();
    for _ in 0..REQUESTS / time_scale() as usize {
        let sent = noise(&mut random);
        let statuses = check(&sent, &exchange(&socket, &sent));
        if statuses.is_empty() {
            *seen.entry(0).or_default() += 1;
        }
        statuses
            .into_iter()
            .for_each(|status| *seen.entry(status).or_default() += 1);
    }
    let p99 = neighbour.end();
    println!(
        "statuses (0: closed without one): {seen:?}; memory {memory} kB, then {} kB",
        resident(pid)
    );
    // Each kind of refusal has been seen: the noise does what it is for.
    for status in [400, 404, 405, 431] {
        assert!(seen.contains_key(&status), "no {status} among {seen:?}");
    }
    assert_eq!(host.pid(), pid);
    assert!(
        resident(pid) < memory + GROWTH,
        "memory grew from {memory} to {} kB",
        resident(pid)
    );
    harness::wait_for("all connections are closed", seconds(10), || {
        host.descriptors() <= files + 2
    });
    assert!(!host.log().contains("panicked"), "{}", host.log());
    assert_eq!(host.dispatch("a.example.com").json()["cold"], false);
    assert_prompt(p99);
    host.finish();
}
