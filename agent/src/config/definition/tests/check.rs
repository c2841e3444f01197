#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use super::super::*;
use super::{LEAST, rules};

#[test]
fn validation_names_the_key_and_the_reason() {
    for (key, value, expected) in [
        ("name", "\"../x\"", "name: \"../x\" is no host name"),
        ("name", "\"\"", "name: is missing"),
        (
            "name",
            "\"cgroup.procs\"",
            "name: \"cgroup.procs\" cannot be used",
        ),
        ("aliases", "[\"a\"]", "aliases: \"a\" is there twice"),
        ("aliases", "[\"b\", \"B\"]", "aliases: \"b\" is there twice"),
        ("owner", "\"../x\"", "owner: \"../x\" is no owner name"),
        ("owner", "\"acme/b\"", "owner: \"acme/b\" is no owner name"),
        (
            "template",
            "\"bokworm\"",
            "template: unknown template `bokworm`; did you mean `bookworm`?",
        ),
        (
            "template",
            "\"/srv/../etc\"",
            "template: /srv/../etc: the path must not contain \"..\"",
        ),
        (
            "documents",
            "\"srv/a\"",
            "documents: srv/a: the path must be absolute",
        ),
        (
            "documents",
            "\"/srv/../../etc\"",
            "documents: /srv/../../etc: the path must not contain",
        ),
        (
            "documents",
            "\"/\"",
            "documents: /: the path must not be the root",
        ),
        (
            "documents",
            "\"/a\\u0000b\"",
            "documents: /a\\0b: the path contains a control",
        ),
        ("command", "[]", "command: is empty"),
        ("command", "[\"\"]", "command: the program's name is empty"),
        (
            "listen",
            "\"unix:/tmp/a.sock\"",
            "listen: /tmp/a.sock: the socket must be below /run",
        ),
        (
            "listen",
            "\"unix:/run\"",
            "listen: /run: the socket must be below /run",
        ),
        ("user", "\"0:1000\"", "user: uid 0 is below min_uid = 1000"),
        ("user", "\"1000:0\"", "user: gid 0 is below min_gid = 1000"),
        (
            "env",
            "{ \"A-B\" = \"c\" }",
            "env: \"A-B\" is no variable name",
        ),
        (
            "network",
            "{ mode = \"private\", outbound = true }",
            "network: mode = \"private\" has loopback only",
        ),
        (
            "start",
            "{ timeout = \"never\" }",
            "start.timeout: must end",
        ),
        (
            "idle",
            "{ timeout = 0 }",
            "idle.timeout: must be more than 0",
        ),
        (
            "idle",
            "{ reclaim_after = \"1h\" }",
            "idle.reclaim_after: is for action = \"ladder\" only",
        ),
        (
            "idle",
            "{ action = \"ladder\", stop_after = 0 }",
            "idle.stop_after: must be more than 0",
        ),
        (
            "limits",
            "{ memory = \"64K\" }",
            "limits.memory: is below 1M",
        ),
        (
            "limits",
            "{ memory = \"64M\", memory_high = \"65M\" }",
            "limits.memory_high: is more than memory",
        ),
        (
            "limits",
            "{ memory = \"64M\", memory_min = \"65M\" }",
            "limits.memory_min: is more than memory",
        ),
        ("limits", "{ pids = 1 }", "limits.pids: is below 2"),
        (
            "limits",
            "{ cpu = \"20%\", cpu_burst = \"30%\" }",
            "limits.cpu_burst: is more than cpu",
        ),
    ] {
        let kept: String = LEAST
            .lines()
            .filter(|line| !line.starts_with(&format!("{key} ")))
            .map(|line| format!("{line}\n"))
            .collect();
        let definition = Definition::from_toml(&format!("{kept}{key} = {value}\n")).unwrap();
        let problems = definition.validate(&rules()).unwrap_err();
        assert!(
            problems[0].to_string().starts_with(expected),
            "{key} = {value}: {problems:?}"
        );
    }
}

#[test]
fn validation_bounds_sizes() {
    let mut definition = Definition::from_toml(LEAST).unwrap();
    let has = |definition: &Definition, what: &str| {
        definition
            .validate(&rules())
            .unwrap_err()
            .iter()
            .any(|problem| problem.to_string().contains(what))
    };
    definition.command = Words::new(vec!["x"; 256]).unwrap();
    assert_eq!(definition.validate(&rules()), Ok(()));
    definition.command = Words::new(vec!["x"; 257]).unwrap();
    assert!(has(&definition, "more than 256 arguments"));
    definition.command = Words::new(["x".repeat(65535)]).unwrap();
    assert_eq!(definition.validate(&rules()), Ok(()));
    definition.env = Env::new(&BTreeMap::from([("A".to_owned(), String::new())])).unwrap();
    assert!(has(&definition, "larger than 65536 bytes"));
    let unix =
        |length: usize| Listen::Unix(Path::new(&format!("/run/{}", "x".repeat(length - 5))).into());
    definition = Definition {
        listen: unix(107),
        ..Definition::from_toml(LEAST).unwrap()
    };
    assert_eq!(definition.validate(&rules()), Ok(()));
    definition.listen = unix(108);
    assert!(has(&definition, "at most 107"));
    definition = Definition {
        documents: None,
        ..Definition::from_toml(LEAST).unwrap()
    };
    assert!(has(&definition, "documents: is missing"));
    definition.user = User::Ids(1000, 1000);
    assert_eq!(definition.validate(&rules()), Ok(()));
}
