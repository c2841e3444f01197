//! Disk space of the documents.

use harness::Host;
use harness::inside::{ask, site};
use harness::limits::SITE;
use harness::quotas::Quotas;
use serde_json::json;

use super::table::{Table, When};
use super::{limits, refused, refused_at_start};

pub(crate) const LIMITS: [&str; 1] = ["disk"];
/// Files of the site are written in pieces of this size, and its file system takes space in blocks of it.
const BLOCK: u64 = 1 << 10;

#[test]
fn space() {
    let host = Host::new("");
    let Some(quotas) = Quotas::mount(&host, "ext4") else {
        site(&host, SITE, "");
        let mut table = Table::new(&host);
        assert_eq!(host.dispatch(SITE).status, 200);
        for (when, size) in [(When::Start, "24M"), (When::Up, "28M"), (When::Down, "20M")] {
            match when {
                When::Start => {
                    refused_at_start(&host, &format!("disk = {size:?}"), "without project quotas")
                }
                _ => refused(&host, &json!({"disk": size}), "without project quotas"),
            };
            table.processes();
            table.refused("disk", when, size);
        }
        table.finish(&LIMITS);
        return host.finish();
    };
    site(&host, SITE, &limits("disk = \"16M\""));
    let mut table = Table::new(&host);
    for (when, mib) in [(When::Start, 16), (When::Up, 20), (When::Down, 12)] {
        if when == When::Down {
            assert_eq!(ask(&host, SITE, "empty", 60), "empty");
        }
        if when != When::Start {
            table.change(&[&format!("disk={mib}M")]);
        }
        let said = ask(&host, SITE, "fill/40000", 300);
        let (_, errno) = said.split_once(' ').unwrap();
        let full = [libc::EDQUOT, libc::ENOSPC].map(|errno| errno.to_string());
        assert!(full.contains(&errno.to_owned()), "{said}");
        let used = host.status(SITE)["usage"]["disk_bytes"].as_u64().unwrap();
        println!("{said} used {used} of {}", mib << 20);
        table.exact("disk", when, (mib << 20) / BLOCK, used / BLOCK);
        table.processes();
    }
    table.finish(&LIMITS);
    host.verb(SITE, "down");
    drop(quotas);
    host.finish();
}
