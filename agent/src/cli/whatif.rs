//! `capacity --vhost`: what other limits would have done to a site.
use hyper::Method;
use serde::Deserialize;

use super::call::segment;
use super::client::{Call, Client};
use super::failure::Failure;
use super::screen::{Screen, Tint};
use super::{text, units};
use crate::config::units::Span;
use crate::seeing::whatif::{Effect, WhatIf};

#[derive(Debug, Deserialize)]
struct Report {
    what_if: WhatIf,
}

/// Prints a line a limit, and how exact they are.
pub(crate) async fn run(
    client: &Client,
    screen: &mut Screen,
    vhost: &str,
    since: Span,
    limits: &[String],
    json: bool,
) -> Result<(), Failure> {
    let mut path = format!("/v1/capacity?vhost={}", segment(vhost));
    path += &format!("&since={}", segment(&since.to_string()));
    for limit in limits {
        path += &format!("&limit={}", segment(limit));
    }
    let answer = client
        .ask(Call::host(Method::GET, &path).about(vhost))
        .await?;
    if json {
        return Ok(screen.json(&answer.body)?);
    }
    let Report { what_if } = answer.read()?;
    for line in lines(screen, &what_if) {
        screen.line(&line)?;
    }
    Ok(())
}

fn lines(screen: &Screen, told: &WhatIf) -> Vec<String> {
    let step = units::seconds(told.step_s as f64);
    let head = format!(
        "{}, last {}: {} steps of {step} recorded",
        text::clean(&told.vhost),
        units::seconds(told.to.saturating_sub(told.from) as f64),
        told.recorded
    );
    let mut lines = vec![screen.paint(Tint::Bold, &head)];
    let effects = told.effects.iter();
    lines.extend(effects.map(|effect| format!("  {}", line(effect, told.recorded))));
    if told.throttled > 0 {
        lines.push(format!(
            "  in {} steps its CPU limit of that time held it back",
            told.throttled
        ));
    }
    lines.push(format!("  {}", text::clean(&told.resolution)));
    lines
}

fn line(effect: &Effect, recorded: u64) -> String {
    let (key, limit) = (text::clean(&effect.key), text::clean(&effect.limit));
    let mut line = format!("{key}={limit}  over in {}", effect.over);
    if effect.over > 0 && recorded > 0 {
        let share = effect.over as f64 * 100.0 / recorded as f64;
        line += &format!(" ({share:.1} %)");
    }
    line += &format!(", most {}", text::clean(&effect.most));
    if let Some(delayed) = effect.delayed_seconds.filter(|delayed| *delayed > 0.0) {
        line += &format!(", {} of waiting", units::seconds(delayed));
    }
    if let Some(private) = effect.private_over.filter(|private| *private > 0) {
        line += &format!(", in {private} by what its processes have for themselves");
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use crate::cli::testing::FakeAgent;
    use crate::cli::tests::fastctl;

    #[test]
    fn each_limit_has_a_line() {
        let body = json!({"what_if": {"vhost": "a.example", "from": 1000, "to": 4600, "step_s": 60, "recorded": 40,
            "throttled": 3, "resolution": "a lower bound", "effects": [
            {"key": "cpu", "limit": "20%", "over": 10, "most": "95%", "delayed_seconds": 90.0},
            {"key": "memory", "limit": "128M", "over": 2, "most": "300M", "private_over": 1},
            {"key": "pids", "limit": "9", "over": 0, "most": "4"}]}});
        let agent = FakeAgent::answering("200 OK", "", body.to_string());
        let words = [
            "capacity",
            "--vhost",
            "a.example",
            "--since",
            "1h",
            "cpu=20%",
            "memory=128M",
            "pids=9",
        ];
        let (code, out, err) = fastctl(&agent.socket, &words);
        assert_eq!((code, err.as_str()), (0, ""));
        assert_eq!(
            agent.asked()[0].line,
            "GET /v1/capacity?vhost=a.example&since=1h&limit=cpu%3D20%25&limit=memory%3D128M&limit=pids%3D9"
        );
        assert_eq!(
            out,
            "a.example, last 1h00m: 40 steps of 1m00s recorded\n\
             \x20 cpu=20%  over in 10 (25.0 %), most 95%, 1m30s of waiting\n\
             \x20 memory=128M  over in 2 (5.0 %), most 300M, in 1 by what its processes have for themselves\n\
             \x20 pids=9  over in 0, most 4\n\
             \x20 in 3 steps its CPU limit of that time held it back\n\
             \x20 a lower bound\n"
        );
    }

    #[test]
    fn site_and_limits_belong_together() {
        let agent = FakeAgent::answering("200 OK", "", "{}".to_owned());
        for words in [
            &["capacity", "cpu=20%"][..],
            &["capacity", "--vhost", "a.example"],
            &["capacity", "--since", "1h"],
            &[
                "capacity",
                "--vhost",
                "a.example",
                "--reserve",
                "1G",
                "cpu=20%",
            ],
        ] {
            assert_eq!(fastctl(&agent.socket, words).0, 2, "{words:?}");
        }
    }
}
