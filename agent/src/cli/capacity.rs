//! `capacity`: how many more sites like those that live fit, and why.
use hyper::Method;
use serde::Deserialize;

use super::client::{Call, Client};
use super::failure::Failure;
use super::progress::watch;
use super::promises::Promises;
use super::screen::{Screen, Tint};
use super::text;
use crate::config::units::Bytes;
use crate::seeing::capacity::Capacity;

#[derive(Debug, Deserialize)]
struct Report {
    capacity: Capacity,
    #[serde(default)]
    promises: Promises,
}

/// Prints the number, then the arithmetic.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    reserve: Option<Bytes>,
    json: bool,
) -> Result<(), Failure> {
    let query = reserve.map(|reserve| format!("?reserve={}", reserve.0));
    let path = format!("/v1/capacity{}", query.unwrap_or_default());
    let call = Call::host(Method::GET, &path);
    let answer = watch(screen, "measuring", client.ask(call)).await?;
    if json {
        return Ok(screen.json(&answer.body)?);
    }
    let Report { capacity, promises } = answer.read()?;
    let head = match capacity.more {
        Some(more) => format!("{more} more sites like these fit"),
        None => "unknown how many more sites fit".to_owned(),
    };
    screen.line(&screen.paint(Tint::Bold, &head))?;
    for line in &capacity.arithmetic {
        screen.line(&format!("  {}", text::clean(line)))?;
    }
    for (name, line) in promises.lines() {
        screen.line(&format!("  {name}: {line}"))?;
    }
    Ok(())
}
