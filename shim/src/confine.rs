//! What takes power away from a process, for init and for the commands: namespaces that are entered, ids, capabilities,
//! limits, the filter.

use std::os::fd::AsFd;

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, LinkNameSpaceType,
    clear_ambient_capability_set, move_into_link_name_space, remove_capability_from_bounding_set,
    set_capabilities, set_capabilities_secure_bits, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use shim::protocol::Rlimit;

use crate::report::{Done, Step};
use crate::sys;

/// Leaves a network namespace for another one.
pub(crate) fn enter_network_namespace(namespace: impl AsFd) -> Done<()> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .step("enter", "the network namespace")
}

/// Leaves the host's user namespace for `users`, where this process is uid 0 with all capabilities over that
/// namespace, which owns nothing.
pub(crate) fn enter_user_namespace(users: impl AsFd) -> Done<()> {
    move_into_link_name_space(users.as_fd(), Some(LinkNameSpaceType::User))
        .step("enter", "the user namespace")?;
    set_ids(0, 0)
}

/// Takes what can be taken once for init and all its children: groups, bounding set, ambient set, the meaning of
/// uid 0 for capabilities, and the host's session keyring. The caller is already in the user namespace.
pub(crate) fn settle_as_root() -> Done<()> {
    use CapabilitiesSecureBits as Bits;
    let bits = Bits::NO_ROOT
        | Bits::NO_ROOT_LOCKED
        | Bits::NO_SETUID_FIXUP
        | Bits::NO_SETUID_FIXUP_LOCKED
        | Bits::KEEP_CAPS_LOCKED
        | Bits::NO_CAP_AMBIENT_RAISE
        | Bits::NO_CAP_AMBIENT_RAISE_LOCKED;
    set_capabilities_secure_bits(bits).step("lock the secure bits", "")?;
    set_ids(0, 0)?;
    for n in 0..64 {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << n)) {
            Ok(()) => {}
            // The first number that this kernel does not know.
            Err(Errno::INVAL) if n > 0 => break,
            Err(e) => return Err(e).step("drop from the bounding set", &n.to_string()),
        }
    }
    clear_ambient_capability_set().step("clear the ambient capabilities", "")?;
    sys::new_session_keyring().step("join a new session keyring", "")
}

/// Becomes uid and gid (inside ids), with no other group.
pub(crate) fn set_ids(uid: u32, gid: u32) -> Done<()> {
    set_thread_groups(&[]).step("drop the groups", "")?;
    let gid = Gid::from_raw(gid);
    set_thread_res_gid(gid, gid, gid).step("become the group", &gid.as_raw().to_string())?;
    let uid = Uid::from_raw(uid);
    set_thread_res_uid(uid, uid, uid).step("become the user", &uid.as_raw().to_string())?;
    // The change has set it to whatever the host has in fs.suid_dumpable. execve makes a command traceable by its own
    // user again.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("become untraceable", "")
}

/// Gives up every capability but `kept`.
pub(crate) fn keep_capabilities(kept: CapabilitySet) -> Done<()> {
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets).step("drop the capabilities", "")
}

/// Sets no_new_privs and the filter, after which neither can be lifted.
pub(crate) fn filter(program: &[libc::sock_filter]) -> Done<()> {
    set_no_new_privs(true).step("set no_new_privs", "")?;
    sys::install_filter(program).step("install the seccomp filter", "")
}

/// Sets the command's limits; before the filter, which keeps RLIMIT_CORE as it is.
pub(crate) fn limit<'a>(rlimits: impl IntoIterator<Item = &'a Rlimit>) -> Done<()> {
    for r in rlimits {
        sys::rlimit(r.resource, Some((r.soft, r.hard))).step(
            "set the resource limit",
            &format!("{} = {}:{}", r.resource, r.soft, r.hard),
        )?;
    }
    Ok(())
}

/// Raises this process's hard limits as far as the command's go beyond them, which takes the host's own power; the
/// soft limits stay.
pub(crate) fn raise_hard_limits(rlimits: &[Rlimit]) -> Done<()> {
    for r in rlimits {
        let (soft, hard) = sys::rlimit(r.resource, None)
            .step("read the resource limit", &r.resource.to_string())?;
        if r.hard > hard {
            sys::rlimit(r.resource, Some((soft, r.hard))).step(
                "raise the resource limit",
                &format!("{} = {}", r.resource, r.hard),
            )?;
        }
    }
    Ok(())
}
