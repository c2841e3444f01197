//! Network traffic out of and into the container, by the counters of its own end of the link.

use std::time::Duration;

use harness::Host;
use harness::inside::site;
use harness::limits::SITE;
use harness::traffic::{egress, ingress};

use super::limits;
use super::table::{Cell, Table, When};

pub(crate) const LIMITS: [&str; 2] = ["egress", "ingress"];
const FLOW: Duration = Duration::from_millis(1500);

#[test]
fn both_ways() {
    let host = Host::new("");
    site(
        &host,
        SITE,
        &limits("egress = \"12Mbit\"\ningress = \"16Mbit\""),
    );
    let mut table = Table::new(&host);
    for (when, out, into) in [
        (When::Start, 12, 16),
        (When::Up, 24, 32),
        (When::Down, 8, 10),
    ] {
        if when != When::Start {
            table.change(&[&format!("egress={out}Mbit"), &format!("ingress={into}Mbit")]);
        }
        let cell = |limit, rate: u32| Cell {
            limit,
            when,
            wanted: f64::from(rate),
            unit: "Mbit/s",
            within: 0.1,
        };
        table.near(cell("egress", out), |longer| {
            egress(&host, FLOW * longer) * 8e-6
        });
        table.near(cell("ingress", into), |longer| {
            ingress(&host, FLOW * longer) * 8e-6
        });
        table.processes();
    }
    table.finish(&LIMITS);
    host.finish();
}
