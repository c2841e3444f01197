#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::*;
use crate::config::Rules;

/// A definition's text with this name and these aliases.
fn text(name: &str, aliases: &[&str], command: &str) -> String {
    format!(
        "name = \"{name}\"\naliases = {aliases:?}\nowner = \"acme\"\ndocuments = \"/srv/www/{name}\"\n\
         command = [\"{command}\"]\nlisten = \"tcp:8080\"\n"
    )
}

/// Changes in a form to compare with: `+name`, `~name`, `-name`, `!file`, `=file`.
fn brief(changes: &[Change]) -> Vec<String> {
    let mut all: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::Added(new) => format!("+{}", new.name),
            Change::Changed { old, new } => {
                assert_eq!(old.name, new.name);
                format!("~{}", new.name)
            }
            Change::Removed(old) => format!("-{}", old.name),
            Change::Problem(problem) => format!("!{}", problem.file.as_deref().unwrap()),
            Change::Solved(file) => format!("={file}"),
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_file_comes_changes_breaks_and_goes() {
    let mut all = Definitions::default();
    assert_eq!(
        brief(&all.apply_change("a.toml", Some(&text("a", &["www.a"], "x")))),
        ["+a"]
    );
    assert_eq!(all.by_host("www.a").unwrap().name, "a".into());
    assert!(all.get("www.a").is_none() && all.get("a").is_some());
    assert!(
        all.apply_change("a.toml", Some(&text("a", &["www.a"], "x")))
            .is_empty()
    );
    assert_eq!(
        brief(&all.apply_change("a.toml", Some(&text("a", &[], "y")))),
        ["~a"]
    );
    assert!(all.by_host("www.a").is_none());
    assert_eq!(
        brief(&all.apply_change("a.toml", Some("name = 7"))),
        ["!a.toml"]
    );
    assert_eq!(
        all.get("a").unwrap().command.iter().next(),
        Some("y"),
        "the last good definition stays"
    );
    assert_eq!(all.problems().count(), 1);
    assert_eq!(
        brief(&all.apply_change("a.toml", Some(&text("a", &[], "y")))),
        ["=a.toml"]
    );
    assert_eq!(
        brief(&all.apply_change("a.toml", Some(&text("b", &[], "y")))),
        ["+b", "-a"]
    );
    assert!(all.complete(), "what broke was known before");
    assert_eq!(
        brief(&all.apply_change("c.toml", Some("name = 7"))),
        ["!c.toml"]
    );
    assert!(!all.complete());
    assert_eq!(brief(&all.apply_change("c.toml", None)), ["=c.toml"]);
    assert!(all.complete());
    assert_eq!(brief(&all.apply_change("a.toml", None)), ["-b"]);
    assert_eq!(
        (all.count(), all.problems().count(), all.hosts_len()),
        (0, 0, 0)
    );
}

#[test]
fn the_second_file_of_a_name_waits_for_it() {
    let mut all = Definitions::default();
    all.apply_change("1.toml", Some(&text("a", &["x"], "one")));
    let changes = all.apply_change("2.toml", Some(&text("b", &["x"], "two")));
    let Change::Problem(problem) = &changes[0] else {
        panic!("{changes:?}")
    };
    assert_eq!(
        problem.to_string(),
        "2.toml: \"x\" is already defined in 1.toml"
    );
    assert_eq!(
        brief(&all.apply_change("1.toml", Some(&text("a", &[], "one")))),
        ["+b", "=2.toml", "~a"]
    );
    assert_eq!(all.file_of("x"), Some("2.toml"));
}

#[test]
fn two_files_can_swap_their_names() {
    let mut all = Definitions::default();
    all.apply_change("1.toml", Some(&text("a", &[], "one")));
    all.apply_change("2.toml", Some(&text("b", &[], "two")));
    assert_eq!(
        brief(&all.apply_change("1.toml", Some(&text("b", &[], "one")))),
        ["!1.toml"]
    );
    assert_eq!(
        brief(&all.apply_change("2.toml", Some(&text("a", &[], "two")))),
        ["=1.toml", "~a", "~b"]
    );
    assert_eq!(
        (all.file_of("a"), all.file_of("b")),
        (Some("2.toml"), Some("1.toml"))
    );
}

#[test]
fn loads_a_directory_and_only_plain_definition_files() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    for n in 0..300 {
        put(
            &format!("s{n}.example.toml"),
            &text(&format!("s{n}.example"), &[], "x"),
        );
    }
    put("z-again.toml", &text("s7.example", &[], "other"));
    put("bad.toml", "nmae = \"x\"");
    put("binary.toml", "placeholder");
    fs::write(dir.path().join("binary.toml"), [0xff, 0xfe]).unwrap();
    put("huge.toml", &"#".repeat(256 * 1024 + 1));
    for ignored in [
        ".hidden.toml",
        "x.toml~",
        "x.toml.bak",
        "#x.toml",
        "README",
        ".toml",
    ] {
        put(ignored, "not a definition");
    }
    symlink(
        dir.path().join("s1.example.toml"),
        dir.path().join("link.toml"),
    )
    .unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("fifo.toml"), 0o600.into()).unwrap();
    fs::create_dir(dir.path().join("dir.toml")).unwrap();

    let all = load_dir(dir.path(), &Rules::default()).unwrap();
    assert_eq!(all.count(), 300);
    let problems: Vec<String> = all.problems().map(ToString::to_string).collect();
    for (problem, expected) in problems.iter().zip([
        "bad.toml:1:1: unknown key `nmae`; did you mean `name`?",
        "binary.toml: is not UTF-8",
        "dir.toml: is not a regular file",
        "fifo.toml: is not a regular file",
        "huge.toml: is larger",
        "link.toml: is a symbolic link",
        "z-again.toml: \"s7.example\" is already defined in s7.example.toml",
    ]) {
        assert!(problem.starts_with(expected), "{problem}");
    }
    assert_eq!(problems.len(), 7, "{problems:?}");
    let error = load_dir(&dir.path().join("none"), &Rules::default())
        .unwrap_err()
        .to_string();
    assert!(error.contains("vhosts_dir"), "{error}");
}

#[test]
fn a_renamed_file_changes_nothing_and_a_rescan_finds_everything() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    put("1.toml", &text("a", &[], "x"));
    put("2.toml", &text("b", &[], "x"));
    let mut all = load_dir(dir.path(), &Rules::default()).unwrap();
    fs::rename(dir.path().join("1.toml"), dir.path().join("9.toml")).unwrap();
    let opened = Dir::open(dir.path()).unwrap();
    assert!(
        all.reread(&opened, &["9.toml".into(), "1.toml".into()])
            .is_empty()
    );
    assert_eq!(all.file_of("a"), Some("9.toml"));
    fs::remove_file(dir.path().join("2.toml")).unwrap();
    put("9.toml", &text("a", &[], "y"));
    put("c.toml", &text("c", &[], "x"));
    assert_eq!(brief(&all.rescan(dir.path()).unwrap()), ["+c", "-b", "~a"]);
}

proptest! {
    /// However files change, the indexes agree with each other, and the reported changes lead from one state to the next.
    #[test]
    fn stays_consistent(steps in proptest::collection::vec((0usize..4, 0usize..5, 0usize..5, 0usize..6), 1..40)) {
        let mut all = Definitions::default();
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        let mut known: BTreeMap<String, std::sync::Arc<crate::config::Definition>> = BTreeMap::new();
        for (file, name, alias, what) in steps {
            let file = format!("{file}.toml");
            let alias = format!("h{}", (name + 1 + alias) % 6);
            let content = match what {
                0 => None,
                1 => Some("broken".to_owned()),
                n => {
                    let name = format!("h{name}");
                    let aliases = [alias.as_str()];
                    let aliases = if alias == name { &[][..] } else { &aliases };
                    let text = text(&name, aliases, &format!("c{n}"));
                    Some(text.replace("acme", ["acme", "bolt"][n % 2]))
                }
            };
            for change in all.apply_change(&file, content.as_deref()) {
                match change {
                    Change::Added(new) => prop_assert!(known.insert(new.name.to_string(), new).is_none()),
                    Change::Changed { old, new } => prop_assert_eq!(known.insert(new.name.to_string(), new), Some(old)),
                    Change::Removed(old) => prop_assert_eq!(known.remove(&*old.name), Some(old)),
                    Change::Problem(_) | Change::Solved(_) => {}
                }
            }
            match content {
                Some(content) => files.insert(file, content),
                None => files.remove(&file),
            };
            all.check();
            let now: BTreeMap<_, _> = all.iter().map(|d| (d.name.to_string(), d.clone())).collect();
            prop_assert_eq!(&now, &known);
            // A file without problems has exactly what it says in force.
            let troubled: Vec<&str> = all.problems().filter_map(|p| p.file.as_deref()).collect();
            for (file, content) in &files {
                if !troubled.contains(&file.as_str()) {
                    let definition = crate::config::Definition::from_toml(content).unwrap();
                    prop_assert_eq!(&**all.get(&definition.name).unwrap(), &definition);
                }
            }
        }
    }
}
