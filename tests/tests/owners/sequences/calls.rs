//! All calls that there are, at random.

use std::collections::BTreeMap;

use super::super::*;
use super::{Party, Random};

/// One request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// It is about what is another's by its path or body, and must be refused.
    pub(crate) foreign: bool,
    /// Only operators may.
    pub(crate) operators: bool,
    /// It changes nothing.
    pub(crate) dry_run: bool,
    /// It asks for this division.
    pub(crate) split: Option<(Option<String>, BTreeMap<String, u64>)>,
    /// What it was answered.
    pub(crate) status: u16,
    /// Over an upgraded connection.
    upgrade: bool,
}

impl Call {
    fn new(method: &'static str, path: impl Into<String>, body: Value) -> Self {
        Self {
            method,
            path: path.into(),
            body,
            ..Self::default()
        }
    }

    /// All that is sent.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.path, self.body)
    }

    /// Sends it as this user.
    pub(crate) fn ask(&self, host: &Host, uid: u32) -> Answer {
        if !self.upgrade {
            return ask(host, uid, self.method, &self.path, &self.body);
        }
        let socket = host.socket();
        let body = self.body.to_string();
        as_user(uid, uid, &[], || {
            let mut client = harness::client::Client::connect(&socket).unwrap();
            let headers = "Connection: upgrade\r\nUpgrade: fastcontainer-exec\r\n";
            client
                .send(self.method, &self.path, headers, body.as_bytes())
                .unwrap();
            let head = client.head().unwrap();
            let status = harness::client::status(&head);
            let body = match status {
                101 => Vec::new(),
                _ => client.take().unwrap(),
            };
            Answer {
                status,
                head: String::new(),
                body,
            }
        })
    }
}

/// A call by this owner, about what is theirs, the other's or nobody's.
pub(crate) fn of_owner(random: &mut Random, me: &Party, other: &Party) -> Call {
    let foreign = random.below(3) == 0;
    let nobody = !foreign && random.below(8) == 0;
    let about = if foreign { other } else { me };
    let vhost = if nobody {
        "nobody.example.net"
    } else {
        random.pick(about.sites)
    };
    let owner = if nobody { "nobody" } else { about.name };
    let of = |rest: &str| format!("/v1/vhosts/{vhost}{rest}");
    let for_owner = |rest: &str| format!("/v1/owners/{owner}{rest}");
    let refused = |call: Call| Call { foreign, ..call };
    let operators = |call: Call| Call {
        foreign,
        operators: true,
        ..call
    };
    let null = Value::Null;
    match random.below(24) {
        0 => Call::new("GET", "/v1/vhosts", null),
        1 => Call::new("GET", "/v1/status", null),
        2 => Call::new("GET", "/v1/usage?since=1h&step=1m", null),
        3 => Call::new("GET", "/v1/capacity", null),
        4 => Call::new("GET", "/v1/diagnose?window=20ms", null),
        5 => Call::new("GET", "/metrics", null),
        6 => Call::new("GET", "/v1/events?follow=false", null),
        // Of another's there are none for them.
        7 => Call::new(
            "GET",
            format!("/v1/events?follow=false&vhost={vhost}"),
            null,
        ),
        8 => refused(Call::new("GET", format!("/v1/usage?vhost={vhost}"), null)),
        9 => refused(Call::new(
            "GET",
            format!("/v1/usage?owner={about}&since=1h", about = about.name),
            null,
        )),
        10 => refused(Call::new(
            "GET",
            format!("/v1/capacity?vhost={vhost}&memory=64M&since=1h"),
            null,
        )),
        11 => refused(Call::new("GET", for_owner(""), null)),
        12 => operators(Call::new(
            "PATCH",
            for_owner("/budget"),
            json!({"cpu": "400%"}),
        )),
        13..16 => split(random, me, other, owner, foreign || nobody),
        16 => refused(Call::new("GET", of(""), null)),
        17 => refused(Call::new("GET", of("/logs"), null)),
        18 => refused(Call {
            upgrade: true,
            ..Call::new(
                "POST",
                of("/exec"),
                json!({"command": ["/usr/bin/busybox", "true"]}),
            )
        }),
        19 => refused(Call::new("POST", of("/signal"), json!({"signal": "cont"}))),
        20 => {
            let query = random.pick(&["", "?for=1h", "?dry_run=true", "?mend=true", "?for=2s"]);
            let limits = random.pick(&[
                "{\"cpu\":\"400%\"}",
                "{\"class\":\"guaranteed\",\"cpu\":\"10%\"}",
                "{}",
            ]);
            let body = serde_json::from_str(limits).unwrap();
            operators(Call::new("PATCH", of(&format!("/limits{query}")), body))
        }
        21 => match random.below(2) {
            0 => operators(Call::new("DELETE", of(""), null)),
            _ => {
                let body = json!({"owner": me.name, "command": ["/bin/true"], "listen": "tcp:80"});
                operators(Call::new("PUT", of("?dry_run=true"), body))
            }
        },
        22 => refused(Call::new("POST", "/v1/dispatch", json!({"vhost": vhost}))),
        _ => {
            let verb = random.pick(&["start", "stop", "up", "down", "restart", "freeze", "thaw"]);
            refused(Call::new("POST", of(&format!("/{verb}")), null))
        }
    }
}

/// A division of up to three sites, at times with another's or too much.
fn split(random: &mut Random, me: &Party, other: &Party, owner: &str, not_mine: bool) -> Call {
    let mut shares = BTreeMap::new();
    let mut foreign = not_mine;
    for _ in 0..random.below(4) {
        let strange = random.below(12) == 0;
        foreign |= strange;
        let site = random.pick(if strange { other.sites } else { me.sites });
        shares.insert(
            site.to_owned(),
            random.pick(&[1, 5, 10, 20, 25, 40, 60, 75, 100]),
        );
    }
    let kind = random.pick(&[None, Some("hard"), Some("lending")]);
    let dry_run = random.below(5) == 0;
    let texts = shares
        .iter()
        .map(|(site, share)| (site.clone(), json!(format!("{share}%"))));
    let mut body = json!({"shares": texts.collect::<serde_json::Map<_, _>>()});
    if let Some(kind) = kind {
        body["kind"] = json!(kind);
    }
    let query = if dry_run { "?dry_run=true" } else { "" };
    Call {
        foreign,
        dry_run,
        split: Some((kind.map(str::to_owned), shares)),
        ..Call::new("PATCH", format!("/v1/owners/{owner}/split{query}"), body)
    }
}

/// A call by an operator about one owner.
pub(crate) fn of_operator(random: &mut Random, of: &Party) -> Call {
    let site = random.pick(of.sites);
    let path = |rest: &str| format!("/v1/vhosts/{site}{rest}");
    let cpu = format!("{}%", random.pick(&[5, 10, 20, 30, 45, 60, 80]));
    match random.below(8) {
        0 => {
            let memory = random.pick(&["256M", "512M", "768M"]);
            let body = json!({"cpu": cpu, "memory": memory});
            Call::new("PATCH", format!("/v1/owners/{}/budget", of.name), body)
        }
        1 => Call::new("PATCH", path("/limits?mend=true"), json!({})),
        2 => Call::new("PATCH", path("/limits"), json!({"class": "best-effort"})),
        3 => Call::new(
            "PATCH",
            path("/limits"),
            json!({"class": null, "cpu": null}),
        ),
        4 => Call::new(
            "PATCH",
            path("/limits?for=1h"),
            json!({"class": "best-effort"}),
        ),
        5 => Call::new("PATCH", path("/limits?for=1s"), json!({"cpu": cpu})),
        _ => Call::new(
            "PATCH",
            path("/limits"),
            json!({"class": "guaranteed", "cpu": cpu}),
        ),
    }
}
