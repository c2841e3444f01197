//! For how many live containers this host has descriptors: without CAP_SYS_RESOURCE nobody can raise the hard limit.

use nix::sys::resource::{Resource, getrlimit};

/// What an agent has open for each: its cgroup and the news of that, its namespace and a socket in it, its init.
pub(crate) const LINKED: u64 = 5;
/// One more for a connection that is going to be handed over.
pub(crate) const HANDED: u64 = 6;
/// For everything else that it has open, above all what is made ahead.
const REST: u64 = 1200;

/// As many containers as are `wanted`, or as many as an agent started from here can have.
pub(crate) fn room(wanted: usize, of_each: u64) -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let most = usize::try_from(hard.saturating_sub(REST) / of_each).unwrap_or(usize::MAX);
    if most < wanted {
        eprintln!(
            "SKIPPED: {wanted} live containers at once, measured are {most}: an agent needs up to {of_each} descriptors \
             for each, and is allowed {hard} here (ulimit -Hn)"
        );
    }
    wanted.min(most)
}
