//! Sites that fail: back-off, crashes, memory.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use harness::sites::{put, script};
use harness::{Answer, Host, STATIC, seconds, wait_for};

const SITE: &str = "a.example.com";

fn kind(answer: &Answer) -> String {
    answer.json()["type"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn retry_after(answer: &Answer) -> u64 {
    answer
        .header("retry-after")
        .unwrap_or_else(|| panic!("{answer:?}"))
        .parse()
        .unwrap()
}

const UNLESS_OK: &str =
    "[ -e /site/ok ] || { echo no ok; exit 1; }; exec busybox httpd -f -p 8080 -h /site";

#[test]
fn the_back_off_grows_is_kept_and_ends() {
    let host = Host::new("");
    let documents = host.site(SITE, &script(UNLESS_OK));
    let (mut began, mut failed) = (Instant::now(), host.dispatch(SITE));
    let mut refusals = 0;
    for (failures, delay) in [(1, 1), (2, 2), (3, 4)] {
        assert_eq!(
            (failed.status, kind(&failed).as_str(), retry_after(&failed)),
            (503, "start-failed", delay),
            "{failed:?}"
        );
        let status = host.status(SITE);
        assert_eq!(status["failures"], failures);
        assert!(status["retry_after_s"].as_f64().unwrap() <= delay as f64);
        if failures == 3 {
            break;
        }
        // The start that failed was after `began`, so the next one is that much later at least.
        wait_for("the back-off is over", seconds(10), || {
            let asked = Instant::now();
            let answer = host.dispatch(SITE);
            if kind(&answer) == "backing-off" {
                assert!(answer.status == 503 && retry_after(&answer) <= delay);
                refusals += 1;
                return false;
            }
            assert!(began.elapsed() >= Duration::from_secs(delay), "{answer:?}");
            (began, failed) = (asked, answer);
            true
        });
    }
    assert!(refusals > 0);
    assert_eq!(host.status(SITE)["starts"], 3);
    put(&documents, "ok", "");
    // Still in the back-off: a stop by hand forgets it, and the next request is served.
    assert_eq!(kind(&host.dispatch(SITE)), "backing-off");
    assert_eq!(host.verb(SITE, "stop").json()["state"], "stopped");
    assert_eq!(host.get(SITE, "/").status, 200);
    assert_eq!(host.status(SITE)["failures"], 0);
    host.finish();
}

#[test]
fn a_new_definition_ends_the_back_off() {
    let host = Host::new("");
    host.site(SITE, &script("exit 1"));
    assert_eq!(kind(&host.dispatch(SITE)), "start-failed");
    assert_eq!(host.state(SITE), "failed");
    host.site(SITE, STATIC);
    host.wait_state(SITE, "stopped", 5);
    assert_eq!(host.dispatch(SITE).json()["cold"], true);
    host.finish();
}

#[test]
fn the_next_request_after_a_crash_starts_it() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    let crash = || {
        let pid = host.status(SITE)["pid"].clone();
        assert_eq!(
            host.request(
                "POST",
                &format!("/v1/vhosts/{SITE}/signal"),
                br#"{"signal":"KILL"}"#
            )
            .status,
            200
        );
        wait_for("its end is noticed", seconds(5), || {
            host.status(SITE)["pid"] != pid && host.state(SITE) != "stopping"
        });
    };
    crash();
    let status = host.status(SITE);
    assert_eq!(
        (
            status["state"].as_str(),
            status["last_exit"]["signal"].as_i64()
        ),
        (Some("stopped"), Some(9))
    );
    assert_eq!(status["last_exit"]["cause"], "ended by signal 9");
    assert_eq!(host.dispatch(SITE).json()["cold"], true);
    // The second time in a row it has to wait.
    crash();
    let refused = host.dispatch(SITE);
    assert_eq!(
        (
            refused.status,
            kind(&refused).as_str(),
            retry_after(&refused)
        ),
        (503, "backing-off", 1)
    );
    wait_for("it is tried again", seconds(10), || {
        host.dispatch(SITE).status == 200
    });
    host.finish();
}

#[test]
fn a_request_at_the_moment_of_a_crash_is_answered() {
    let host = Host::new("");
    host.site(SITE, STATIC);
    host.dispatch(SITE).upstream();
    let init = u32::try_from(host.status(SITE)["init_pid"].as_u64().unwrap()).unwrap();
    harness::send_signal(init, libc::SIGKILL);
    // The agent may not have seen it yet, nor the kernel have closed its sockets: the old server may answer once more. But no
    // dispatch is refused.
    wait_for("the site serves again", seconds(5), || {
        let upstream = host.dispatch(SITE).upstream();
        let page = harness::http::get(&upstream, "/", seconds(10));
        page.is_ok_and(|page| page.status == 200) && host.status(SITE)["init_pid"] != init
    });
    host.finish();
}

const GLUTTON: &str = r"
import http.server
class Site(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == '/eat':
            self.server.eaten = b'x' * (200 << 20)
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(('', 8080), Site).serve_forever()
";

#[test]
fn out_of_memory_ends_it_with_its_cause_and_the_next_request_starts_it() {
    let host = Host::new("");
    host.site("b.example.com", STATIC);
    let other = host.dispatch("b.example.com").json();
    let rest = "listen = \"tcp:8080\"\n[start]\ntimeout = \"120s\"\n[limits]\nmemory = \"64M\"\nswap = \"0\"\n";
    let rest = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        rest.to_owned()
    } else {
        rest.replace("swap = \"0\"\n", "")
    };
    let documents = host.site(
        SITE,
        &format!("command = [\"python3\", \"/site/server.py\"]\n{rest}"),
    );
    put(&documents, "server.py", GLUTTON);
    assert_eq!(host.get(SITE, "/").status, 200);
    let pid = host.status(SITE)["pid"].clone();
    let upstream = host.dispatch(SITE).upstream();
    assert!(
        harness::http::get(&upstream, "/eat", seconds(20)).is_err(),
        "it was killed before it could answer"
    );
    wait_for("its end is noticed", seconds(10), || {
        host.status(SITE)["last_exit"]["cause"] != serde_json::Value::Null
    });
    let exit = host.status(SITE)["last_exit"].clone();
    assert_eq!(
        (exit["cause"].as_str(), exit["signal"].as_i64()),
        (Some("out of memory (limit 64M)"), Some(9))
    );
    assert_eq!(host.get(SITE, "/").status, 200);
    assert_ne!(host.status(SITE)["pid"], pid);
    assert_eq!(host.status("b.example.com")["upstream"], other["upstream"]);
    assert_eq!(host.get("b.example.com", "/").status, 200);
    host.finish();
}

#[test]
fn what_cannot_be_executed_is_said() {
    let host = Host::new("");
    host.site(
        SITE,
        "command = [\"/usr/bin/no-such-program\"]\nlisten = \"tcp:8080\"\n",
    );
    let answer = host.dispatch(SITE);
    assert_eq!(
        (answer.status, kind(&answer).as_str()),
        (503, "start-failed")
    );
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(
        detail.contains("/usr/bin/no-such-program") && detail.contains("No such file"),
        "{detail}"
    );
    host.finish();
}
