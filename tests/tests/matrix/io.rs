//! Bytes and operations per second of the documents' disk, each way.

use harness::inside::{ask, put_a_file, site};
use harness::limits::SITE;
use harness::{Host, skip};

use super::limits;
use super::table::{Cell, Table, When};

pub(crate) const LIMITS: [&str; 5] = [
    "io.read",
    "io.write",
    "io.read_iops",
    "io.write_iops",
    "io.weight",
];
const RATES: usize = 4;

#[test]
fn rates() {
    let host = Host::new("");
    put_a_file(&host, SITE);
    site(
        &host,
        SITE,
        &limits("io = { read = \"4MB/s\", write = \"2MB/s\", read_iops = 200, write_iops = 150 }"),
    );
    let answer = host.dispatch(SITE);
    if answer.status != 200 && String::from_utf8_lossy(&answer.body).contains("no block device") {
        skip("this directory's file system is on no disk");
        return host.finish();
    }
    let mut table = Table::new(&host);
    // In large pieces the bytes are what counts, in small ones the operations.
    for (when, rates) in [
        (When::Start, [4, 2, 200, 150]),
        (When::Up, [7, 5, 400, 300]),
        (When::Down, [2, 1, 100, 120]),
    ] {
        if when != When::Start {
            let [read, write, reads, writes] = rates;
            table.change(&[
                &format!("io.read={read}MB/s"),
                &format!("io.write={write}MB/s"),
                &format!("io.read_iops={reads}"),
                &format!("io.write_iops={writes}"),
            ]);
        }
        for (at, (limit, rate)) in LIMITS.into_iter().zip(rates).enumerate() {
            let (unit, scale) = if at < 2 { ("MB/s", 1e-6) } else { ("/s", 1.0) };
            let what = ["read", "write", "reads", "writes"][at];
            let cell = Cell {
                limit,
                when,
                wanted: f64::from(rate),
                unit,
                within: 0.1,
            };
            table.near(cell, |longer| {
                let said = ask(&host, SITE, &format!("{what}/{}", 900 * longer), 120);
                said.parse::<f64>()
                    .unwrap_or_else(|_| panic!("{what}: {said}"))
                    * scale
            });
        }
        table.processes();
    }
    table.finish(&LIMITS[..RATES]);
    host.finish();
}
