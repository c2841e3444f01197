//! Failures as (step, object, errno), and their way to the agent.

use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use shim::protocol::{Failure, Report};

/// What every step of a set-up returns.
pub(crate) type Done<T> = Result<T, Failure>;

/// Names the step and the object behind a failed system call.
pub(crate) trait Step<T> {
    /// `step` fits behind "cannot"; `object` is the path or thing it was done to, or empty.
    fn step(self, step: &str, object: &str) -> Done<T>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: &str, object: &str) -> Done<T> {
        self.map_err(|e| failure(step, object, e.raw_os_error()))
    }
}

/// A failure that no system call reported.
pub(crate) fn failure(step: &str, object: &str, errno: i32) -> Failure {
    Failure {
        step: step.to_owned(),
        object: object.to_owned(),
        errno,
    }
}

/// `execute "/x": No such file or directory (os error 2)`.
pub(crate) fn describe(f: &Failure) -> String {
    let object = if f.object.is_empty() {
        String::new()
    } else {
        format!(" {:?}", f.object)
    };
    if f.errno == 0 {
        format!("{}{object}", f.step)
    } else {
        format!(
            "{}{object}: {}",
            f.step,
            std::io::Error::from_raw_os_error(f.errno)
        )
    }
}

/// Passes on what a check came to; a refusal is sent, where it is known to whom.
pub(crate) fn told_if_not<T>(status: Option<OwnedFd>, checked: Done<T>) -> Done<T> {
    checked.inspect_err(|f| {
        if let Some(status) = &status {
            send_report(status, &Report::Failed(f.clone()));
        }
    })
}

/// Sends one report. A receiver that is gone is no reason to stop: the container does not depend on the agent.
pub(crate) fn send_report(status: impl AsFd, report: &Report) {
    if let Ok(bytes) = postcard::to_stdvec(report) {
        let _gone = send(status, &bytes, SendFlags::NOSIGNAL);
    }
}
