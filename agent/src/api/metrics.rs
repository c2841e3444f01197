//! `GET /metrics`: Prometheus text. Its length does not grow with the number of sites: states are counted, and only the
//! busiest vhosts and owners have lines of their own.

use std::fmt::Write;

use super::answer::{self, Answer};
use super::problem::Problem;
use super::rights::{Peer, Role};
use super::server::Server;
use crate::accounts::exposed::{Shown, Snapshot};
use crate::accounts::sums::Field;
use crate::site::Hit;

/// Stands for all that have no line of their own; no vhost or owner can be called so.
const OTHER: &str = "(other)";

/// What is shown of each, and what it is.
const FIELDS: [(Field, &str); 8] = [
    (Field::Cpu, "CPU time used"),
    (
        Field::Throttled,
        "Time for which it was held back at a CPU limit",
    ),
    (Field::IoRead, "Bytes read from disks"),
    (Field::IoWrite, "Bytes written to disks"),
    (Field::NetRx, "Bytes received over the network"),
    (Field::NetTx, "Bytes sent over the network"),
    (Field::Starts, "Starts that were begun"),
    (
        Field::OomKills,
        "Processes that the kernel killed for want of memory",
    ),
];

pub(super) fn metrics(server: &Server, peer: &Peer) -> Answer {
    if peer.role != Role::Operator {
        return Err(Problem::forbidden("metrics are the operators'"));
    }
    let registry = &server.registry;
    let counts = registry.count(&peer.role);
    let mut text = Text::default();
    let one = |value: f64| vec![(String::new(), value)];
    text.metric(
        "vhosts_defined",
        "gauge",
        "Vhosts with a definition.",
        one(counts.defined as f64),
    );
    let states = counts.states.iter();
    text.metric(
        "vhosts",
        "gauge",
        "Vhosts by state; those never woken are not counted.",
        states.map(|(state, n)| (format!("{{state=\"{state}\"}}"), *n as f64)),
    );
    text.metric(
        "dispatches_total",
        "counter",
        "Dispatch requests since the agent's start.",
        one(counts.dispatches as f64),
    );
    text.metric(
        "starts_total",
        "counter",
        "Container starts since the agent's start.",
        one(counts.starts as f64),
    );
    text.metric(
        "uptime_seconds",
        "gauge",
        "Time since the agent's start.",
        one(registry.platform().uptime().as_secs_f64()),
    );
    for hit in Hit::ALL {
        let (name, help) = hit.metric();
        let value = registry.platform().hits.get(hit);
        text.metric(name, "counter", help, one(value.as_f64().unwrap_or(0.0)));
    }
    text.usage(&registry.platform().accounts.exposed());
    Ok(answer::with_type(text.0, "text/plain; version=0.0.4"))
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn metric(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        lines: impl IntoIterator<Item = (String, f64)>,
    ) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP fastcontainer_{name} {help}\n# TYPE fastcontainer_{name} {kind}"
        );
        for (labels, value) in lines {
            let _ = writeln!(self.0, "fastcontainer_{name}{labels} {value}");
        }
    }

    fn usage(&mut self, used: &Snapshot) {
        let vhosts = used.vhosts.iter().map(|shown| {
            let (vhost, owner) = shown.name.as_ref().map_or((OTHER, OTHER), |(v, o)| (v, o));
            (format!("{{vhost=\"{vhost}\",owner=\"{owner}\"}}"), shown)
        });
        let owners = used.owners.iter().map(|shown| {
            let owner = shown.name.as_deref().unwrap_or(OTHER);
            (format!("{{owner=\"{owner}\"}}"), shown)
        });
        let busiest = "since it is shown; (other): of those not shown at the time";
        self.each("vhost", busiest, &vhosts.collect::<Vec<_>>());
        self.each("owner", busiest, &owners.collect::<Vec<_>>());
        let all = [(String::new(), &used.all)];
        self.each("all", "by all vhosts since the agent's start", &all);
    }

    fn each<K>(&mut self, of: &str, since: &str, lines: &[(String, &Shown<K>)]) {
        for (field, help) in FIELDS {
            let (name, unit) = field.shown();
            let value = |shown: &Shown<K>| shown.sums.get(field) as f64 / f64::from(unit);
            let lines = lines.iter();
            self.metric(
                &format!("{of}_{name}_total"),
                "counter",
                &format!("{help}, {since}."),
                lines.map(|(labels, shown)| (labels.clone(), value(shown))),
            );
        }
        let lines = lines.iter();
        self.metric(
            &format!("{of}_memory_bytes"),
            "gauge",
            "Memory of living containers when they were read last.",
            lines.map(|(labels, shown)| (labels.clone(), shown.memory as f64)),
        );
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::accounts::sums::Sums;

    #[test]
    fn lines_for_the_busiest_and_one_for_the_rest() {
        let shown = |cpu, memory| {
            let mut sums = Sums::default();
            sums.set(Field::Cpu, cpu);
            (sums, memory)
        };
        let line = |name, (sums, memory)| Shown { name, sums, memory };
        let mut text = Text::default();
        text.usage(&Snapshot {
            vhosts: vec![
                line(
                    Some(("a.example".into(), "acme".into())),
                    shown(2_500_000, 7),
                ),
                line(None, shown(1_000_000, 5)),
            ],
            owners: vec![
                Shown {
                    name: Some("acme".into()),
                    sums: shown(3_500_000, 0).0,
                    memory: 12,
                },
                Shown {
                    name: None,
                    sums: Sums::default(),
                    memory: 0,
                },
            ],
            all: Shown {
                name: Some(()),
                sums: shown(3_500_000, 0).0,
                memory: 12,
            },
        });
        for line in [
            "# TYPE fastcontainer_vhost_cpu_seconds_total counter",
            "fastcontainer_vhost_cpu_seconds_total{vhost=\"a.example\",owner=\"acme\"} 2.5",
            "fastcontainer_vhost_cpu_seconds_total{vhost=\"(other)\",owner=\"(other)\"} 1",
            "fastcontainer_owner_cpu_seconds_total{owner=\"acme\"} 3.5",
            "fastcontainer_owner_oom_kills_total{owner=\"(other)\"} 0",
            "fastcontainer_all_cpu_seconds_total 3.5",
            "# TYPE fastcontainer_vhost_memory_bytes gauge",
            "fastcontainer_vhost_memory_bytes{vhost=\"(other)\",owner=\"(other)\"} 5",
            "fastcontainer_all_memory_bytes 12",
        ] {
            assert!(
                text.0.lines().any(|l| l == line),
                "{line} is not in\n{}",
                text.0
            );
        }
        // Nothing is told twice: that would make the whole unreadable.
        let mut keys: Vec<&str> = text
            .0
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap().0)
            .collect();
        keys.sort_unstable();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }
}
