//! Promises while limits are being changed, and when that fails.

use std::time::Instant;

use super::*;

/// Has what a definition promises in a file, whether there is room or not.
fn write(host: &Host, name: &str, limits: &str) {
    let documents = host.documents(name);
    let definition = Host::definition(&documents, &format!("{STATIC}{limits}"));
    let path = host.dir.join(format!("vhosts.d/{name}.toml"));
    fs::write(path, format!("name = {name:?}\n{definition}")).unwrap();
}

fn change(host: &Host, limits: &Value) -> Answer {
    let path = format!("/v1/vhosts/{A}/limits");
    host.request("PATCH", &path, limits.to_string().as_bytes())
}

#[test]
fn a_change_that_fails_costs_no_promise_though_another_waits_for_it() {
    let host = Host::new("[reserve]\ncpu = \"10%\"\n");
    let (most, less) = (cores() * 6 / 10, cores() / 10);
    harness::inside::site(
        &host,
        A,
        &format!("{GUARANTEED}cpu = \"{most}%\"\nmemory = \"128M\"\n[start]\ntimeout = \"60s\"\n"),
    );
    write(&host, B, &format!("{GUARANTEED}cpu = \"{most}%\"\n"));
    wait_for("there is no room for the other", seconds(10), || {
        host.problems().len() == 1
    });
    let upstream = host.dispatch(A).upstream();
    let holder = std::thread::spawn(move || harness::http::get(&upstream, "/hold/60", seconds(60)));
    wait_for("60M are in use", seconds(20), || {
        let used = host.status(A)["usage"]["memory_bytes"].as_u64();
        used.unwrap_or(0) > 60 << 20
    });
    let refused = change(&host, &json!({"cpu": format!("{less}%"), "memory": "32M"}));
    assert_eq!(refused.status, 409, "{}", refused.json());
    assert_eq!(promises(&host)["cpu"]["promised"], format!("{most}%"));
    assert_eq!(host.problems().len(), 1, "{:?}", host.problems());
    assert!(host.problems()[0].to_string().contains(B));
    // What is given up for sure is theirs who wait.
    let changed = change(&host, &json!({"cpu": format!("{less}%")}));
    assert_eq!(changed.status, 200, "{}", changed.json());
    assert_eq!(
        promises(&host)["cpu"]["promised"],
        format!("{}%", most + less)
    );
    assert!(host.problems().is_empty(), "{:?}", host.problems());
    host.verb(A, "stop");
    let _ = holder.join().unwrap();
    host.finish();
}

#[test]
fn a_definition_whose_limits_are_being_changed_keeps_others_waiting_once() {
    let host = Host::new("");
    let socket = host.socket();
    let documents = [A, B].map(|name| (name, host.documents(name)));
    let ask = |method: &str, path: &str, body: &Value| {
        let path = format!("/v1/vhosts/{path}");
        harness::http::request(&socket, method, &path, body.to_string().as_bytes()).unwrap()
    };
    let put = |name: &str, pids: u64| {
        let documents = documents.iter().find(|(of, _)| *of == name);
        let body = json!({
            "owner": "acme", "documents": documents.unwrap().1, "listen": "tcp:8080",
            "command": ["/usr/bin/busybox", "sleep", "3600"],
            "limits": {"pids": pids}, "start": {"timeout": "10m"}, "stop": {"timeout": "1s"},
        });
        let answer = ask("PUT", name, &body);
        assert_eq!(answer.status, 200, "{name}: {}", answer.json());
    };
    let in_force = || {
        let told = text(&host.ctl(&["--json", "events"]));
        let mut all: Vec<Value> = told.lines().flat_map(serde_json::from_str).collect();
        all.retain(|event| event["change"] == "in force" && event["vhost"] == A);
        all.len()
    };
    put(A, 20);
    std::thread::scope(|threads| {
        threads.spawn(|| ask("POST", &format!("{A}/start"), &Value::Null));
        wait_for("it starts", seconds(20), || {
            host.status(A)["state"] == "starting"
        });
        // Waits for the end of the start.
        threads.spawn(|| ask("PATCH", &format!("{A}/limits"), &json!({"cpu": "50%"})));
        std::thread::sleep(seconds(1));
        let before = in_force();
        threads.spawn(|| put(A, 30));
        wait_for("the definition is written", seconds(20), || {
            in_force() > before
        });
        let began = Instant::now();
        put(B, 20);
        let waited = began.elapsed();
        assert_eq!(host.verb(A, "stop").status, 200);
        println!("waited {waited:?}");
        // 10 s, not three times that.
        assert!(waited.as_secs() < 25, "{waited:?}");
    });
    wait_for("all of it is in force", seconds(20), || {
        let limits = &host.status(A)["limits"];
        limits["pids"] == 30 && limits["cpu"] == "50%"
    });
    host.finish();
}
