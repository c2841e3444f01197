//! `status`: one vhost or the host, on a page.
use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::client::{Call, Client};
use super::failure::Failure;
use super::list::FileProblem;
use super::promises::{self, Promised, Promises};
use super::screen::{Screen, Tint};
use super::values::{self, Phases};
use super::{temporary, text, units};

/// Answer to `GET /v1/vhosts/{name}`, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Vhost {
    vhost: String,
    owner: Option<String>,
    state: String,
    wanted: Value,
    pid: Option<i64>,
    uptime_s: Option<f64>,
    upstream: Option<String>,
    class: Option<String>,
    promised: Option<Promised>,
    cpus: Option<String>,
    limits: Option<Map<String, Value>>,
    usage: Option<Map<String, Value>>,
    temporary: Value,
    drift: Vec<Drift>,
    last_exit: Value,
    last_start: Option<Start>,
    last_failure: Option<String>,
    retry_after_s: Option<f64>,
    cause: Option<String>,
}

/// A limit that somebody has changed behind the agent's back.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Drift {
    key: String,
    file: String,
    wanted: String,
    found: String,
}

/// The last start.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Start {
    start_ms: Option<f64>,
    phases: Phases,
}

/// Prints one vhost.
pub(crate) async fn vhost(
    client: &Client,
    screen: &mut Screen,
    name: &str,
    json: bool,
) -> Result<(), Failure> {
    let answer = client.ask(Call::vhost(Method::GET, name, "")).await?;
    if json {
        return Ok(screen.json(&answer.body)?);
    }
    let v: Vhost = answer.read()?;
    let mut page = Page::default();
    page.add("wanted", values::show(&v.wanted), "");
    page.add("owner", clean(v.owner.as_deref()), "");
    let class = promises::class(v.class.as_deref(), v.promised.as_ref());
    page.add("class", class, "");
    page.add("CPUs", clean(v.cpus.as_deref()), "");
    page.add("pid", v.pid.map(|p| p.to_string()).unwrap_or_default(), "");
    page.add(
        "uptime",
        v.uptime_s.map(units::uptime).unwrap_or_default(),
        "",
    );
    page.add("upstream", clean(v.upstream.as_deref()), "");
    let none = Map::new();
    uses(
        &mut page,
        v.limits.as_ref().unwrap_or(&none),
        v.usage.as_ref().unwrap_or(&none),
    );
    for (key, limit) in temporary::of(&v.temporary) {
        page.add(
            "for a time",
            format!("{} {}", text::clean(&key), limit.phrase()),
            "",
        );
    }
    for d in &v.drift {
        let [key, found, wanted, file] =
            [&d.key, &d.found, &d.wanted, &d.file].map(|t| text::clean(t));
        page.add(
            "by hand",
            format!("{key} is {found} instead of {wanted} in {file}; see `fastctl set --mend`"),
            "",
        );
    }
    page.add("last exit", last_exit(&v.last_exit), "");
    page.add("last failure", clean(v.last_failure.as_deref()), "");
    let pause = v.retry_after_s.filter(|s| *s > 0.0);
    let pause = pause.map(|s| format!("after {:.0} s; `fastctl start` tries at once", s.ceil()));
    page.add("next try", pause.unwrap_or_default(), "");
    if let Some(start) = &v.last_start {
        page.add(
            "last start",
            start.start_ms.map(units::millis).unwrap_or_default(),
            "",
        );
        page.add("phases", start.phases.line(), "");
    }
    let title = screen.paint(Tint::Bold, &text::clean(&v.vhost));
    let state = screen.paint(Tint::of_state(&v.state), &text::clean(&v.state));
    let cause = v.cause.as_deref().map(|c| format!(" ({})", text::clean(c)));
    screen.line(&format!("{title}  {state}{}", cause.unwrap_or_default()))?;
    page.print(screen)
}

fn clean(text: Option<&str>) -> String {
    text.map(|t| text::clean(t).into_owned())
        .unwrap_or_default()
}

/// Name, value and remark, aligned; what is empty is left out.
#[derive(Debug, Default)]
struct Page(Vec<(String, String, String)>);

impl Page {
    fn add(&mut self, name: &str, value: String, remark: impl Into<String>) {
        let remark = remark.into();
        if !(value.is_empty() || value == "-") || !remark.is_empty() {
            self.0.push((text::clean(name).into_owned(), value, remark));
        }
    }

    fn print(&self, screen: &mut Screen) -> Result<(), Failure> {
        let widest = self
            .0
            .iter()
            .filter(|r| !r.2.is_empty())
            .map(|r| r.1.chars().count())
            .max();
        let names = self
            .0
            .iter()
            .map(|r| r.0.chars().count())
            .max()
            .unwrap_or(0)
            .max(10);
        for (name, value, remark) in &self.0 {
            let name = screen.paint(Tint::Dim, &format!("{name:names$}"));
            let line = match widest.unwrap_or(0) {
                _ if remark.is_empty() => format!("  {name}  {value}"),
                0 => format!("  {name}  {remark}"),
                width => format!("  {name}  {value:width$}  {remark}"),
            };
            screen.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// Each resource with what is used of it and its limit; then what has only one of both.
fn uses(page: &mut Page, limits: &Map<String, Value>, usage: &Map<String, Value>) {
    let limit = |key: &str| limits.get(key).filter(|v| !v.is_null());
    let remark = |key: &str, is_used: bool| {
        let word = if is_used { "of" } else { "limit" };
        limit(key)
            .map(|v| format!("{word} {}", values::show_limit(key, v)))
            .unwrap_or_default()
    };
    let seconds = usage.get("cpu_seconds").and_then(Value::as_f64);
    let cpu = seconds
        .map(|s| format!("{} used", units::seconds(s)))
        .unwrap_or_default();
    let rate = limit("cpu").map(|v| format!("limit {}", values::show_limit("cpu", v)));
    page.add("cpu", cpu, rate.unwrap_or_default());

    for (key, used) in [("memory", "memory_bytes"), ("disk", "disk_bytes")] {
        let used = usage.get(used).and_then(Value::as_u64);
        let most = limit(key).and_then(|v| v.as_u64().or_else(|| units::parse_bytes(v.as_str()?)));
        let share = match (used, most) {
            (Some(used), Some(most)) if most > 0 => {
                format!(" ({:.0} %)", used as f64 * 100.0 / most as f64)
            }
            _ => String::new(),
        };
        let shown = used.map(units::bytes).unwrap_or_default();
        page.add(key, shown, remark(key, used.is_some()) + &share);
    }
    let pids = usage.get("pids").map(values::show);
    let most = remark("pids", pids.is_some());
    page.add("pids", pids.unwrap_or_default(), most);
    for (key, value) in limits.iter().filter(|(k, v)| {
        !["cpu", "memory", "disk", "pids", "class"].contains(&k.as_str()) && !v.is_null()
    }) {
        page.add(
            key,
            String::new(),
            format!("limit {}", values::show_limit(key, value)),
        );
    }
    for (key, value) in usage.iter().filter(|(k, v)| {
        !["cpu_seconds", "memory_bytes", "disk_bytes", "pids"].contains(&k.as_str()) && !v.is_null()
    }) {
        let (name, shown) = match (key.strip_suffix("_bytes"), key.strip_suffix("_seconds")) {
            (Some(name), _) => (name, value.as_u64().map(units::bytes)),
            (_, Some(name)) => (name, value.as_f64().map(units::seconds)),
            _ => (key.as_str(), None),
        };
        let shown = shown.unwrap_or_else(|| values::show(value));
        page.add(&name.replace('_', " "), shown, "");
    }
}

/// `code 1 at 2026-11-22T05:51:02Z, crashed`: whatever the agent tells about it.
fn last_exit(value: &Value) -> String {
    let Value::Object(map) = value else {
        return values::show(value);
    };
    let mut parts = Vec::new();
    for key in ["code", "signal"] {
        if let Some(v) = map.get(key).filter(|v| !v.is_null()) {
            parts.push(format!("{key} {}", values::show(v)));
        }
    }
    for (key, v) in map {
        match key.as_str() {
            "code" | "signal" => {}
            "cause" | "reason" if !v.is_null() => parts.push(values::show(v)),
            _ if v.is_null() => {}
            _ => parts.push(format!("{} {}", text::clean(key), values::show(v))),
        }
    }
    parts.join(", ")
}

/// Answer to `GET /v1/status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Host {
    host: String,
    version: String,
    uptime_s: Option<f64>,
    draining: bool,
    cgroup: Map<String, Value>,
    vhosts: Map<String, Value>,
    promises: Option<Promises>,
    problems: Vec<FileProblem>,
}

/// Prints the host.
pub(crate) async fn host(client: &Client, screen: &mut Screen, json: bool) -> Result<(), Failure> {
    let answer = client.ask(Call::host(Method::GET, "/v1/status")).await?;
    if json {
        return Ok(screen.json(&answer.body)?);
    }
    let h: Host = answer.read()?;
    let title = screen.paint(Tint::Bold, &text::clean(&h.host));
    let (tint, state) = if h.draining {
        (Tint::Warn, "draining")
    } else {
        (Tint::Good, "serving")
    };
    screen.line(&format!("{title}  {}", screen.paint(tint, state)))?;
    let mut page = Page::default();
    page.add("version", clean(Some(&h.version)), "");
    page.add(
        "uptime",
        h.uptime_s.map(units::uptime).unwrap_or_default(),
        "",
    );
    let cgroup = |key: &str| {
        let value = h.cgroup.get(key).filter(|v| !v.is_null());
        value.map(values::show).unwrap_or_default()
    };
    let controllers = cgroup("controllers").replace(['[', ']', ','], "");
    page.add(
        "cgroup",
        ["version", "parent"]
            .map(cgroup)
            .join("  ")
            .trim()
            .to_owned(),
        "",
    );
    page.add("controllers", controllers, "");
    page.add(
        "vhosts",
        h.vhosts.get("total").map(values::show).unwrap_or_default(),
        "",
    );
    for (state, count) in h
        .vhosts
        .iter()
        .filter(|(k, v)| *k != "total" && v.as_u64() != Some(0))
    {
        page.add(&format!("  {state}"), values::show(count), "");
    }
    for (name, line) in h.promises.iter().flat_map(Promises::lines) {
        page.add(name, line, "");
    }
    page.print(screen)?;
    for problem in &h.problems {
        screen.complain(&format!("not in force: {}", problem.line()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_used_has_a_limit_only() {
        let map = |v: Value| v.as_object().cloned().unwrap_or_default();
        let mut page = Page::default();
        uses(&mut page, &map(json!({"pids": 512})), &Map::new());
        uses(
            &mut page,
            &Map::new(),
            &map(json!({"throttled_seconds": 2.493778, "io_read_bytes": 2048})),
        );
        uses(
            &mut page,
            &map(json!({"disk": "8M"})),
            &map(json!({"disk_bytes": 2 << 20})),
        );
        let row = |name: &str, value: &str, remark: &str| {
            (name.to_owned(), value.to_owned(), remark.to_owned())
        };
        assert_eq!(
            page.0,
            [
                row("pids", "", "limit 512"),
                row("io read", "2K", ""),
                row("throttled", "2.49s", ""),
                row("disk", "2M", "of 8M (25 %)")
            ]
        );
    }

    #[test]
    fn the_last_exit_is_a_phrase() {
        assert_eq!(
            last_exit(
                &json!({"signal": 9, "cause": "out of memory", "at": "2026-11-22T05:51:02Z", "code": null})
            ),
            "signal 9, at 2026-11-22T05:51:02Z, out of memory"
        );
        assert_eq!(last_exit(&Value::Null), "-");
        assert_eq!(last_exit(&json!("code 1 1")), "code 1 1");
    }
}
