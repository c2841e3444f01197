//! Open files of one process. A process has that limit from its beginning: a change is for the next start, and says so.

use harness::Host;
use harness::inside::{ask, site};
use harness::limits::SITE;

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
    let mut before = 64;
    for (when, files) in [(When::Up, 200), (When::Down, 32)] {
        // The processes that there are keep what they have.
        table.change(&[&format!("nofile={files}")]);
        assert_eq!(most(&host), before);
        table.processes();
        assert_eq!(host.verb(SITE, "restart").status, 200);
        table.restarted();
        table.exact("nofile", when, files, most(&host));
        before = files;
    }
    table.finish(&LIMITS);
    host.finish();
}
