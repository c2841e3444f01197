//! `owner show`, `owner budget`, `owner split`.
use clap::Subcommand;
use clap::builder::NonEmptyStringValueParser;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Call, Client, segment};
use super::failure::Failure;
use super::progress::watch;
use super::screen::{Screen, Tint};
use super::set::{self, Assignment};
use super::table::{Column, Table};
use super::values::{self, Change};
use super::{text, units};

/// What is done with an owner.
#[derive(Debug, Subcommand)]
pub enum OwnerVerb {
    /// Show an owner's budget, its division, and what is used of it
    Show {
        /// The owner
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        owner: String,
    },
    /// Set what all sites of an owner may use together (operators only)
    ///
    /// Keys are cpu (percent of one core, or cores), memory, io.read and io.write (bytes per second, on each disk that the
    /// sites' documents are on; cgroup v2 only), io.read_iops and io.write_iops, sites (defined, and awake at a time) and
    /// starts (under way at a time). "max" lifts one, an empty value goes back to what agent.toml says. In force at once, also for sites that run.
    Budget {
        /// The owner
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        owner: String,
        /// Such as cpu=100% memory=2G sites=20 starts=4
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = set::parse)]
        budget: Vec<Assignment>,
        /// Check and show what would change, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Divide an owner's CPU budget among their sites
    ///
    /// What is given is the whole division: sites that are not named share what is left. In force at once, also for sites
    /// that run.
    Split {
        /// The owner
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        owner: String,
        /// Percent of the CPU budget, such as a.example.com=20%
        #[arg(required_unless_present = "clear", value_name = "SITE=SHARE", value_parser = share)]
        shares: Vec<(String, String)>,
        /// Never more than the share
        #[arg(long, conflicts_with = "lending")]
        hard: bool,
        /// The share is guaranteed, and what idle sites do not use is lent to busy ones (the default at first)
        #[arg(long)]
        lending: bool,
        /// Divide nothing any more
        #[arg(long, conflicts_with_all = ["shares", "hard", "lending"])]
        clear: bool,
        /// Check and show what would change, change nothing
        #[arg(long)]
        dry_run: bool,
    },
}

fn share(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((site, share)) if !site.trim().is_empty() && !share.trim().is_empty() => {
            Ok((site.trim().to_owned(), share.trim().to_owned()))
        }
        _ => Err("a share is written SITE=PERCENT, such as a.example.com=20%".to_owned()),
    }
}

/// The API's answer to all three.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Owner {
    owner: String,
    budget: Map<String, Value>,
    split: Option<Split>,
    sites: Vec<Site>,
    usage: Usage,
    changes: Vec<Change>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Split {
    kind: String,
    rest: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Site {
    vhost: String,
    defined: bool,
    awake: bool,
    share: Option<String>,
    guaranteed: Option<String>,
    cpu: Option<String>,
    cpu_seconds: Option<f64>,
    without_io: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    sites: u64,
    awake: u64,
    starting: u64,
    cpu_seconds: Option<f64>,
    memory_bytes: Option<u64>,
}

/// Does it.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    verb: &OwnerVerb,
    json: bool,
) -> Result<(), Failure> {
    let (call, what) = call(verb)?;
    let answer = watch(screen, &what, client.ask(call)).await?;
    if json {
        return Ok(screen.json(&answer.body)?);
    }
    let owner: Owner = answer.read()?;
    let lines = match verb {
        OwnerVerb::Show { .. } => shown(screen, &owner),
        _ if owner.changes.is_empty() => vec!["nothing changes".to_owned()],
        _ => values::changes(screen, "", &owner.changes),
    };
    for line in lines {
        screen.line(&line)?;
    }
    Ok(())
}

fn call(verb: &OwnerVerb) -> Result<(Call<'static>, String), Failure> {
    let path = |owner: &str, below: &str, dry_run: bool| {
        let query = if dry_run { "?dry_run=true" } else { "" };
        format!("/v1/owners/{}{below}{query}", segment(owner))
    };
    Ok(match verb {
        OwnerVerb::Show { owner } => (
            Call::host(Method::GET, &path(owner, "", false)),
            format!("asking for {owner}"),
        ),
        OwnerVerb::Budget {
            owner,
            budget,
            dry_run,
        } => {
            let body = set::patch(budget).map_err(Failure::Usage)?;
            let call = Call::host(Method::PATCH, &path(owner, "/budget", *dry_run)).json(&body);
            (call, format!("changing the budget of {owner}"))
        }
        OwnerVerb::Split {
            owner,
            shares,
            hard,
            lending,
            dry_run,
            ..
        } => {
            let mut all = Map::new();
            for (site, share) in shares {
                if all
                    .insert(site.clone(), Value::from(share.as_str()))
                    .is_some()
                {
                    return Err(Failure::Usage(format!("{site} is given twice")));
                }
            }
            let mut body = json!({"shares": all});
            if *hard || *lending {
                body["kind"] = json!(if *hard { "hard" } else { "lending" });
            }
            let call = Call::host(Method::PATCH, &path(owner, "/split", *dry_run)).json(&body);
            (call, format!("dividing the budget of {owner}"))
        }
    })
}

fn shown(screen: &Screen, owner: &Owner) -> Vec<String> {
    let usage = &owner.usage;
    let budget = |key: &str| {
        owner
            .budget
            .get(key)
            .filter(|v| !v.is_null())
            .map_or("max".to_owned(), values::show)
    };
    let used = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![
        format!("owner    {}", text::clean(&owner.owner)),
        format!(
            "cpu      {:<8} {} used",
            budget("cpu"),
            used(usage.cpu_seconds.map(units::seconds))
        ),
        format!(
            "memory   {:<8} {} in use",
            budget("memory"),
            used(usage.memory_bytes.map(units::bytes))
        ),
        format!("io       {}", io(owner.budget.get("io"))),
        format!(
            "sites    {:<8} {} defined, {} awake",
            budget("sites"),
            usage.sites,
            usage.awake
        ),
        format!(
            "starts   {:<8} {} under way",
            budget("starts"),
            usage.starting
        ),
    ];
    lines.push(match &owner.split {
        Some(split) => {
            format!(
                "division {}, {} left for sites without a share",
                text::clean(&split.kind),
                text::clean(&split.rest)
            )
        }
        None => "division none".to_owned(),
    });
    if owner.sites.is_empty() {
        return lines;
    }
    let column = |title, right, flexible| Column {
        title,
        right,
        flexible,
    };
    let mut table = Table::new(&[
        column("VHOST", false, true),
        column("SHARE", true, false),
        column("GUARANTEED", true, false),
        column("NOW", true, false),
        column("CPU", true, false),
        column("", false, false),
    ]);
    for site in &owner.sites {
        let cpu = site.cpu_seconds.map(units::seconds).unwrap_or_default();
        let note = match (site.defined, site.awake) {
            (_, true) => "awake",
            (true, false) => "asleep",
            (false, false) => "not defined",
        };
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        table.row(&[
            (&site.vhost, Tint::Plain),
            (&text(&site.share), Tint::Plain),
            (&text(&site.guaranteed), Tint::Plain),
            (&text(&site.cpu), Tint::Plain),
            (&cpu, Tint::Plain),
            (note, if site.awake { Tint::Good } else { Tint::Dim }),
        ]);
    }
    lines.push(String::new());
    lines.extend(table.lines(screen));
    lines.extend(owner.sites.iter().filter_map(|site| {
        let why = text::clean(site.without_io.as_deref()?);
        let vhost = text::clean(&site.vhost);
        Some(format!("{vhost} is not bound by io: {why}"))
    }));
    lines
}

/// `read 2MB/s, write_iops 200`: on each disk of the sites' documents.
fn io(budget: Option<&Value>) -> String {
    let rates = budget.and_then(Value::as_object).into_iter().flatten();
    let words: Vec<String> = rates
        .map(|(key, value)| format!("{} {}", text::clean(key), values::show(value)))
        .collect();
    match words.is_empty() {
        true => "max".to_owned(),
        false => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::super::args::{Args, Verb};
    use super::*;

    fn asked(words: &str) -> (String, Value) {
        let args = Args::try_parse_from(format!("fastctl owner {words}").split(' ')).unwrap();
        let Verb::Owner { verb } = args.verb else {
            panic!("{words} is no verb of an owner");
        };
        let (call, _) = call(&verb).unwrap();
        let body = call
            .body
            .map_or(Value::Null, |body| serde_json::from_slice(&body).unwrap());
        (format!("{} {}", call.method, call.path), body)
    }

    #[test]
    fn words_become_calls() {
        assert_eq!(
            asked("show acme"),
            ("GET /v1/owners/acme".into(), Value::Null)
        );
        assert_eq!(
            asked(
                "budget acme --dry-run cpu=100% memory=2G io.read=2MB/s io.write= sites=20 starts="
            ),
            (
                "PATCH /v1/owners/acme/budget?dry_run=true".into(),
                json!({"cpu": "100%", "memory": "2G", "io": {"read": "2MB/s", "write": null}, "sites": "20", "starts": null})
            )
        );
        assert_eq!(
            asked("split acme --hard a.example.com=20% b.example.com=5%"),
            (
                "PATCH /v1/owners/acme/split".into(),
                json!({"kind": "hard", "shares": {"a.example.com": "20%", "b.example.com": "5%"}})
            )
        );
        assert_eq!(
            asked("split acme --clear"),
            ("PATCH /v1/owners/acme/split".into(), json!({"shares": {}}))
        );
    }

    #[test]
    fn wrong_usage_is_refused() {
        for words in [
            "budget acme",
            "split acme",
            "split acme a",
            "split acme a=",
            "split acme --hard --lending a=1%",
            "split acme --clear a=1%",
            "show",
            "budget acme cpu",
        ] {
            let words: Vec<&str> = ["fastctl", "owner"]
                .into_iter()
                .chain(words.split(' '))
                .collect();
            assert_eq!(
                Args::try_parse_from(&words).unwrap_err().exit_code(),
                2,
                "{words:?}"
            );
        }
    }
}
