//! `logs` and `events`: what comes in pieces and is printed as it comes.
use http_body_util::BodyExt;
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::{Call, Client, segment};
use super::failure::Failure;
use super::screen::{Screen, Tint};
use super::text::{self, Cleaner};
use super::values;

/// A longer line of events is not held back any more.
const MAX_LINE: usize = 1 << 20;

/// Prints the log: byte for byte into a pipe or file, made harmless on a terminal.
pub(crate) async fn logs(
    client: &Client,
    screen: &mut Screen,
    vhost: &str,
    lines: u64,
    follow: bool,
) -> Result<(), Failure> {
    let follow = if follow { "&follow=true" } else { "" };
    let call = Call::vhost(Method::GET, vhost, &format!("/logs?lines={lines}{follow}"));
    let mut body = client.open(call).await?.into_body();
    let mut cleaner = Cleaner::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| client.cut(&e))?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        if screen.out_is_terminal {
            screen.raw(cleaner.push(&piece).as_bytes())?;
        } else {
            screen.raw(&piece)?;
        }
        screen.flush()?;
    }
    Ok(screen.raw(cleaner.finish().as_bytes())?)
}

/// One event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    time: String,
    vhost: Option<String>,
    event: String,
    from: Option<String>,
    to: Option<String>,
    cause: Option<String>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Prints events, a line each.
pub(crate) async fn events(
    client: &Client,
    screen: &mut Screen,
    vhost: Option<&str>,
    follow: bool,
    json: bool,
) -> Result<(), Failure> {
    let mut query = vec![format!("follow={follow}")];
    if let Some(vhost) = vhost {
        query.push(format!("vhost={}", segment(vhost)));
    }
    let mut call = Call::host(Method::GET, &format!("/v1/events?{}", query.join("&")));
    if let Some(vhost) = vhost {
        call = call.about(vhost);
    }
    let mut body = client.open(call).await?.into_body();
    let mut waiting = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| client.cut(&e))?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        waiting.extend_from_slice(&piece);
        let end = match waiting.iter().rposition(|b| *b == b'\n') {
            Some(end) => end + 1,
            None if waiting.len() > MAX_LINE => waiting.len(),
            None => continue,
        };
        let whole: Vec<u8> = waiting.drain(..end).collect();
        print_events(screen, &whole, json)?;
        screen.flush()?;
    }
    print_events(screen, &waiting, json)
}

fn print_events(screen: &mut Screen, lines: &[u8], json: bool) -> Result<(), Failure> {
    for line in lines
        .split(|b| *b == b'\n')
        .filter(|l| !l.trim_ascii().is_empty())
    {
        if json {
            screen.json(line)?;
            continue;
        }
        match serde_json::from_slice::<Event>(line) {
            Ok(event) => screen.line(&show(screen, &event))?,
            // Of a newer agent, perhaps: better shown than dropped.
            Err(_) => screen.line(&text::clean(&String::from_utf8_lossy(line)))?,
        }
    }
    Ok(())
}

fn show(screen: &Screen, event: &Event) -> String {
    let clean = |t: &Option<String>| t.as_deref().map(|t| text::clean(t).into_owned());
    let mut parts = vec![screen.paint(Tint::Dim, &text::clean(&event.time))];
    parts.extend(clean(&event.vhost).map(|v| screen.paint(Tint::Bold, &v)));
    // "state" says nothing that "from → to" does not.
    let is_change = event.event == "state" && event.to.is_some();
    if !is_change {
        parts.push(text::clean(&event.event).into_owned());
    }
    let state = |t: &Option<String>| clean(t).map(|s| screen.paint(Tint::of_state(&s), &s));
    match (state(&event.from), state(&event.to)) {
        (Some(from), Some(to)) => parts.push(format!("{from} → {to}")),
        (None, Some(to)) => parts.push(format!("→ {to}")),
        (Some(from), None) => parts.push(from),
        (None, None) => {}
    }
    parts.extend(clean(&event.cause).map(|c| format!("({c})")));
    for (key, value) in event.rest.iter().filter(|(_, v)| !v.is_null()) {
        match (key.as_str(), value) {
            ("changes", Value::Array(list)) if list.is_empty() => {
                parts.push("unchanged".to_owned())
            }
            ("changes", Value::Array(list)) => parts.extend(list.iter().map(change)),
            ("change", _) => parts.push(values::show(value)),
            _ => parts.push(format!("{}={}", text::clean(key), values::show(value))),
        }
    }
    parts.join("  ")
}

/// `cpu: 20% → 50%`; without a limit it is "max", as `fastctl set` says.
fn change(change: &Value) -> String {
    let show = |key: &str| match &change[key] {
        Value::Null => "max".to_owned(),
        value => values::show(value),
    };
    format!(
        "{}: {} → {}",
        values::show(&change["key"]),
        show("old"),
        show("new")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let screen = Screen::of(Box::new(std::io::sink()), Box::new(std::io::sink()), false);
        let line = |json: &str| show(&screen, &serde_json::from_str(json).unwrap());
        assert_eq!(
            line(
                r#"{"time":"T","vhost":"a.example","event":"state","from":"running","to":"stopped","cause":"idle for 60 s"}"#
            ),
            "T  a.example  running → stopped  (idle for 60 s)"
        );
        assert_eq!(
            line(r#"{"time":"T","vhost":"a\u001b[2J","event":"oom","pid":5,"x":null}"#),
            "T  a\\x1b[2J  oom  pid=5"
        );
        assert_eq!(
            line(
                r#"{"time":"T","vhost":"a","event":"limits","changes":[{"key":"cpu","old":null,"new":"20%"}],"owner":"o"}"#
            ),
            "T  a  limits  cpu: max → 20%  owner=o"
        );
        assert_eq!(
            line(r#"{"time":"T","vhost":"a","event":"definition","change":"in force"}"#),
            "T  a  definition  in force"
        );
    }
}
