//! Memory: a limit, a level from which on it is reclaimed, and what is never taken away.
//!
//! The kernel counts pages, and refuses exactly the one that would be too much: its own peak is the limit to the byte. What
//! a process gets of it is all but what else the container needs (programs, page tables, the kernel's structures for it).
//! That is known to the batch only: each CPU takes 64 pages at a time from the counter and hands out single ones.

use std::fs;
use std::path::Path;

use harness::inside::{ask, site};
use harness::limits::SITE;
use harness::{Host, cgroup_roots};
use serde_json::json;

use super::table::{Table, When};
use super::{is_v2, limits, refused, refused_at_start};

pub(crate) const LIMITS: [&str; 3] = ["memory", "memory_high", "memory_min"];
const PAGE: u64 = 4096;
pub(crate) const IN_A_MIB: u64 = 256;

/// Pages that the counter may be ahead of what is used.
pub(crate) fn batches() -> u64 {
    64 * std::thread::available_parallelism().unwrap().get() as u64
}

/// Pages by the kernel's counter of the site.
pub(crate) fn counted(host: &Host, what: &str) -> u64 {
    host.status(SITE)["usage"][what].as_u64().unwrap() / PAGE
}

fn pages(host: &Host, what: &str) -> u64 {
    let said = ask(host, SITE, what, 300);
    said.parse().unwrap_or_else(|_| panic!("{what}: {said}"))
}

/// One process takes page after page until it is killed.
fn filled(table: &mut Table<'_>, host: &Host, when: When, mib: u64) {
    let said = ask(host, SITE, "pages/200", 300);
    let (got, end) = said.split_once(' ').unwrap();
    assert_eq!(end, "signal 9", "{said}");
    let got: u64 = got.parse().unwrap();
    let limit = mib * IN_A_MIB;
    let peak = counted(host, "memory_peak_bytes");
    // Once it has ended, the rest is what is still there, and its page tables.
    let rest = counted(host, "memory_bytes") + got.div_ceil(512) + 1;
    println!("memory {when}: {got} pages and {rest} for the rest of {limit}; at its peak {peak}");
    assert!(
        (got + rest).abs_diff(limit) <= batches(),
        "{got} + {rest} of {limit}"
    );
    assert_eq!(peak, limit, "the kernel's peak");
    let words = [
        format!("{limit} pages"),
        format!("{got} + {} others", peak - got),
    ];
    table.row("memory", when, &words[0], &words[1], "0");
    table.processes();
}

#[test]
fn limit() {
    let host = Host::new("");
    site(&host, SITE, &limits("memory = \"24M\"\nswap = \"0\""));
    let mut table = Table::new(&host);
    filled(&mut table, &host, When::Start, 24);
    table.change(&["memory=48M"]);
    filled(&mut table, &host, When::Up, 48);
    // A peak of its own.
    assert_eq!(host.verb(SITE, "restart").status, 200);
    table.restarted();
    table.change(&["memory=32M"]);
    filled(&mut table, &host, When::Down, 32);
    table.finish(&["memory"]);
    host.finish();
}

#[test]
fn high() {
    let host = Host::new("");
    let all = [(When::Start, 16), (When::Up, 28), (When::Down, 12)];
    if !is_v2() {
        site(&host, SITE, "");
        refused_everywhere(&host, "memory_high", all);
        return host.finish();
    }
    site(&host, SITE, &limits("memory_high = \"16M\""));
    let mut table = Table::new(&host);
    for (when, mib) in all {
        if when != When::Start {
            table.change(&[&format!("memory_high={mib}M")]);
        }
        // More than that is written and read: no more stays, nobody is killed.
        let inside = pages(&host, "cache/40960");
        let (all, high) = (counted(&host, "memory_bytes"), mib * IN_A_MIB);
        println!("memory_high {when}: {inside} pages of a file, {all} in all, of {high}");
        assert!(all <= high + batches(), "{all} pages of {high}");
        assert!(
            inside <= all && inside > high * 3 / 4,
            "{inside} of {all} pages"
        );
        let over = all.saturating_sub(high);
        table.row(
            "memory_high",
            when,
            &format!("{high} pages"),
            &format!("{inside} cached"),
            &over.to_string(),
        );
        assert_eq!(host.status(SITE)["usage"]["oom_kills"], 0);
        table.processes();
    }
    table.finish(&["memory_high"]);
    host.finish();
}

#[test]
fn guarantee() {
    let host = Host::new("");
    let all = [(When::Start, 12), (When::Up, 20), (When::Down, 8)];
    if !is_v2() {
        site(&host, SITE, "");
        refused_everywhere(&host, "memory_min", all);
        return host.finish();
    }
    site(&host, SITE, &limits("memory_min = \"12M\""));
    let parents = cgroup_roots().into_iter();
    let reclaim = parents.map(|root| {
        Path::new(&root)
            .join(&host.cgroup_parent)
            .join("memory.reclaim")
    });
    assert_eq!(host.dispatch(SITE).status, 200);
    let Some(reclaim) = reclaim.into_iter().find(|path| path.exists()) else {
        harness::skip("this kernel has no memory.reclaim");
        return host.finish();
    };
    let mut table = Table::new(&host);
    for (when, mib) in all {
        if when != When::Start {
            table.change(&[&format!("memory_min={mib}M")]);
        }
        let (before, min) = (pages(&host, "cache/40960"), mib * IN_A_MIB);
        assert!(before > min, "{before} pages of a file");
        // All that can be had; it says so when that was less.
        let _ = fs::write(&reclaim, "256M");
        let (inside, all) = (pages(&host, "resident"), counted(&host, "memory_bytes"));
        println!(
            "memory_min {when}: of {before} pages of a file {inside} are left, {all} in all, of {min}"
        );
        assert!(all + batches() >= min, "{all} pages of {min}");
        assert!(
            inside >= min * 3 / 4 && inside < min * 5 / 4,
            "{inside} pages of {min}"
        );
        let under = min.saturating_sub(all);
        table.row(
            "memory_min",
            when,
            &format!("{min} pages"),
            &format!("{inside} cached"),
            &under.to_string(),
        );
        table.processes();
    }
    table.finish(&["memory_min"]);
    host.finish();
}

/// cgroup v1 has nothing like it.
fn refused_everywhere(host: &Host, limit: &str, all: [(When, u64); 3]) {
    let mut table = Table::new(host);
    assert_eq!(host.dispatch(SITE).status, 200);
    for (when, mib) in all {
        let size = format!("{mib}M");
        match (limit, when) {
            // Whoever has it in a file is served without; whoever defines it now is told.
            ("memory_min", When::Start) => refused_as_definition(host, &json!({limit: size})),
            (_, When::Start) => {
                refused_at_start(host, &format!("{limit} = {size:?}"), "cgroup v1");
            }
            _ => refused(host, &json!({limit: size}), "cgroup v1"),
        }
        table.refused(limit, when, &size);
        table.processes();
    }
    table.finish(&[limit]);
}

fn refused_as_definition(host: &Host, limits: &serde_json::Value) {
    let mut definition = host.status(SITE)["definition"].clone();
    definition["limits"] = limits.clone();
    let body = definition.to_string();
    let answer = host.request("PUT", &format!("/v1/vhosts/{SITE}"), body.as_bytes());
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(answer.status, 409, "{detail}");
    assert!(detail.contains("cgroup v1"), "{detail}");
}
