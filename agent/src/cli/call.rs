//! What is asked of the agent.
use hyper::Method;

/// What is asked.
#[derive(Debug, Clone)]
pub(crate) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) body: Option<Vec<u8>>,
    /// The vhost it is about: 404 then means that there is none of that name.
    pub(super) about: Option<&'a str>,
}

impl<'a> Call<'a> {
    /// About the host.
    pub(crate) fn host(method: Method, path: &str) -> Self {
        Self {
            method,
            path: path.to_owned(),
            body: None,
            about: None,
        }
    }

    /// About a vhost; `below` is what follows its name in the path.
    pub(crate) fn vhost(method: Method, vhost: &'a str, below: &str) -> Self {
        Self {
            path: format!("/v1/vhosts/{}{below}", segment(vhost)),
            about: Some(vhost),
            ..Self::host(method, "")
        }
    }

    /// The same, but any path.
    pub(crate) fn about(self, vhost: &'a str) -> Self {
        Self {
            about: Some(vhost),
            ..self
        }
    }

    /// With a JSON body.
    pub(crate) fn json(self, body: &serde_json::Value) -> Self {
        Self {
            body: Some(body.to_string().into_bytes()),
            ..self
        }
    }
}

/// A name as one segment of a path: whatever it contains, it stays one segment.
pub(crate) fn segment(name: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'.' if name.bytes().all(|b| b == b'.') => out.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte))
            }
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_one_segment() {
        assert_eq!(segment("www.example.com"), "www.example.com");
        assert_eq!(segment(".."), "%2E%2E");
        assert_eq!(segment("../x?y#z %"), "..%2Fx%3Fy%23z%20%25");
        assert_eq!(segment("ü\0"), "%C3%BC%00");
    }
}
