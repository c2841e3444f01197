//! Open files of one process. Without CAP_SYS_RESOURCE nobody can raise them for a process that runs: that is refused, and the
//! site has more from its next start.

use harness::Host;
use harness::inside::{ask, site};
use harness::limits::{SITE, may_raise_files, patch, set};
use serde_json::json;

use super::limits;
use super::table::{Table, When};

pub(crate) const LIMITS: [&str; 1] = ["nofile"];

fn most(host: &Host) -> u64 {
    let said = ask(host, SITE, "files", 60);
    let (files, errno) = said.split_once(' ').unwrap();
    assert_eq!(errno, libc::EMFILE.to_string(), "{said}");
    files.parse().unwrap()
}

#[test]
fn open_files() {
    let host = Host::new("");
    site(&host, SITE, &limits("nofile = 64"));
    let mut table = Table::new(&host);
    table.exact("nofile", When::Start, 64, most(&host));
    if may_raise_files() {
        table.change(&["nofile=200"]);
    } else {
        let refused = patch(&host, &json!({"nofile": 200}));
        assert_eq!(refused.status, 409, "{}", refused.json());
        assert_eq!(most(&host), 64);
        table.processes();
        assert_eq!(host.verb(SITE, "stop").status, 200);
        set(&host, &["nofile=200"]);
        table.restarted();
    }
    table.exact("nofile", When::Up, 200, most(&host));
    table.change(&["nofile=32"]);
    table.exact("nofile", When::Down, 32, most(&host));
    table.finish(&LIMITS);
    host.finish();
}
