//! The nftables table, written as one transaction by `nft`.

use super::{HostConfig, Policy};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// The whole table. The first two lines make a transaction that starts from nothing whatever was
/// there; other tables are not touched and not relied on.
///
/// * `from_container` runs before any other table's DNAT can turn a host address into something else,
///   and before conntrack helpers: a packet must carry the source that is routed back to the very
///   interface it came from; to the host's own addresses only what `allow` lists, and replies.
/// * `input` says the same again at the last possible place.
/// * `link_local`: clouds tell their machines there who they are and with which keys; that is the host's alone. Some
///   have their resolver there as well.
/// * `flows`: no container fills the host's table of connections, in which all others' have to fit.
/// * `leave`: the outside sees the host's address, so never with a source port below 1024, which only root of the
///   host may have and which some (NFS) trust.
/// * `forward`: each packet of a container is looked up, not only the first of a connection, so that
///   revoking holds at once and an address that is used again inherits no connection. Towards
///   containers only replies pass.
/// * `wake`, behind all of these: see [`wake`].
pub(super) fn text(
    config: &HostConfig,
    kept: &BTreeMap<Ipv4Addr, Policy>,
    group: Option<u16>,
) -> String {
    let HostConfig {
        subnet,
        table,
        prefix,
        uplink,
    } = config;
    let (outbound, allow) = elements(kept);
    let wake = group.map_or_else(String::new, |group| wake(prefix, group));
    let uplink = uplink
        .as_ref()
        .map(|name| format!("oifname \"{name}\" "))
        .unwrap_or_default();
    format!(
        r#"add table inet {table}
delete table inet {table}
table inet {table} {{
    set outbound {{
        type ipv4_addr
        {outbound}
    }}
    set allow {{
        type ipv4_addr . inet_proto . ipv4_addr . inet_service
        {allow}
    }}
    chain refuse {{
        meta l4proto tcp reject with tcp reset
        reject with icmpx admin-prohibited
    }}
    chain to_host {{
        ct direction reply ct state established,related accept
        ip saddr . meta l4proto . ip daddr . th dport @allow accept
        fib daddr type != local drop
        goto refuse
    }}
    chain from_container {{
        type filter hook prerouting priority mangle; policy accept;
        iifname != "{prefix}*" accept
        meta nfproto != ipv4 drop
        ip saddr != {subnet} drop
        fib saddr . iif oif missing drop
        fib daddr type != unicast goto to_host
    }}
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname != "{prefix}*" accept
        meta nfproto != ipv4 drop
        goto to_host
    }}
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname "{prefix}*" goto forward_from
        oifname "{prefix}*" goto forward_to
    }}
    set flows {{
        type ipv4_addr
        size 65535
        flags dynamic
    }}
    chain forward_from {{
        ct state new add @flows {{ ip saddr ct count over {FLOWS} }} goto refuse
        meta nfproto != ipv4 drop
        oifname "{prefix}*" goto refuse
        ip daddr {subnet} goto refuse
        ip saddr . meta l4proto . ip daddr . th dport @allow accept
        ip daddr 169.254.0.0/16 goto link_local
        {uplink}ip saddr @outbound accept
        goto refuse
    }}
    chain link_local {{
        {uplink}meta l4proto {{ tcp, udp }} th dport 53 ip saddr @outbound accept
        goto refuse
    }}
    chain forward_to {{
        ct direction reply ct state established,related accept
        drop
    }}
    chain leave {{
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr {subnet} ip daddr != {subnet} oifname != "{prefix}*" fib saddr type != local meta l4proto {{ tcp, udp }} masquerade to :1024-65535
        ip saddr {subnet} ip daddr != {subnet} oifname != "{prefix}*" fib saddr type != local masquerade
    }}
    {wake}
}}
"#
    )
}

/// Tells `group` of packets with data for an address in `frozen`. Every write of data ends with a packet that has the flag
/// `psh`; what opens, keeps alive or ends a connection has none.
fn wake(prefix: &str, group: u16) -> String {
    format!(
        r#"set frozen {{
        type ipv4_addr
    }}
    chain wake {{
        type filter hook postrouting priority filter; policy accept;
        oifname "{prefix}*" ip daddr @frozen tcp flags & psh == psh log group {group}
    }}"#
    )
}

/// The lines that fill the two sets.
fn elements(kept: &BTreeMap<Ipv4Addr, Policy>) -> (String, String) {
    let mut outbound = String::new();
    let mut allow = String::new();
    for (address, policy) in kept {
        if policy.outbound {
            let _ = write!(outbound, "{address}, ");
        }
        for to in &policy.allow {
            let protocol = to.protocol.number();
            let _ = write!(
                allow,
                "{address} . {protocol} . {} . {}, ",
                to.address, to.port
            );
        }
    }
    let line = |list: String| match list.is_empty() {
        true => list,
        false => format!("elements = {{ {list} }}"),
    };
    (line(outbound), line(allow))
}

/// Connections at a time that one container may have through the host.
const FLOWS: u32 = 1024;

/// Runs `nft -f -` in the calling thread's network namespace.
pub(super) fn load(
    config: &HostConfig,
    kept: &BTreeMap<Ipv4Addr, Policy>,
    group: Option<u16>,
) -> Result<()> {
    let failed = |reason: String| Error::Nft {
        table: config.table.clone(),
        reason,
    };
    let path = std::env::var("PATH").unwrap_or_default();
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                failed("the program `nft` is missing: install the package nftables".into())
            }
            _ => failed(format!("cannot run `nft`: {error}")),
        })?;
    let mut input = nft.stdin.take().expect("stdin is piped above");
    // nft reads its whole input before it says anything, so this cannot block on its stderr. A
    // broken pipe means that it ended early; its own message, below, says why.
    let written = input.write_all(text(config, kept, group).as_bytes());
    drop(input);
    let done = nft
        .wait_with_output()
        .map_err(|error| failed(format!("waiting: {error}")))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(failed(format!(
            "nft ended with {}: {}",
            done.status,
            said.trim()
        )));
    }
    written.map_err(|error| failed(format!("writing to nft: {error}")))
}
