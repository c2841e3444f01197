//! What is wrong with a piece of configuration, and where.

use std::fmt;

use super::units::shorten;

/// One thing that is wrong: the file and place if known, the key, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Problem {
    /// The file, as its name in its directory or its path.
    pub file: Option<Box<str>>,
    /// Line and column, from 1.
    pub place: Option<(u32, u32)>,
    /// The key whose value is wrong: `limits.memory`.
    pub key: Option<Box<str>>,
    /// What is wrong, in words.
    pub message: Box<str>,
}

impl Problem {
    /// A problem with no place.
    pub fn new(message: impl Into<Box<str>>) -> Self {
        Problem {
            message: message.into(),
            ..Problem::default()
        }
    }

    /// A problem with the value of a key.
    pub fn key(key: impl Into<Box<str>>, message: impl Into<Box<str>>) -> Self {
        Problem {
            key: Some(key.into()),
            ..Problem::new(message)
        }
    }

    /// The same problem, in this file.
    #[must_use]
    pub fn in_file(mut self, file: &str) -> Self {
        self.file = Some(file.into());
        self
    }

    /// From what the TOML reader says about `text`.
    pub(crate) fn from_toml(error: &toml::de::Error, text: &str) -> Self {
        let mut problem = Problem::new(improve(error.message()));
        problem.place = error.span().map(|span| place(text, span.start));
        problem
    }

    /// From what the JSON reader says.
    pub(crate) fn from_json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        // serde_json appends the place to the message; it is shown once, as everywhere else.
        let message = text
            .rsplit_once(" at line ")
            .map_or(text.as_str(), |(message, _)| message);
        let mut problem = Problem::new(improve(message));
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        problem.place = (error.line() > 0).then(|| (narrow(error.line()), narrow(error.column())));
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        if let Some((line, column)) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        if self.file.is_some() || self.place.is_some() {
            f.write_str(" ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

/// Line and column, from 1, of a byte offset.
fn place(text: &str, offset: usize) -> (u32, u32) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (
        u32::try_from(line).unwrap_or(u32::MAX),
        u32::try_from(column).unwrap_or(u32::MAX),
    )
}

/// Adds the nearest valid name to serde's "unknown field" and "unknown variant", and says "key" for "field".
fn improve(message: &str) -> String {
    let message = message.trim_end();
    let (kind, word) = if message.starts_with("unknown field `") {
        ("unknown field `", "key")
    } else if message.starts_with("unknown variant `") {
        ("unknown variant `", "value")
    } else {
        return message
            .replace("missing field `", "missing key `")
            .replace("duplicate field `", "duplicate key `");
    };
    // The name in question is foreign text and may hold backticks; the list that follows is ours and does not.
    let rest = &message[kind.len()..];
    let (name, valid) = rest.rsplit_once("`, expected ").unwrap_or((rest, ""));
    let valid: Vec<&str> = valid.split('`').skip(1).step_by(2).collect();
    unknown(word, name, valid)
}

/// "unknown key `x`", with the nearest of `valid` if one is near, and with all of them.
pub(crate) fn unknown<'a>(
    word: &str,
    name: &str,
    valid: impl IntoIterator<Item = &'a str>,
) -> String {
    let valid: Vec<&str> = valid.into_iter().collect();
    let mut message = format!("unknown {word} `{}`", shorten(name));
    if let Some(near) = nearest(name, valid.iter().copied()) {
        message.push_str(&format!("; did you mean `{near}`?"));
    }
    if valid.is_empty() {
        message.push_str(&format!("; no {word} is valid here"));
    } else {
        message.push_str(&format!(" (valid here: {})", valid.join(", ")));
    }
    message
}

/// The valid name most like `name`, if any is like it at all.
pub(crate) fn nearest<'a>(name: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // The distance is quadratic in time; a name far longer than any valid one is near none.
    if name.len() > 64 {
        return None;
    }
    let name = name.to_lowercase();
    valid
        .into_iter()
        .map(|candidate| {
            (
                strsim::jaro_winkler(&name, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(likeness, _)| *likeness >= 0.72)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_key() {
        let message =
            improve("unknown field `memroy`, expected one of `cpu`, `memory`, `memory_high`");
        assert_eq!(
            message,
            "unknown key `memroy`; did you mean `memory`? (valid here: cpu, memory, memory_high)"
        );
        let message = improve("unknown field `x`, expected `a`, expected `cpu` or `memory`");
        assert_eq!(
            message,
            "unknown key `x`, expected `a` (valid here: cpu, memory)"
        );
        assert_eq!(improve("missing field `name`"), "missing key `name`");
        assert!(nearest(&"a".repeat(100_000), ["a"]).is_none());
    }

    #[test]
    fn finds_places() {
        assert_eq!(place("a\nbé c", 0), (1, 1));
        assert_eq!(place("a\nbé c", 6), (2, 4));
        assert_eq!(place("", 9), (1, 1));
    }
}
