#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use super::*;
use crate::config::Problem;

/// Loads a file with this content.
fn load(text: &str) -> Result<AgentConfig, Vec<Problem>> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    fs::write(&file, text).unwrap();
    AgentConfig::load(&Overrides {
        config: Some(file),
        ..Overrides::default()
    })
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = load("").unwrap();
    assert_eq!(
        AgentConfig {
            directory: AgentConfig::default().directory,
            ..config
        },
        AgentConfig::default()
    );
    let config = AgentConfig::default();
    assert_eq!(config.socket(), Path::new("/run/fastcontainer/agent.sock"));
    assert_eq!(config.subnet.nth(6), Some(Ipv4Addr::new(10, 88, 0, 6)));
    assert!(config.host_etc().contains(&"php"));
}

#[test]
fn the_command_line_counts_more_than_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.toml");
    fs::write(&file, "run_dir = \"/run/x\"\nstate_dir = \"/var/x\"\n").unwrap();
    let overrides = Overrides {
        config: Some(file.clone()),
        run_dir: Some("/run/y".into()),
        vhosts_dir: Some("relative".into()),
        cgroup_parent: Some("test/a".into()),
        ..Overrides::default()
    };
    let config = AgentConfig::load(&overrides).unwrap();
    assert_eq!(config.socket(), Path::new("/run/y/agent.sock"));
    assert_eq!(config.connect_socket(), Path::new("/run/y/connect.sock"));
    assert_eq!(config.state_dir, Path::new("/var/x"));
    assert_eq!(
        config.vhosts_dir,
        std::env::current_dir().unwrap().join("relative")
    );
    assert_eq!(config.cgroup_parent.as_deref(), Some(Path::new("test/a")));
    assert_eq!(config.directory(), dir.path());
    let socket = Overrides {
        socket: Some("/run/z.sock".into()),
        connect_socket: Some("/run/c.sock".into()),
        ..overrides
    };
    let config = AgentConfig::load(&socket).unwrap();
    assert_eq!(config.socket(), Path::new("/run/z.sock"));
    assert_eq!(config.connect_socket(), Path::new("/run/c.sock"));
}

#[test]
fn a_named_file_must_exist() {
    let missing = Overrides {
        config: Some("/nonexistent/agent.toml".into()),
        ..Overrides::default()
    };
    let problems = AgentConfig::load(&missing).unwrap_err();
    assert!(
        problems[0]
            .to_string()
            .starts_with("/nonexistent/agent.toml: cannot read the configuration: ")
    );
}

#[test]
fn says_what_is_wrong() {
    for (text, expected) in [
        (
            "sokcet = \"/x\"",
            ":1:1: unknown key `sokcet`; did you mean `socket`?",
        ),
        (
            "[log]\nfile_byte = 1",
            ":2:1: unknown key `file_byte`; did you mean `file_bytes`?",
        ),
        (
            "subnet = \"10.88.0.1/16\"",
            ":1:10: \"10.88.0.1/16\" is no network: the address has bits behind",
        ),
        (
            "subnet = \"10.88.0.0/40\"",
            "the prefix must be from 8 to 30",
        ),
        ("socket_mode = \"0999\"", "write them in octal"),
        (
            "connect_socket = \"/run/fastcontainer/agent.sock\"",
            "is the same as socket",
        ),
        ("listen_check = \"netlink\"", "unknown value `netlink`"),
        (
            "run_dir = \"run\"",
            ": run_dir: run: the path must be absolute",
        ),
        (
            "vhosts_dir = \"/etc/../x\"",
            ": vhosts_dir: /etc/../x: the path must be absolute and without",
        ),
        (
            "cgroup_parent = \"../x\"",
            ": cgroup_parent: \"../x\": a path below the cgroup mount",
        ),
        (
            "cgroup_parent = \"/\"",
            ": cgroup_parent: \"/\": a path below",
        ),
        (
            "min_uid = 0",
            ": min_uid: min_uid and min_gid must be at least 1",
        ),
        (
            "uid_base = 100000",
            ": uid_base: 100000 must be a multiple of 65536",
        ),
        (
            "nft_table = \"a; flush ruleset\"",
            ": nft_table: must be a word",
        ),
        (
            "interface_prefix = \"waytoolong\"",
            ": interface_prefix: must be a word",
        ),
        (
            "[owner.Acme]\nuid = 2000",
            ": owner: \"Acme\" is no owner name",
        ),
        (
            "[owner.acme]\nuid = 5",
            ": owner.acme.uid: 5 is below min_uid = 1000",
        ),
        (
            "[budget]\nsites = 0",
            ": budget: sites: 0 would let no site live",
        ),
        (
            "[owner.acme]\nbudget = { memory = \"1M\" }",
            ": owner.acme.budget: memory: 1M is less than one site needs",
        ),
        ("[owner.acme.budget]\ncpus = \"100%\"", "cpus"),
        (
            "[template.old]\netc = []",
            ": template.old: path is missing",
        ),
        (
            "[template.host]\netc = [\"../root\"]",
            ": template.host.etc: \"../root\": a path below /etc",
        ),
        ("[log]\nfiles = 0", ": log.files: must be at least 1"),
        (
            "[api]\nhead_timeout = \"never\"",
            ": api.head_timeout: must be more than 0 and end",
        ),
        (
            "[api]\nmax_body = \"max\"",
            ": api.max_body: must be at most",
        ),
        (
            "[[alias]]\npattern = \"*.net\"\ndocuments = \"/srv/all\"\ndefinition = \"a.toml\"",
            ": alias: documents = \"/srv/all\" must contain %h",
        ),
        (
            "dispatch_users = [\"\"]",
            "the name or number of a user or group",
        ),
    ] {
        let problems = load(text).unwrap_err();
        assert!(
            problems[0].to_string().contains(expected),
            "{text}: {problems:?}"
        );
    }
}

#[test]
fn knows_users_by_name_and_number() {
    let config = load(
        "dispatch_users = [\"root\", 33, \"1234\", \"no-such-user-here\"]\nfront_group = \"root\"",
    )
    .unwrap();
    assert_eq!(config.dispatch_uids(), [0, 33, 1234].into());
    assert_eq!(config.front_group.gid().unwrap(), Some(0));
}

#[test]
fn finds_the_shim_or_says_where_it_was_sought() {
    let dir = tempfile::tempdir().unwrap();
    let shim = dir.path().join("shim");
    let config = AgentConfig {
        shim: Some(shim.clone()),
        ..AgentConfig::default()
    };
    assert!(
        config
            .find_shim()
            .unwrap_err()
            .to_string()
            .contains(&shim.display().to_string())
    );
    fs::write(&shim, "").unwrap();
    assert_eq!(config.find_shim().unwrap(), shim);
}

#[test]
fn the_subnet_counts_its_addresses() {
    let subnet: Subnet = "192.168.4.0/30".parse().unwrap();
    assert_eq!(
        (subnet.size(), subnet.nth(3), subnet.nth(4)),
        (4, Some(Ipv4Addr::new(192, 168, 4, 3)), None)
    );
    assert!(
        subnet.contains(Ipv4Addr::new(192, 168, 4, 0))
            && !subnet.contains(Ipv4Addr::new(192, 168, 3, 255))
    );
    assert_eq!(subnet.to_string(), "192.168.4.0/30");
}

#[test]
fn the_shipped_examples_are_valid_and_show_every_key() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/examples");
    let agent = fs::read_to_string(examples.join("agent.toml")).unwrap();
    load(&agent).unwrap();
    // Every "#key = value" stands for a default, so the file must be valid with all of them in force.
    let uncommented: String = agent
        .lines()
        .map(|line| {
            line.strip_prefix('#')
                .filter(|rest| !rest.starts_with([' ', '#']))
                .unwrap_or(line)
                .to_owned()
                + "\n"
        })
        .collect();
    let config = load(&uncommented).unwrap();
    let shown = AgentConfig {
        directory: AgentConfig::default().directory,
        socket: None,
        connect_socket: None,
        cgroup_parent: None,
        shim: None,
        guaranteed_cpus: None,
        limits: AgentConfig::default().limits,
        budget: crate::owners::Budget::default(),
        owner: BTreeMap::new(),
        template: BTreeMap::new(),
        alias: Vec::new(),
        ..config.clone()
    };
    assert_eq!(
        load("[limits]\nmemory = \"1G\"").unwrap().limits,
        config.limits,
        "what [limits] leaves out keeps its default"
    );
    assert_eq!(
        shown,
        AgentConfig::default(),
        "the example must show the defaults"
    );
    assert_eq!(config.host_etc(), DEFAULT_ETC.to_vec());
    assert!(config.socket.is_some() && config.cgroup_parent.is_some() && config.shim.is_some());
    assert!(
        config
            .budget
            .shown()
            .iter()
            .all(|(_, value)| value.is_some())
    );
    let acme = &config.owner["acme"];
    assert!(acme.uid.is_some() && acme.budget.shown().iter().all(|(_, value)| value.is_some()));
    assert!(!config.owner.is_empty() && config.template.len() == 2 && config.alias.len() == 1);
    // A key that serde knows and the example lacks: the error for an unknown key lists them all.
    for table in [
        "",
        "[api]\n",
        "[starts]\n",
        "[log]\n",
        "[pool]\n",
        "[budget]\n",
    ] {
        let error = load(&format!("{table}zzzzz = 1")).unwrap_err()[0].to_string();
        let keys = error
            .split_once("(valid here: ")
            .unwrap()
            .1
            .trim_end_matches(')')
            .to_owned();
        for key in keys.split(", ") {
            let there = uncommented.lines().any(|line| {
                line.starts_with(&format!("{key} ="))
                    || line.trim_start_matches('[').starts_with(key)
            });
            assert!(there, "{key} is not in the example");
        }
    }

    let text = fs::read_to_string(examples.join("example.com.toml")).unwrap();
    let definition = crate::config::Definition::from_toml(&text).unwrap();
    assert_eq!(definition.validate(&config.rules()), Ok(()));
}
