//! The short verbs: dispatch, start and its like, signal, rm, get, set.
use std::time::Duration;

use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client::{Call, Client};
use super::failure::Failure;
use super::progress::watch;
use super::screen::{Screen, Tint};
use super::set::{self, Assignment};
use super::values::{self, Change, Phases};
use super::{definition, temporary, text, units};

/// What all verbs need.
pub(crate) struct Context<'a> {
    /// The way to the agent.
    pub(crate) client: &'a Client,
    /// Where to print.
    pub(crate) screen: &'a mut Screen,
    /// Print the API's JSON.
    pub(crate) json: bool,
}

/// How limits are to be changed.
pub(crate) struct How {
    /// Only say what would be.
    pub(crate) dry_run: bool,
    /// For how long; nothing is for good.
    pub(crate) time: Option<Duration>,
    /// Write those again that should be in force.
    pub(crate) mend: bool,
}

/// Answer to a dispatch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Dispatched {
    upstream: String,
    cold: bool,
    start_ms: Option<f64>,
    phases: Phases,
}

/// Answer to a verb.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    state: String,
    pid: Option<i64>,
}

/// Answer to a limit change.
#[derive(Debug, Deserialize)]
struct Changed {
    changes: Option<Vec<Change>>,
    #[serde(default)]
    limits: Map<String, Value>,
    #[serde(default)]
    temporary: Value,
}

impl Context<'_> {
    /// The upstream on the first line, so that scripts can read it; how it came up below, when it had to.
    pub(crate) async fn dispatch(&mut self, vhost: &str) -> Result<(), Failure> {
        let call = Call::host(Method::POST, "/v1/dispatch")
            .about(vhost)
            .json(&json!({"vhost": vhost}));
        let answer = watch(
            self.screen,
            &format!("starting {vhost}"),
            self.client.ask(call),
        )
        .await?;
        if self.json {
            return Ok(self.screen.json(&answer.body)?);
        }
        let d: Dispatched = answer.read()?;
        self.screen.line(&text::clean(&d.upstream))?;
        if d.cold {
            let time = d
                .start_ms
                .map(|ms| format!(", started in {}", units::millis(ms)));
            let line = format!("cold{}", time.unwrap_or_default());
            self.screen.line(&self.screen.paint(Tint::Dim, &line))?;
            let names = d
                .phases
                .0
                .iter()
                .map(|(n, _)| text::clean(n).chars().count())
                .max()
                .unwrap_or(0);
            for (name, ms) in &d.phases.0 {
                let line = format!("  {:names$}  {:>9}", text::clean(name), units::millis(*ms));
                self.screen.line(&self.screen.paint(Tint::Dim, &line))?;
            }
        }
        Ok(())
    }

    /// The same verb for each vhost; goes on after a failure and fails at the end.
    pub(crate) async fn each(&mut self, verb: &str, vhosts: &[String]) -> Result<(), Failure> {
        let mut worst: Option<u8> = None;
        for vhost in vhosts {
            match self.verb(verb, vhost).await {
                Ok(()) => {}
                Err(failure @ Failure::Refused(_)) if vhosts.len() > 1 => {
                    self.screen.complain(&failure.to_string());
                    // 3 only if nothing else was wrong.
                    worst = Some(worst.map_or(failure.code(), |code| code.min(failure.code())));
                }
                Err(other) => return Err(other),
            }
        }
        worst.map_or(Ok(()), |code| Err(Failure::Exit(code)))
    }

    async fn verb(&mut self, verb: &str, vhost: &str) -> Result<(), Failure> {
        let call = Call::vhost(Method::POST, vhost, &format!("/{verb}"));
        let answer = watch(
            self.screen,
            &format!("{verb} {vhost}"),
            self.client.ask(call),
        )
        .await?;
        if self.json {
            return Ok(self.screen.json(&answer.body)?);
        }
        let now: State = answer.read()?;
        let state = self
            .screen
            .paint(Tint::of_state(&now.state), &text::clean(&now.state));
        let pid = now
            .pid
            .map(|pid| format!(" (pid {pid})"))
            .unwrap_or_default();
        Ok(self
            .screen
            .line(&format!("{}: {state}{pid}", text::clean(vhost)))?)
    }

    /// Silent when done, as kill is.
    pub(crate) async fn signal(&mut self, vhost: &str, signal: &str) -> Result<(), Failure> {
        let call = Call::vhost(Method::POST, vhost, "/signal").json(&json!({"signal": signal}));
        self.silent(call, "signal").await
    }

    /// Silent when done, as rm is.
    pub(crate) async fn rm(&mut self, vhost: &str) -> Result<(), Failure> {
        let call = Call::vhost(Method::DELETE, vhost, "");
        self.silent(call, &format!("removing {vhost}")).await
    }

    async fn silent(&mut self, call: Call<'_>, what: &str) -> Result<(), Failure> {
        let answer = watch(self.screen, what, self.client.ask(call)).await?;
        if self.json && !answer.body.is_empty() {
            self.screen.json(&answer.body)?;
        }
        Ok(())
    }

    /// The definition alone, as a file for `apply`.
    pub(crate) async fn get(&mut self, vhost: &str) -> Result<(), Failure> {
        let answer = self.client.ask(Call::vhost(Method::GET, vhost, "")).await?;
        if self.json {
            return Ok(self.screen.json(&answer.body)?);
        }
        let all: Value = answer.read()?;
        let Some(Value::Object(found)) = all.get("definition") else {
            return Err(Failure::Failed(format!(
                "the agent did not send the definition of {vhost}"
            )));
        };
        // Comments, so that the rest is a definition still.
        for (key, limit) in temporary::of(all.get("temporary").unwrap_or(&Value::Null)) {
            let key = text::clean(&key).into_owned();
            self.screen
                .line(&format!("# {key} is {}", limit.phrase()))?;
        }
        Ok(self.screen.raw(definition::to_toml(found).as_bytes())?)
    }

    /// Changes limits and prints what is in force then.
    pub(crate) async fn set(
        &mut self,
        vhost: &str,
        limits: &[Assignment],
        how: &How,
    ) -> Result<(), Failure> {
        let patch = set::patch(limits).map_err(Failure::Usage)?;
        let switches = [(how.dry_run, "dry_run=true"), (how.mend, "mend=true")];
        let switches = switches.into_iter().filter(|(on, _)| *on);
        let switches = switches.map(|(_, word)| word.to_owned());
        let time = how.time.map(|time| format!("for={}ms", time.as_millis()));
        let query: Vec<String> = switches.chain(time).collect();
        let below = match query.is_empty() {
            true => "/limits".to_owned(),
            false => format!("/limits?{}", query.join("&")),
        };
        let call = Call::vhost(Method::PATCH, vhost, &below).json(&patch);
        let answer = watch(
            self.screen,
            &format!("changing limits of {vhost}"),
            self.client.ask(call),
        )
        .await?;
        if self.json {
            return Ok(self.screen.json(&answer.body)?);
        }
        let changed: Changed = answer.read()?;
        let lines = match &changed.changes {
            Some(none) if none.is_empty() => {
                vec![match how.mend {
                    true => "nothing to mend: its limits are as they should be".to_owned(),
                    false => "nothing changes: these limits are in force".to_owned(),
                }]
            }
            Some(changes) => values::changes(self.screen, "", changes),
            None => {
                let line = |(k, v): (&String, &Value)| {
                    format!("{}: {}", text::clean(k), values::show_limit(k, v))
                };
                changed.limits.iter().map(line).collect()
            }
        };
        for line in lines {
            self.screen.line(&line)?;
        }
        if how.time.is_some() {
            for (key, limit) in temporary::of(&changed.temporary) {
                let key = text::clean(&key).into_owned();
                self.screen.line(&format!("{key} is {}", limit.phrase()))?;
            }
        }
        Ok(())
    }
}
