//! Swap beside the memory, where the host has some.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use harness::inside::{ask, site};
use harness::limits::SITE;
use harness::{Host, run, skip};

use super::limits;
use super::memory::{IN_A_MIB, batches, counted};
use super::table::{Table, When};

pub(crate) const LIMITS: [&str; 1] = ["swap"];
const MEMORY: u64 = 16;
/// Pages that are being written at the end are in memory and in swap: the kernel takes so many at a time.
const BOTH: u64 = 32;

/// Swap of the virtual machine's own; a host is not given any by a test.
struct Area(PathBuf);

impl Area {
    fn new(host: &Host) -> Option<Self> {
        std::env::var_os("FASTCONTAINER_VM")?;
        let file = host.dir.join("swap");
        let path = file.to_str().unwrap();
        run(
            "dd",
            &[
                "if=/dev/zero",
                &format!("of={path}"),
                "bs=1M",
                "count=48",
                "status=none",
            ],
        );
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        run("mkswap", &["-q", path]);
        run("swapon", &[path]);
        Some(Self(file))
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        let _ = Command::new("swapoff").arg(&self.0).output();
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn swap() {
    let host = Host::new("");
    let area = Area::new(&host);
    if fs::read_to_string("/proc/swaps").unwrap().lines().count() < 2 {
        skip("this host has no swap, so that a limit of it has no effect");
        return host.finish();
    }
    site(
        &host,
        SITE,
        &limits(&format!("memory = \"{MEMORY}M\"\nswap = \"12M\"")),
    );
    let mut table = Table::new(&host);
    for (when, mib) in [(When::Start, 12), (When::Up, 24), (When::Down, 8)] {
        if when != When::Start {
            table.change(&[&format!("swap={mib}M")]);
        }
        let said = ask(&host, SITE, "pages/200", 600);
        let (got, end) = said.split_once(' ').unwrap();
        assert_eq!(end, "signal 9", "{said}");
        let got: u64 = got.parse().unwrap();
        let rest = counted(&host, "memory_bytes") + got.div_ceil(512) + 1;
        let all = (MEMORY + mib) * IN_A_MIB;
        println!("swap {when}: {got} pages and {rest} for the rest of {all}");
        assert!(
            (got + rest).abs_diff(all) <= batches() + BOTH,
            "{got} + {rest} of {all}"
        );
        let inside = (got + rest).saturating_sub(MEMORY * IN_A_MIB);
        let wanted = mib * IN_A_MIB;
        let over = inside as i64 - wanted as i64;
        table.row(
            "swap",
            when,
            &format!("{wanted} pages"),
            &format!("{inside} pages"),
            &over.to_string(),
        );
        table.processes();
    }
    table.finish(&LIMITS);
    host.verb(SITE, "down");
    drop(area);
    host.finish();
}
