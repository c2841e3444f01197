//! Processes and threads: exactly as many as the limit says, of which the container's init and the site's command are two.

use harness::Host;
use harness::inside::{ask, site};
use harness::limits::SITE;

use super::limits;
use super::table::{Table, When};

pub(crate) const LIMITS: [&str; 1] = ["pids"];

#[test]
fn pids() {
    let host = Host::new("");
    site(&host, SITE, &limits("pids = 20"));
    let mut table = Table::new(&host);
    for (when, most) in [(When::Start, 20), (When::Up, 45), (When::Down, 7)] {
        if when != When::Start {
            table.change(&[&format!("pids={most}")]);
        }
        let said = ask(&host, SITE, "fork/200", 60);
        let (children, errno) = said.split_once(' ').unwrap();
        assert_eq!(errno, libc::EAGAIN.to_string(), "{said}");
        let children: u64 = children.parse().unwrap();
        table.exact("pids", when, most, 2 + children);
        table.processes();
    }
    table.finish(&LIMITS);
    host.finish();
}
