//! What is promised, as `status` and `capacity` show it.

use serde::Deserialize;

use super::text;

/// What the host has promised.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Promises {
    sites: u64,
    cpus: Option<Cpus>,
    cpu: Option<Resource>,
    memory: Option<Resource>,
}

/// Which CPUs are for whom.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cpus {
    guaranteed: String,
    others: String,
}

/// One resource of it, with units.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resource {
    host: String,
    reserve: String,
    promised: String,
    free: String,
}

impl Promises {
    /// A name and a line for the division of CPUs, if there is one, and for each resource if something is promised.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let divided = self.cpus.iter().map(|cpus| {
            let line = format!(
                "{} for guaranteed sites only, {} for the others",
                cpus.guaranteed, cpus.others
            );
            ("CPUs", text::clean(&line).into_owned())
        });
        if self.sites == 0 {
            return divided.collect();
        }
        let resources = [
            ("CPU promised", &self.cpu),
            ("memory promised", &self.memory),
        ];
        let line = |resource: &Resource| {
            text::clean(&format!(
                "{} of {} - {} reserve, {} free",
                resource.promised, resource.host, resource.reserve, resource.free
            ))
            .into_owned()
        };
        let shown =
            |(name, resource): (_, &Option<Resource>)| Some((name, line(resource.as_ref()?)));
        let resources = resources.into_iter().filter_map(shown);
        divided.chain(resources).collect()
    }
}

/// What one site is promised.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Promised {
    cpu: Option<String>,
    memory: Option<String>,
}

/// `guaranteed (CPU 50%, memory 64M)`; a guaranteed site whose promise is not kept says so.
pub(crate) fn class(class: Option<&str>, promised: Option<&Promised>) -> String {
    let class = text::clean(class.unwrap_or_default()).into_owned();
    let parts: Vec<String> = promised
        .into_iter()
        .flat_map(|p| [("CPU", &p.cpu), ("memory", &p.memory)])
        .filter_map(|(name, value)| Some(format!("{name} {}", text::clean(value.as_ref()?))))
        .collect();
    match (&*class, parts.is_empty()) {
        ("guaranteed", true) => "guaranteed, but the promise is not kept".to_owned(),
        (_, true) => class,
        _ => format!("{class} ({} promised)", parts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_promised_is_a_phrase() {
        let promised: Promised = serde_json::from_str(r#"{"cpu": "50%", "memory": null}"#).unwrap();
        assert_eq!(
            class(Some("guaranteed"), Some(&promised)),
            "guaranteed (CPU 50% promised)"
        );
        assert_eq!(
            class(Some("guaranteed"), None),
            "guaranteed, but the promise is not kept"
        );
        assert_eq!(class(Some("best-effort"), None), "best-effort");
        assert!(Promises::default().lines().is_empty());
        let host = r#"{"sites": 0, "cpus": {"guaranteed": "0", "others": "1-3"}}"#;
        let host: Promises = serde_json::from_str(host).unwrap();
        assert_eq!(
            host.lines(),
            [(
                "CPUs",
                "0 for guaranteed sites only, 1-3 for the others".to_owned()
            )]
        );
        let host = r#"{"sites": 1, "cpu": {"host": "200%", "reserve": "20%", "promised": "50%", "free": "130%"}, "memory": null}"#;
        let host: Promises = serde_json::from_str(host).unwrap();
        assert_eq!(
            host.lines(),
            [(
                "CPU promised",
                "50% of 200% - 20% reserve, 130% free".to_owned()
            )]
        );
    }
}
