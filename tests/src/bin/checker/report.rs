//! The report: what is collected, and in which order.

use serde_json::{Value, json};

use crate::{calls, files, identity, nested, network, processes, pseudo, setuid, sockets};

/// What the test told us.
pub(crate) struct Targets(Value);

impl Targets {
    fn read() -> Self {
        let text = std::fs::read_to_string("/site/targets").unwrap_or_default();
        Self(serde_json::from_str(&text).unwrap_or_default())
    }

    /// A list of texts.
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        let items = self.0[key].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// A text.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0[key].as_str()
    }
}

/// Lines so far.
#[derive(Default)]
pub(crate) struct Report(String);

impl Report {
    /// Adds one line.
    pub(crate) fn add(&mut self, check: &str, ok: bool, detail: impl Into<String>) {
        let detail: String = detail.into();
        self.0 += &format!("{}\n", json!({"check": check, "ok": ok, "detail": detail}));
    }

    /// Adds a line that is fine if `bad` is empty.
    pub(crate) fn none(&mut self, check: &str, bad: &[String]) {
        let shown = bad.iter().take(20).cloned().collect::<Vec<_>>().join(", ");
        self.add(
            check,
            bad.is_empty(),
            format!("{} found: {shown}", bad.len()),
        );
    }

    /// Adds a line that is fine if both are equal.
    pub(crate) fn equal(&mut self, check: &str, found: &str, expected: &str) {
        self.add(
            check,
            found == expected,
            format!("found {found:?}, expected {expected:?}"),
        );
    }
}

/// Everything; `inherited` are the descriptors that the site's command was given (None: this is not the command).
pub(crate) fn all(inherited: Option<&[String]>) -> String {
    let targets = Targets::read();
    let mut report = Report::default();
    identity::check(&mut report, inherited);
    files::check(&mut report, &targets);
    pseudo::check(&mut report);
    processes::check(&mut report);
    network::check(&mut report, &targets);
    setuid::check(&mut report, &targets);
    calls::check(&mut report);
    sockets::check(&mut report);
    nested::check(&mut report);
    report.add("complete", true, "");
    report.0
}
