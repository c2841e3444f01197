#![allow(clippy::unwrap_used)]

mod check;
mod limits;

use proptest::prelude::*;

use super::*;

/// The contract's example.
const FULL: &str = r#"
name = "Example.COM"
aliases = ["www.example.com"]
owner = "acme"
template = "host"
documents = "/srv/www/example.com"
command = ["apache2", "-D", "FOREGROUND", "-f", "/site/httpd.conf"]
listen = "tcp:8080"
user = "auto"
env = { KEY = "value" }
[limits]
cpu = "20%"
memory = "256M"
pids = 128
io = { read = "2MB/s", write = "2MB/s", read_iops = 200, write_iops = 200, weight = 100 }
egress = "10Mbit"
disk = "5G"
[network]
mode = "address"
outbound = true
allow = ["10.0.0.5:3306", "udp:10.0.0.5:53", "[2001:db8::1]:443"]
[idle]
timeout = "60s"
action = "stop"
max_lifetime = "24h"
max_requests = 5000
[start]
timeout = "10s"
[stop]
signal = "SIGWINCH"
timeout = "30s"
"#;

const LEAST: &str = "name = \"a\"\nowner = \"acme\"\ndocuments = \"/srv/a\"\ncommand = [\"x\"]\nlisten = \"activate\"\n";

fn rules() -> Rules {
    Rules {
        min_uid: 1000,
        min_gid: 1000,
        templates: ["bookworm".into()].into(),
        ..Rules::default()
    }
}

#[test]
fn reads_the_contracts_example() {
    let definition = Definition::from_toml(FULL).unwrap();
    assert_eq!(definition.validate(&rules()), Ok(()));
    assert_eq!(
        definition.names().collect::<Vec<_>>(),
        ["example.com", "www.example.com"]
    );
    assert_eq!(definition.command.iter().nth(2), Some("FOREGROUND"));
    assert_eq!(definition.env.get("KEY"), Some("value"));
    assert_eq!(definition.limits.io_read_iops().unwrap().0, 200);
    assert_eq!(definition.network.allow[1].protocol, Protocol::Udp);
    assert_eq!(
        (definition.stop.signal.number(), definition.stop.timeout),
        (28, Span::seconds(30))
    );
    assert_eq!(definition.idle.max_requests.map(u32::from), Some(5000));
    assert_eq!(
        Definition::from_toml(&definition.to_toml().unwrap()).unwrap(),
        definition
    );
    let json = serde_json::to_vec(&definition).unwrap();
    assert_eq!(Definition::from_json(&json).unwrap(), definition);
}

#[test]
fn the_ladder_has_a_time_for_each_rung() {
    let ladder = "[idle]\naction = \"ladder\"\nreclaim_after = \"1h\"\nstop_after = \"never\"\n";
    let definition = Definition::from_toml(&format!("{LEAST}{ladder}")).unwrap();
    assert_eq!(definition.validate(&rules()), Ok(()));
    let (idle, usual) = (definition.idle, Idle::default());
    assert_eq!(
        (idle.reclaim_after, idle.stop_after),
        (Span::seconds(3600), Span::NEVER)
    );
    assert_eq!(
        Definition::from_toml(&definition.to_toml().unwrap()).unwrap(),
        definition
    );
    assert_eq!(
        (usual.reclaim_after, usual.stop_after),
        (Span::seconds(600), Span::seconds(86400))
    );
    let plain = Definition::from_toml(LEAST).unwrap();
    let json = serde_json::to_string(&plain).unwrap();
    assert!(
        !json.contains("_after"),
        "what it was made from is unchanged: {json}"
    );
}

#[test]
fn fills_in_defaults() {
    let definition = Definition::from_toml(LEAST).unwrap();
    assert_eq!(definition.validate(&rules()), Ok(()));
    assert_eq!(
        (&*definition.template, &definition.user),
        ("host", &User::Auto)
    );
    assert_eq!(
        definition.network,
        Network {
            mode: Mode::Address,
            outbound: false,
            allow: [].into()
        }
    );
    assert_eq!(definition.idle, Idle::default());
    assert_eq!(
        (definition.start.timeout, definition.stop.signal),
        (Span::seconds(10), Signal::TERM)
    );
    assert!(definition.limits.is_empty() && definition.env.is_empty());
    assert_eq!(
        Definition::from_toml(&definition.to_toml().unwrap()).unwrap(),
        definition
    );
}

#[test]
fn says_where_and_what_is_wrong_while_reading() {
    for (more, expected) in [
        (
            "alias = []",
            "6:1: unknown key `alias`; did you mean `aliases`?",
        ),
        (
            "[limits]\nmemroy = \"1M\"",
            "7:1: unknown key `memroy`; did you mean `memory`?",
        ),
        (
            "[limits]\nio = { raed = 5 }",
            "7:8: unknown key `raed`; did you mean `read`?",
        ),
        (
            "[limits]\n\"io.read\" = 5",
            "7:1: unknown key `io.read`; did you mean",
        ),
        (
            "[limits]\ncpu = \"20x\"",
            "7:7: cpu: \"20x\" is not a CPU share: \"x\" is no unit for it; write it as \"20%\"",
        ),
        (
            "[limits]\npids = -1",
            "7:8: pids: \"-1\" is not a number: it must not be negative",
        ),
        (
            "[limits]\npids = \"default\"",
            "7:8: pids: leave the key out",
        ),
        (
            "[limits]\nmemory = true",
            "7:10: invalid type: boolean `true`, expected a value for the limit memory",
        ),
        (
            "[idle]\ntimeout = \"soon\"",
            "7:11: \"soon\" is not a length of time",
        ),
        (
            "[idle]\naction = \"stopp\"",
            "7:10: unknown value `stopp`; did you mean `stop`?",
        ),
        ("[idle]\nmax_requests = 0", "7:16: invalid value"),
        (
            "[network]\nallow = [\"db:3306\"]",
            "7:10: \"db:3306\" is no destination",
        ),
        (
            "[network]\nmode = \"adress\"",
            "7:8: unknown value `adress`; did you mean `address`?",
        ),
        (
            "[stop]\nsignal = \"TREM\"",
            "7:10: unknown signal `TREM`; did you mean `TERM`?",
        ),
        ("[start", "6:7: "),
        (
            "env = { A = 1 }",
            "6:13: invalid type: integer `1`, expected a string",
        ),
        (
            "user = \"0x\"",
            "6:8: \"0x\" is no user: a uid needs its gid",
        ),
        ("name = \"b\"", "6:1: duplicate key"),
    ] {
        let error = Definition::from_toml(&format!("{LEAST}{more}"))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(expected), "{more}: {error}");
    }
    for missing in ["owner", "command", "listen"] {
        let text: String = LEAST
            .lines()
            .filter(|line| !line.starts_with(missing))
            .map(|line| format!("{line}\n"))
            .collect();
        let error = Definition::from_toml(&text).unwrap_err().to_string();
        assert!(
            error.contains(&format!("missing key `{missing}`")),
            "{error}"
        );
    }
    let error = Definition::from_json(b"{\"name\": \"a\",\n \"ownr\": \"b\"}")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("2:7: unknown key `ownr`; did you mean `owner`?"),
        "{error}"
    );
    assert!(Definition::from_json(b"\xff").is_err() && Definition::from_json(b"").is_err());
}

#[test]
fn signals_by_name() {
    for (text, number, shown) in [
        ("term", 15, "TERM"),
        ("SIGHUP", 1, "HUP"),
        ("9", 9, "KILL"),
        ("alarm", 14, "ALRM"),
        ("RTMIN+3", 37, "RTMIN+3"),
    ] {
        let signal: Signal = text.parse().unwrap();
        assert_eq!(
            (signal.number(), signal.to_string().as_str()),
            (number, shown)
        );
        assert_eq!(shown.parse::<Signal>(), Ok(signal));
    }
    for bad in ["", "SIG", "0", "999", "RTMIN+31", "-1"] {
        assert!(bad.parse::<Signal>().is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn never_panics(text in "\\PC{0,80}", body in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = Definition::from_toml(&text);
        let _ = Definition::from_json(&body);
        let _ = LimitPatch::parse(text.split(' '));
        let _ = text.parse::<Listen>();
        let _ = text.parse::<User>();
        let _ = text.parse::<Destination>();
        let _ = text.parse::<Signal>();
    }

    #[test]
    fn a_damaged_file_is_refused_or_still_valid(at in 0..FULL.len(), with in any::<char>()) {
        let at = (0..=at).rev().find(|at| FULL.is_char_boundary(*at)).unwrap();
        let damaged = format!("{}{with}{}", &FULL[..at], &FULL[at + 1..]);
        if let Ok(definition) = Definition::from_toml(&damaged)
            && definition.validate(&rules()).is_ok()
        {
            prop_assert_eq!(Definition::from_toml(&definition.to_toml().unwrap()).unwrap(), definition);
        }
    }
}
