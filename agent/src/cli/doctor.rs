//! `doctor`: the agent's checks of this host, or our own when there is no agent.
use hyper::Method;
use serde::Deserialize;
use serde_json::json;

use super::client::{Call, Client};
use super::failure::Failure;
use super::progress::watch;
use super::screen::{Screen, Tint};
use super::text;
use crate::doctor::{Check, Outcome};

#[derive(Debug, Deserialize)]
struct Report {
    checks: Vec<Check>,
}

/// Prints the checks; fails if one of them fails, or if the agent cannot be reached.
pub(crate) async fn run(client: &Client, screen: &mut Screen, json: bool) -> Result<(), Failure> {
    let asked = watch(
        screen,
        "checking",
        client.ask(Call::host(Method::GET, "/v1/doctor")),
    )
    .await;
    let (checks, unreachable) = match asked {
        Ok(answer) if json => {
            screen.json(&answer.body)?;
            (answer.read::<Report>()?.checks, None)
        }
        Ok(answer) => {
            let checks = answer.read::<Report>()?.checks;
            print(screen, &checks)?;
            (checks, None)
        }
        Err(failure @ (Failure::Unreachable { .. } | Failure::NotAdmitted { .. })) => {
            let checks = crate::doctor::checks();
            if json {
                screen.json(json!({"checks": checks}).to_string().as_bytes())?;
            } else {
                print(screen, &checks)?;
            }
            (checks, Some(failure))
        }
        Err(other) => return Err(other),
    };
    if let Some(failure) = unreachable {
        return Err(failure);
    }
    match checks.iter().any(|c| c.result == Outcome::Fail) {
        true => Err(Failure::Exit(1)),
        false => Ok(()),
    }
}

fn print(screen: &mut Screen, checks: &[Check]) -> Result<(), Failure> {
    let names = checks
        .iter()
        .map(|c| text::clean(&c.name).chars().count())
        .max()
        .unwrap_or(0);
    for check in checks {
        let (tint, word) = match check.result {
            Outcome::Ok => (Tint::Good, "ok  "),
            Outcome::Warn => (Tint::Warn, "warn"),
            Outcome::Fail => (Tint::Bad, "FAIL"),
        };
        let word = screen.paint(tint, word);
        let name = text::clean(&check.name).into_owned();
        screen.line(&format!(
            "{word}  {name:names$}  {}",
            text::clean(&check.detail)
        ))?;
        if let (Some(advice), true) = (&check.advice, check.result != Outcome::Ok) {
            let advice = screen.paint(Tint::Dim, &format!("→ {}", text::clean(advice)));
            screen.line(&format!("      {:names$}  {advice}", ""))?;
        }
    }
    let count = |outcome| checks.iter().filter(|c| c.result == outcome).count();
    let (warnings, failures) = (count(Outcome::Warn), count(Outcome::Fail));
    screen.line(&format!(
        "{} checks, {warnings} warnings, {failures} failures",
        checks.len()
    ))?;
    Ok(())
}
