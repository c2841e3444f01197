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
        };
        table.near(cell, |longer| {
            number(&host, SITE, &format!("cpu/{}", 1500 * longer))
        });
        table.processes();
    }
    table.finish(&["cpu"]);
    host.finish();
}

/// The part of one CPU that the site gets while its sibling of weight 100 wants all of it as well, in percent.
fn beside_a_sibling(host: &Host, longer: u32) -> f64 {
    // Both are awake.
    for vhost in [SITE, "b.example.com"] {
        ask(host, vhost, "pid", 60);
    }
    let addresses = [SITE, "b.example.com"].map(|vhost| host.dispatch(vhost).upstream());
    let what = format!("/cpu-beside-others/{}", 1500 * longer);
    let threads = addresses.map(|address| {
        let what = what.clone();
        std::thread::spawn(move || {
            let answer = harness::http::get(&address, &what, harness::seconds(60)).unwrap();
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
        };
        table.near(cell, |longer| beside_a_sibling(&host, longer));
        table.processes();
    }
    table.finish(&["cpu_weight"]);
    host.finish();
}

#[test]
fn burst() {
    let host = Host::new("");
    first_of_all(&host);
    site(&host, SITE, &limits("cpu = \"50%\"\ncpu_burst = \"15%\""));
    let mut table = Table::new(&host);
    // Once the site has paused, two periods have their quota and what was saved up, and up to a tick of the kernel more.
    for (when, burst) in [(When::Start, 15), (When::Up, 25), (When::Down, 10)] {
        if when != When::Start {
            table.change(&[&format!("cpu_burst={burst}%")]);
        }
        let cell = Cell {
            limit: "cpu_burst",
            when,
            wanted: f64::from(2 * 50 + burst),
            unit: "ms",
            within: WITHIN,
        };
        table.near(cell, |longer| {
            number(&host, SITE, &format!("cpu-after-a-pause/{}", 4 * longer)) / 1000.0
        });
        table.processes();
    }
    table.finish(&["cpu_burst"]);
    host.finish();
}
