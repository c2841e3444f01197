//! CPU time: a quota, a weight beside a sibling, and a burst.

use harness::Host;
use harness::inside::{ask, site};
use harness::limits::{SITE, first_of_all};

use super::limits;
use super::table::{Cell, Table, When};

pub(crate) const LIMITS: [&str; 3] = ["cpu", "cpu_weight", "cpu_burst"];
const WITHIN: f64 = 0.05;

fn number(host: &Host, vhost: &str, what: &str) -> f64 {
    let said = ask(host, vhost, what, 120);
    said.parse().unwrap_or_else(|_| panic!("{what}: {said}"))
}

#[test]
fn quota() {
    let host = Host::new("");
    first_of_all(&host);
    site(&host, SITE, &limits("cpu = \"20%\""));
    let mut table = Table::new(&host);
    // More than one CPU is not wanted by one thread.
    for (when, percent) in [(When::Start, 20), (When::Up, 65), (When::Down, 10)] {
        if when != When::Start {
            table.change(&[&format!("cpu={percent}%")]);
        }
        let cell = Cell {
            limit: "cpu",
            when,
            wanted: f64::from(percent),
            unit: "%",
            within: WITHIN,
            of_two: false,
        };
        table.near(cell, || number(&host, SITE, "cpu/2000"));
        table.processes();
    }
    table.finish(&["cpu"]);
    host.finish();
}

/// The part of one CPU that the site gets while its sibling of weight 100 wants all of it as well, in percent.
fn beside_a_sibling(host: &Host) -> f64 {
    // Both are awake.
    for vhost in [SITE, "b.example.com"] {
        ask(host, vhost, "pid", 60);
    }
    let addresses = [SITE, "b.example.com"].map(|vhost| host.dispatch(vhost).upstream());
    let threads = addresses.map(|address| {
        std::thread::spawn(move || {
            let answer =
                harness::http::get(&address, "/cpu-beside-others/1500", harness::seconds(60))
                    .unwrap();
            let text = String::from_utf8(answer.body).unwrap();
            text.parse::<f64>().unwrap_or_else(|_| panic!("{text}"))
        })
    });
    let [own, sibling] = threads.map(|thread| thread.join().unwrap());
    own / (own + sibling) * 100.0
}

#[test]
fn weight() {
    let host = Host::new("");
    first_of_all(&host);
    site(&host, SITE, &limits("cpu_weight = 150"));
    site(&host, "b.example.com", "");
    let mut table = Table::new(&host);
    for (when, weight, percent) in [
        (When::Start, 150, 60.0),
        (When::Up, 400, 80.0),
        (When::Down, 50, 100.0 / 3.0),
    ] {
        if when != When::Start {
            table.change(&[&format!("cpu_weight={weight}")]);
        }
        let cell = Cell {
            limit: "cpu_weight",
            when,
            wanted: percent,
            unit: "% of two",
            within: WITHIN,
            of_two: true,
        };
        table.near(cell, || beside_a_sibling(&host));
        table.processes();
    }
    table.finish(&["cpu_weight"]);
    host.finish();
}

#[test]
fn burst() {
    let host = Host::new("");
    first_of_all(&host);
    site(&host, SITE, &limits("cpu = \"40%\"\ncpu_burst = \"10%\""));
    let mut table = Table::new(&host);
    // Once the site has paused, a period has its quota and what was saved up, and up to a tick of the kernel more.
    for (when, burst) in [(When::Start, 10), (When::Up, 20), (When::Down, 5)] {
        if when != When::Start {
            table.change(&[&format!("cpu_burst={burst}%")]);
        }
        let wanted = f64::from(40 + burst);
        let cell = Cell {
            limit: "cpu_burst",
            when,
            wanted,
            unit: "ms",
            within: WITHIN,
            of_two: false,
        };
        table.near(cell, || number(&host, SITE, "cpu-after-a-pause/8") / 1000.0);
        table.processes();
    }
    table.finish(&["cpu_burst"]);
    host.finish();
}
