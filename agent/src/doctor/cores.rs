//! What becomes of the memory of a site's process that crashes.
use super::{Check, System};
use crate::config::Limits;

const NAME: &str = "core dumps";

pub(super) fn checks(system: &System) -> Vec<Check> {
    let limits = crate::container::rlimits(&Limits::default());
    let core = limits
        .iter()
        .find(|limit| limit.resource == libc::RLIMIT_CORE);
    let soft = core.map_or(libc::RLIM_INFINITY, |limit| limit.soft);
    vec![judge(
        system.read("proc/sys/kernel/core_pattern").as_deref(),
        system.number("proc/sys/kernel/core_pipe_limit"),
        soft,
    )]
}

/// `limit` is the RLIMIT_CORE that sites start with, and keep: their filter lets nobody change it.
///
/// Where core_pattern is a file, nothing is written for whoever has a limit below a page. Where it is a pipe the kernel
/// does not heed the limit, with one exception: at exactly 1 it dumps nothing, which is how it keeps handlers from
/// handling their own crashes. The exception is not made for sockets.
fn judge(pattern: Option<&str>, at_once: Option<u64>, limit: u64) -> Check {
    let Some(pattern) = pattern else {
        return Check::warn(NAME, "kernel.core_pattern cannot be read", "mount /proc");
    };
    let handler = match pattern.split_at_checked(1) {
        Some(("|", _)) if limit == 1 => {
            let text = "a handler, which is run for nothing in sites (RLIMIT_CORE 1)";
            return Check::ok(NAME, text);
        }
        Some(("|", program)) => program.split_whitespace().next().unwrap_or_default(),
        Some(("@", socket)) => socket.trim_start_matches('@'),
        _ if limit < 4096 => {
            return Check::ok(
                NAME,
                format!("files, of which sites write none (RLIMIT_CORE {limit})"),
            );
        }
        _ => {
            return Check::warn(
                NAME,
                format!("sites write files ({pattern}) of up to {limit} bytes"),
                "sysctl kernel.core_pattern=core, and no larger RLIMIT_CORE",
            );
        }
    };
    let number = match at_once {
        Some(0) | None => "any number at once".to_owned(),
        Some(n) => format!("{n} at once"),
    };
    Check::warn(
        NAME,
        format!(
            "{handler} is run for crashes in sites too: as root, on the host, outside the site's limits, {number}, \
             on memory that the site has filled"
        ),
        "if nobody needs it: sysctl kernel.core_pattern=core (and in /etc/sysctl.d, in place of what systemd-coredump \
         or apport put there); else keep it up to date, set kernel.core_pipe_limit=4, and let it keep little \
         (coredump.conf: Storage=none, ProcessSizeMax=)",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Outcome;
    use super::*;

    #[test]
    fn a_handler_is_told_unless_the_limit_keeps_it_away() {
        let systemd = "|/lib/systemd/systemd-coredump %P %u %g %s %t 9223372036854775808 %h";
        for limit in [0, 4096] {
            let check = judge(Some(systemd), Some(0), limit);
            assert_eq!(check.result, Outcome::Warn, "{limit}");
            assert!(
                check
                    .detail
                    .starts_with("/lib/systemd/systemd-coredump is run for crashes in sites too"),
                "{check:?}"
            );
            assert!(check.advice.unwrap().contains("kernel.core_pattern=core"));
        }
        assert!(
            judge(Some(systemd), Some(0), 0)
                .detail
                .contains("any number")
        );
        assert!(
            judge(Some(systemd), Some(4), 0)
                .detail
                .contains("4 at once")
        );
        assert_eq!(judge(Some(systemd), Some(0), 1).result, Outcome::Ok);
        assert_eq!(
            judge(Some("@/run/coredump.socket"), None, 1).result,
            Outcome::Warn
        );
    }

    #[test]
    fn a_file_is_written_by_nobody_without_a_limit() {
        assert_eq!(judge(Some("core"), Some(0), 0).result, Outcome::Ok);
        assert_eq!(
            judge(Some("/var/crash/core.%p"), Some(0), 1).result,
            Outcome::Ok
        );
        assert_eq!(judge(Some(""), Some(0), 0).result, Outcome::Ok);
        assert_eq!(judge(Some("core"), Some(0), 1 << 20).result, Outcome::Warn);
        assert_eq!(judge(None, None, 0).result, Outcome::Warn);
    }

    #[test]
    fn it_is_among_the_checks_with_the_limit_that_sites_have() {
        let dir = tempfile::tempdir().unwrap();
        let sysctl = dir.path().join("proc/sys/kernel");
        std::fs::create_dir_all(&sysctl).unwrap();
        std::fs::write(sysctl.join("core_pattern"), "core\n").unwrap();
        std::fs::write(sysctl.join("core_pipe_limit"), "0\n").unwrap();
        let found = checks(&System::new(dir.path()));
        assert_eq!(
            (found[0].result, found.len()),
            (Outcome::Ok, 1),
            "{found:?}"
        );
        std::fs::write(sysctl.join("core_pattern"), "|/bin/handler %p\n").unwrap();
        let found = checks(&System::new(dir.path()));
        assert!(
            found[0].detail.contains("run for nothing in sites"),
            "{found:?}"
        );
        let all = super::super::checks();
        assert!(all.iter().any(|check| check.name == NAME));
    }
}
