//! A guaranteed site's requests on the idle host, and beside four best-effort sites that do their worst.

use std::time::Duration;

use harness::Host;
use harness::worst::{self, half_of_the_cpus, times};

use crate::Effort;
use crate::report::{Figures, Row};

const SITE: &str = "shop.example.com";
/// In each of as many rounds as there are.
const REQUESTS: usize = 500;

/// On the idle host and beside the others; with CPUs of its own if there are any.
fn both(effort: Effort, cpus: Option<&str>) -> [Vec<Vec<Duration>>; 2] {
    let config = cpus.map(|cpus| format!("guaranteed_cpus = \"{cpus}\"\n"));
    let host = Host::as_installed(&config.unwrap_or_default());
    let limits = "[limits]\nclass = \"guaranteed\"\ncpu = \"50%\"\n[idle]\ntimeout = \"1h\"\n";
    harness::sites::apache(&host, SITE, limits);
    let upstream = host.dispatch(SITE).upstream();
    let rounds = || -> Vec<_> {
        (0..effort.rounds(10))
            .map(|_| times(&upstream, REQUESTS, cpus))
            .collect()
    };
    let idle = rounds();
    worst::begin(&host);
    let beside = rounds();
    host.finish();
    [idle, beside]
}

/// The 99th percentiles of the rounds: what else happens on the machine is in single ones.
fn of_each(who: &str, rounds: &[Vec<Duration>]) -> Figures {
    let p99 = |times: &Vec<Duration>| Figures::millis(who, times).at(99);
    Figures::new(who, "ms", rounds.iter().map(p99).collect())
}

pub(crate) fn measure(effort: Effort) -> Vec<Row> {
    let half = half_of_the_cpus();
    let row = |which: &str, cpus| {
        let [idle, beside] = both(effort, cpus);
        let what = "a guaranteed Apache+PHP site beside a fork bomb, a memory hog, a disk writer and a CPU burner";
        let figures = |who: &str, rounds: &[Vec<Duration>]| Figures::millis(who, &rounds.concat());
        let all = [("idle host", &idle), ("beside the four", &beside)];
        let [was, is] = all.map(|(who, rounds)| figures(who, rounds));
        let [was_each, is_each] =
            all.map(|(who, rounds)| of_each(&format!("p99 of each round, {who}"), rounds));
        let ratios = [is.at(90) / was.at(90), is_each.p50() / was_each.p50()];
        let figures = [was, is, was_each, is_each];
        let row = Row::new(&format!("{what}, {which}"));
        (figures.into_iter().fold(row, Row::with), ratios)
    };
    let (on_all, [p90, _]) = row("all on all CPUs", None);
    let (on_own, [own_p90, p99]) = row(&format!("guaranteed_cpus = \"{half}\""), Some(&half));
    let text = "times that of the idle host";
    vec![
        on_all.at_most(&format!("p90, {text}"), p90, 1.25),
        on_own
            .at_most(&format!("p90, {text}"), own_p90, 1.25)
            .at_most(&format!("p99 of the middle round, {text}"), p99, 1.25),
    ]
}
