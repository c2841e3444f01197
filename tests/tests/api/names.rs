//! Names that are none, wherever a name can stand.

use super::*;

/// (name, what it is).
fn names() -> Vec<(Vec<u8>, &'static str)> {
    vec![
        (b"../x".to_vec(), "a way up"),
        (b"../../../../etc/passwd".to_vec(), "a way to a file"),
        (b"/etc/passwd".to_vec(), "a path"),
        (b"..".to_vec(), "the parent"),
        (b".".to_vec(), "itself"),
        (b"".to_vec(), "nothing"),
        (b"a".repeat(300), "300 characters"),
        (b"a".repeat(9000), "9000 characters"),
        (b"a.example.com\0".to_vec(), "NUL at the end"),
        (b"a\0b".to_vec(), "NUL in the middle"),
        (b"\xff\xfe.example.com".to_vec(), "no UTF-8"),
        (b"a.example.com\n".to_vec(), "a line end"),
        (b"a\x1b[31m".to_vec(), "an escape sequence"),
        (b"a\x7f".to_vec(), "DEL"),
        (
            "\u{202e}moc.elpmaxe.a".as_bytes().to_vec(),
            "a change of direction",
        ),
        ("\u{e4}.example.com".as_bytes().to_vec(), "an umlaut"),
        (b"a.example.com/../b".to_vec(), "a detour"),
        (b"%2e%2e%2fx".to_vec(), "encoded twice"),
        (b"*.example.com".to_vec(), "a pattern"),
        (b"-a.example.com".to_vec(), "a hyphen first"),
        (b"a b".to_vec(), "a blank"),
    ]
}

fn percent(name: &[u8]) -> String {
    name.iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// A problem without anything that a terminal would obey.
fn assert_clear(answer: &Answer, statuses: &[u16], what: &str) {
    assert!(
        statuses.contains(&answer.status),
        "{what}: {} {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    assert_problem(answer, answer.status);
    assert!(
        !answer.body.iter().any(u8::is_ascii_control),
        "{what}: {}",
        String::from_utf8_lossy(&answer.body)
    );
    assert!(
        answer.body.len() < 2000,
        "{what}: the answer has {} bytes",
        answer.body.len()
    );
}

#[test]
fn in_paths() {
    let host = host_with_site("");
    for (name, what) in names() {
        let path = format!("/v1/vhosts/{}", percent(&name));
        if path.len() > 16_000 {
            continue;
        }
        for (method, more) in [
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/start"),
            ("POST", "/stop"),
            ("GET", "/logs"),
            ("PATCH", "/limits"),
            ("PUT", ""),
        ] {
            let body: &[u8] = match method {
                "PUT" => br#"{"owner":"acme","command":["/bin/true"],"listen":"tcp:80"}"#,
                "PATCH" => br#"{"cpu":"20%"}"#,
                _ => b"",
            };
            let answer = host.request(method, &format!("{path}{more}"), body);
            assert_clear(&answer, &[400, 404], &format!("{method} {more}: {what}"));
        }
    }
    assert_eq!(
        host.request("GET", "/v1/vhosts", b"").json()["vhosts"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    host.finish();
}

#[test]
fn in_json() {
    let host = host_with_site("");
    for (name, what) in names() {
        match String::from_utf8(name.clone()) {
            Ok(text) => {
                let answer = host.dispatch(&text);
                assert_clear(&answer, &[400, 404], what);
            }
            Err(_) => {
                let raw = [&b"{\"vhost\":\""[..], &name, b"\"}"].concat();
                assert_clear(&host.request("POST", "/v1/dispatch", &raw), &[400], what);
            }
        }
    }
    // A name that is long and right up to its last letter.
    let long = format!("{}.example.com", "a".repeat(250));
    assert_clear(&host.dispatch(&long), &[400, 404], "263 characters");
    let whole = body(&json!({"vhost": "a".repeat(900_000)}));
    assert_clear(
        &host.request("POST", "/v1/dispatch", &whole),
        &[400, 404],
        "900,000 characters",
    );
    host.finish();
}

#[test]
fn in_a_header() {
    let host = host_with_site("");
    for (name, what) in names() {
        if name.len() > 8000 {
            continue;
        }
        let bytes = [
            &b"GET /v1/dispatch HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Vhost: "[..],
            &name,
            b"\r\n\r\n",
        ]
        .concat();
        let raw = exchange(&host.socket(), &bytes);
        let answer = harness::http::read_answer(&raw[..]).unwrap_or_else(|e| panic!("{what}: {e}"));
        // What may not stand in a header at all is refused by the HTTP parser, which writes no body; a line end
        // behind the name merely ends the header.
        let parser =
            answer.status == 400 && answer.body.is_empty() && name.iter().any(u8::is_ascii_control);
        if !parser && what != "a line end" {
            assert_clear(&answer, &[400, 404], what);
        }
    }
    host.finish();
}

#[test]
fn in_definitions() {
    let host = host_with_site("");
    let documents = host.documents("x");
    for (name, what) in names() {
        let Ok(text) = String::from_utf8(name) else {
            continue;
        };
        if text.len() > 5000 {
            continue;
        }
        let definition = |key: &str, value: Value| {
            let mut all = json!({"name": "x.example.com", "owner": "acme", "documents": documents, "command": ["/bin/true"], "listen": "tcp:80"});
            all[key] = value;
            body(&all)
        };
        for (key, value) in [
            ("name", json!(text)),
            ("owner", json!(text)),
            ("aliases", json!([text])),
        ] {
            if key == "name" && matches!(text.as_str(), "" | ".") {
                // No name (a last dot is none): the path's.
                continue;
            }
            let answer = host.request(
                "PUT",
                "/v1/vhosts/x.example.com?dry_run=true",
                &definition(key, value),
            );
            assert_clear(&answer, &[400, 409], &format!("{key}: {what}"));
        }
    }
    host.finish();
}
