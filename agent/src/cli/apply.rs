//! `apply`: checks all definitions, shows what differs, then puts them.
use std::io::Read;
use std::path::Path;

use hyper::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Call, Client};
use super::definition::{self, Format};
use super::failure::Failure;
use super::progress::watch;
use super::screen::{Screen, Tint};
use super::text;
use super::values::{self, Change};

/// Longer definitions are a mistake.
const MAX_FILE: u64 = 16 << 20;

/// A definition and where it is from.
#[derive(Debug)]
struct Item {
    source: String,
    name: String,
    value: Value,
}

/// The agent's answer to a definition.
#[derive(Debug, Deserialize)]
struct Outcome {
    result: String,
    #[serde(default)]
    changes: Vec<Change>,
}

/// Nothing is applied unless every definition was found good.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    files: &[impl AsRef<Path>],
    dry_run: bool,
    json: bool,
) -> Result<(), Failure> {
    let (items, mut bad) = load(files);
    for complaint in &bad {
        screen.complain(complaint);
    }
    for item in &items {
        let answer = watch(
            screen,
            &format!("checking {}", item.name),
            client.ask(item.call(true)),
        )
        .await;
        match answer {
            Ok(answer) if dry_run && json => screen.json(&answer.body)?,
            Ok(answer) if dry_run => show(screen, &item.name, &answer.read()?, true)?,
            Ok(_) => {}
            Err(Failure::Refused(problem)) => {
                let complaint = format!("{}: {problem}", item.source);
                screen.complain(&complaint);
                bad.push(complaint);
            }
            Err(other) => return Err(other),
        }
    }
    if !bad.is_empty() {
        if !dry_run {
            screen.complain("nothing was applied");
        }
        return Err(Failure::Exit(1));
    }
    if dry_run {
        return Ok(());
    }
    let mut failed = false;
    for item in &items {
        let answer = watch(
            screen,
            &format!("applying {}", item.name),
            client.ask(item.call(false)),
        )
        .await;
        match answer {
            Ok(answer) if json => screen.json(&answer.body)?,
            Ok(answer) => show(screen, &item.name, &answer.read()?, false)?,
            Err(Failure::Refused(problem)) => {
                screen.complain(&format!("{}: {problem}", item.source));
                failed = true;
            }
            Err(other) => return Err(other),
        }
    }
    if failed {
        Err(Failure::Exit(1))
    } else {
        Ok(())
    }
}

impl Item {
    fn call(&self, dry_run: bool) -> Call<'_> {
        let query = if dry_run { "?dry_run=true" } else { "" };
        Call::vhost(Method::PUT, &self.name, query).json(&self.value)
    }
}

/// Reads all files; complaints instead of an early end, so that all mistakes are seen at once.
fn load(files: &[impl AsRef<Path>]) -> (Vec<Item>, Vec<String>) {
    let (mut items, mut bad) = (Vec::<Item>::new(), Vec::new());
    for file in files.iter().map(AsRef::as_ref) {
        let source = match file.to_str() {
            Some("-") => "standard input".to_owned(),
            _ => file.display().to_string(),
        };
        let definitions = contents(file).and_then(|text| {
            let format = match file.extension().and_then(|e| e.to_str()) {
                Some("toml") => Format::Toml,
                Some("json") => Format::Json,
                _ => Format::Unknown,
            };
            definition::read(&text, format)
        });
        match definitions {
            Err(why) => bad.push(format!("{source}: {why}")),
            Ok(definitions) => {
                for (name, value) in definitions {
                    match items.iter().find(|i| i.name == name) {
                        Some(other) => bad.push(format!(
                            "{source}: {name} is defined in {} too",
                            other.source
                        )),
                        None => items.push(Item {
                            source: source.clone(),
                            name,
                            value,
                        }),
                    }
                }
            }
        }
    }
    (items, bad)
}

fn contents(file: &Path) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("cannot read: {e}");
    let reader: Box<dyn Read> = if file.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(cannot)?)
    };
    let mut text = String::new();
    let length = reader
        .take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    if length as u64 > MAX_FILE {
        return Err("longer than any definition".to_owned());
    }
    Ok(text)
}

fn show(screen: &mut Screen, name: &str, outcome: &Outcome, dry_run: bool) -> Result<(), Failure> {
    let (sign, tint) = match outcome.result.as_str() {
        "created" => ("+", Tint::Good),
        "changed" => ("~", Tint::Warn),
        _ => ("=", Tint::Dim),
    };
    let result = match (dry_run, outcome.result.as_str()) {
        (true, "created") => "would be created",
        (true, "changed") => "would be changed",
        (_, other) => other,
    };
    let line = format!("{sign} {}  {}", text::clean(name), text::clean(result));
    screen.line(&screen.paint(tint, &line))?;
    for line in values::changes(screen, "    ", &outcome.changes) {
        screen.line(&line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_mistakes_are_found_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = [
            file("a.toml", "name = 'a'"),
            file("b.toml", "name = "),
            file("c.json", r#"[{"name":"c"},{"name":"a"}]"#),
            dir.path().join("missing.toml"),
        ];
        let (items, bad) = load(&files);
        assert_eq!(
            items.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(),
            ["a", "c"]
        );
        assert_eq!(bad.len(), 3, "{bad:?}");
        assert!(bad[0].contains("b.toml: not TOML"), "{bad:?}");
        assert!(
            bad[1].contains("a is defined in") && bad[1].contains("a.toml too"),
            "{bad:?}"
        );
        assert!(
            bad[2].contains("missing.toml: cannot read: No such file"),
            "{bad:?}"
        );
    }
}
