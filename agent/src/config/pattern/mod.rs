//! Vhosts from directories: `*.example.net` with its documents in `/srv/www/%h`.
//!
//! In a pattern `*` stands for one label, and `**`, which only comes first, for one or more. In a path `%h` is the host
//! name, `%1` to `%9` are its labels from the left, `%%` is a percent sign. A host name is checked before it is put
//! into a path, so a path never leads elsewhere.

mod set;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use set::{Patterns, Reloaded, exists};

use super::definition::serde_text;
use super::host;
use super::units::shorten;

/// A host name with wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPattern(Box<str>);

/// A path with placeholders.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PathPattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Part {
    Text(String),
    Host,
    Label(usize),
}

serde_text!(HostPattern: "a pattern of host names", PathPattern: "a path with placeholders");

impl HostPattern {
    /// Whether a host name, in its normal form, is one of these. A text that is no valid host name never is.
    pub fn matches(&self, host: &str) -> bool {
        if host::check_host(host).is_err() {
            return false;
        }
        let mut labels: Vec<&str> = host.split('.').collect();
        let mut wanted: Vec<&str> = self.0.split('.').collect();
        if wanted[0] == "**" {
            wanted.remove(0);
            if labels.len() <= wanted.len() {
                return false;
            }
            labels.drain(..labels.len() - wanted.len());
        }
        labels.len() == wanted.len()
            && labels
                .iter()
                .zip(&wanted)
                .all(|(label, wanted)| *wanted == "*" || label == wanted)
    }

    /// The positions of the wildcards among the labels, from 1; nothing if the number of labels is open.
    fn wildcards(&self) -> Option<Vec<usize>> {
        (!self.0.starts_with("**")).then(|| {
            self.0
                .split('.')
                .enumerate()
                .filter(|(_, label)| *label == "*")
                .map(|(at, _)| at + 1)
                .collect()
        })
    }

    /// The one host name with this label in the place of the only wildcard.
    fn with_label(&self, label: &str) -> Option<String> {
        (self.wildcards()?.len() == 1).then(|| self.0.replacen('*', label, 1))
    }
}

impl PathPattern {
    /// The path for a host name; nothing if it is no valid one or has too few labels.
    pub fn expand(&self, host: &str) -> Option<PathBuf> {
        host::check_host(host).ok()?;
        let mut path = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => path.push_str(text),
                Part::Host => path.push_str(host),
                Part::Label(at) => path.push_str(host.split('.').nth(at - 1)?),
            }
        }
        Some(path.into())
    }

    /// Whether different host names of the pattern have different paths. If they had not, anybody could make up names
    /// for somebody else's documents, and each would get a container.
    fn tells_apart(&self, pattern: &HostPattern) -> bool {
        if self.0.contains(&Part::Host) {
            return true;
        }
        pattern
            .wildcards()
            .is_some_and(|all| all.iter().all(|at| self.0.contains(&Part::Label(*at))))
    }

    /// If only the last component has placeholders, and one of them: the directory, and the text before and behind it.
    fn listing(&self) -> Option<(PathBuf, &str, &Part, &str)> {
        let (before, rest) = match self.0.split_first()? {
            (Part::Text(text), rest) => (text.as_str(), rest),
            _ => return None,
        };
        let (placeholder, after) = match rest {
            [part] => (part, ""),
            [part, Part::Text(after)] if !after.contains('/') => (part, after.as_str()),
            _ => return None,
        };
        let (directory, prefix) = before.rsplit_once('/')?;
        let directory = if directory.is_empty() { "/" } else { directory };
        Some((directory.into(), prefix, placeholder, after))
    }
}

/// Checks that a pattern and its documents fit together.
pub(super) fn check(pattern: &HostPattern, documents: &PathPattern) -> Result<(), String> {
    if documents.tells_apart(pattern) {
        return Ok(());
    }
    Err(format!(
        "documents = \"{documents}\" must contain %h, or the label of each * of the pattern \"{pattern}\": else several hosts would share a directory"
    ))
}

/// The directory whose entries are the vhosts of a pattern, if there is one.
pub fn listed_in(documents: &PathPattern) -> Option<PathBuf> {
    documents.listing().map(|(directory, ..)| directory)
}

/// The host name whose documents are the entry of this name in the directory that [`listed_in`] names.
pub fn host_of_entry(
    pattern: &HostPattern,
    documents: &PathPattern,
    entry: &str,
) -> Option<String> {
    let (_, prefix, placeholder, suffix) = documents.listing()?;
    let middle = entry.strip_prefix(prefix)?.strip_suffix(suffix)?;
    let host = match placeholder {
        Part::Host => middle.to_owned(),
        Part::Label(_) => pattern.with_label(middle)?,
        Part::Text(_) => return None,
    };
    // Only if the way forth leads to the same entry is the entry that host's.
    let path = documents.expand(&host).filter(|_| pattern.matches(&host))?;
    (path.file_name() == Some(entry.as_ref())).then_some(host)
}

impl FromStr for HostPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let normal = host::normal(text);
        let wrong = |why: &str| {
            let text = shorten(text);
            format!(
                "\"{text}\" is no pattern of host names: {why}; write \"*.example.net\", or \"**.example.net\" for any depth"
            )
        };
        for (at, label) in normal.split('.').enumerate() {
            match label {
                "*" => {}
                "**" if at == 0 => {}
                "**" => return Err(wrong("** can only be the first label")),
                label if label.contains('*') => return Err(wrong("a * stands for a whole label")),
                _ => {}
            }
        }
        let example = normal.replace("**", "a").replace('*', "a");
        host::check_host(&example).map_err(|e| wrong(&e.to_string()))?;
        if !normal.contains('*') {
            return Err(wrong("it has no *; a single host belongs into vhosts.d"));
        }
        Ok(HostPattern(normal.into()))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PathPattern {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "\"{}\" is no path for documents: {why}; write \"/srv/www/%h\"",
                shorten(text)
            )
        };
        if !text.starts_with('/') {
            return Err(wrong("it must be absolute"));
        }
        if text.contains('\0')
            || Path::new(text)
                .components()
                .any(|part| part.as_os_str() == "..")
        {
            return Err(wrong("it must not contain \"..\" or NUL"));
        }
        let mut parts: Vec<Part> = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            let literal = match character {
                '%' => match characters.next() {
                    Some('%') => '%',
                    Some('h') => {
                        parts.push(Part::Host);
                        continue;
                    }
                    Some(digit @ '1'..='9') => {
                        parts.push(Part::Label(digit as usize - '0' as usize));
                        continue;
                    }
                    _ => return Err(wrong("after % comes h, a digit from 1 to 9, or %")),
                },
                other => other,
            };
            match parts.last_mut() {
                Some(Part::Text(last)) => last.push(literal),
                _ => parts.push(Part::Text(literal.into())),
            }
        }
        Ok(PathPattern(parts))
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('%', "%%")),
            Part::Host => f.write_str("%h"),
            Part::Label(at) => write!(f, "%{at}"),
        })
    }
}
