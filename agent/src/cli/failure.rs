//! What can go wrong in fastctl, with the exit code of each.
use std::io;
use std::path::PathBuf;

use serde::Deserialize;

/// Why a verb did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nobody answers at the socket.
    #[error(
        "cannot reach the agent at {}: {cause}; is fastcontainerd running? systemctl status fastcontainerd",
        socket.display()
    )]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the kernel said, or what happened.
        cause: String,
    },
    /// The socket does not admit this user.
    #[error(
        "permission denied on {}: run fastctl as root, as a member of group fastcontainer, or as the user that owns the site",
        socket.display()
    )]
    NotAdmitted {
        /// The socket.
        socket: PathBuf,
    },
    /// The agent refused.
    #[error("{0}")]
    Refused(Problem),
    /// Anything else, as a whole sentence.
    #[error("{0}")]
    Failed(String),
    /// The command line makes no sense although each word does.
    #[error("{0}")]
    Usage(String),
    /// Standard output cannot be written to.
    #[error("cannot write to the standard output: {0}")]
    Output(#[from] io::Error),
    /// Said already; only the exit code is left.
    #[error("exit code {0}")]
    Exit(u8),
}

impl Failure {
    /// The exit code of the contract.
    pub(crate) fn code(&self) -> u8 {
        match self {
            // The reader of a pipe has seen enough: nothing failed.
            Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => 0,
            Failure::Usage(_) => 2,
            Failure::Refused(problem) if problem.unknown_vhost => 3,
            Failure::Unreachable { .. } => 4,
            Failure::Exit(code) => *code,
            _ => 1,
        }
    }

    /// False when there is nothing to tell.
    pub(crate) fn is_worth_a_message(&self) -> bool {
        match self {
            Failure::Exit(_) => false,
            Failure::Output(e) => e.kind() != io::ErrorKind::BrokenPipe,
            _ => true,
        }
    }
}

/// application/problem+json (RFC 9457), as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    title: Option<String>,
    detail: Option<String>,
    vhost: Option<String>,
    /// HTTP status of the answer.
    #[serde(skip)]
    status: u16,
    #[serde(skip)]
    retry_after: Option<String>,
    /// 404 for something below a vhost.
    #[serde(skip)]
    unknown_vhost: bool,
}

impl Problem {
    /// From an answer that is no success; `about` is the vhost that was asked for, if the request was about one.
    pub(crate) fn of(
        status: u16,
        retry_after: Option<String>,
        body: &[u8],
        about: Option<&str>,
    ) -> Self {
        let mut problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        problem.status = status;
        problem.retry_after = retry_after;
        problem.unknown_vhost = status == 404 && about.is_some();
        problem.vhost = problem.vhost.or_else(|| about.map(str::to_owned));
        problem
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let said = [&self.detail, &self.title]
            .into_iter()
            .flatten()
            .find(|text| !text.is_empty());
        match (said, &self.vhost) {
            // A message that does not name the vhost is useless when several were given.
            (Some(text), Some(vhost)) if !text.contains(vhost.as_str()) => {
                write!(f, "{vhost}: {text}")?
            }
            (Some(text), _) => f.write_str(text)?,
            (None, Some(vhost)) if self.unknown_vhost => write!(f, "{vhost}: no such vhost")?,
            (None, _) => write!(
                f,
                "the agent answered with HTTP status {} and no reason",
                self.status
            )?,
        }
        if let Some(after) = &self.retry_after {
            write!(f, " (try again in {after} s)")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_and_about_whom() {
        let show = |status, retry: Option<&str>, body: &str, about| {
            Problem::of(status, retry.map(str::to_owned), body.as_bytes(), about).to_string()
        };
        assert_eq!(
            show(
                404,
                None,
                r#"{"title":"Not found","detail":"no vhost a.example"}"#,
                Some("a.example")
            ),
            "no vhost a.example"
        );
        assert_eq!(
            show(
                503,
                Some("7"),
                r#"{"title":"backing off"}"#,
                Some("a.example")
            ),
            "a.example: backing off (try again in 7 s)"
        );
        assert_eq!(show(404, None, "<html>", Some("b")), "b: no such vhost");
        assert_eq!(
            show(500, None, "", None),
            "the agent answered with HTTP status 500 and no reason"
        );
        assert_eq!(show(400, None, r#"{"title":"T","detail":""}"#, None), "T");
    }

    #[test]
    fn exit_codes_of_the_contract() {
        let refused =
            |status, about| Failure::Refused(Problem::of(status, None, b"", about)).code();
        assert_eq!(refused(404, Some("a")), 3);
        assert_eq!(refused(404, None), 1);
        assert_eq!(refused(403, Some("a")), 1);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        let pipe = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((pipe.code(), pipe.is_worth_a_message()), (0, false));
        let full = Failure::Output(io::ErrorKind::StorageFull.into());
        assert_eq!((full.code(), full.is_worth_a_message()), (1, true));
    }
}
