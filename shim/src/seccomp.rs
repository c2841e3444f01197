//! The system-call filter: a table of verdicts, compiled once into classic BPF as a binary search over ranges of
//! equal verdicts with shared ends: a call costs about seven comparisons, and installing the filter, which the kernel
//! translates instruction by instruction, stays cheap.

use crate::seccomp_table::{self as table, Verdict};

const ARCH: u32 = if cfg!(target_arch = "aarch64") {
    0xC000_00B7
} else {
    0xC000_003E
};
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL_PROCESS: u32 = 0x8000_0000;

// Offsets in struct seccomp_data; arguments are 64 bits wide, the low half comes first on both architectures.
const NR: u32 = 0;
const DATA_ARCH: u32 = 4;
const fn low(argument: u32) -> u32 {
    16 + argument * 8
}
const fn high(argument: u32) -> u32 {
    low(argument) + 4
}

const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

type Code = Vec<libc::sock_filter>;

fn op(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn ret(value: u32) -> libc::sock_filter {
    op(RETURN, value, 0, 0)
}

fn errno(number: i32) -> u32 {
    ERRNO | (number.unsigned_abs() & 0xffff)
}

/// The tenants' filter.
pub(crate) fn program() -> Code {
    compile(table::verdict)
}

/// The filter of a container's init, once its container is set up.
pub(crate) fn program_of_init() -> Code {
    compile(|nr| match table::INIT.contains(&libc::c_long::from(nr)) {
        true => Verdict::Allow,
        false => Verdict::Deny,
    })
}

fn compile(verdict: impl Fn(u32) -> Verdict) -> Code {
    let mut code = vec![
        op(LOAD, DATA_ARCH, 0, 0),
        op(JUMP_EQUAL, ARCH, 1, 0),
        // Another instruction set of the same processor (i386): its numbers mean other calls.
        ret(KILL_PROCESS),
        op(LOAD, NR, 0, 0),
    ];
    code.extend(search(&ranges(verdict)));
    code
}

/// First number of each run of equal verdicts, ascending; the last run goes on for ever, and so covers the numbers
/// of x32, which have bit 30 set.
fn ranges(verdict: impl Fn(u32) -> Verdict) -> Vec<(u32, Verdict)> {
    let mut runs: Vec<(u32, Verdict)> = Vec::new();
    for nr in 0..=table::LAST_KNOWN + 1 {
        let verdict = verdict(nr);
        if runs.last().is_none_or(|(_, v)| *v != verdict) {
            runs.push((nr, verdict));
        }
    }
    runs
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum Target {
    /// Another comparison, by its index.
    Node(usize),
    /// The common end of all runs of this verdict.
    End(Verdict),
}

/// A comparison: from `pivot` on it goes right, below it left.
struct Node {
    pivot: u32,
    right: Target,
    left: Target,
}

/// The binary search, its comparisons first, then one end per verdict.
fn search(runs: &[(u32, Verdict)]) -> Code {
    let mut nodes = Vec::new();
    tree(runs, &mut nodes);
    let mut ends: Code = Vec::new();
    let mut places: Vec<(Verdict, usize)> = Vec::new();
    for (_, verdict) in runs {
        if !places.iter().any(|(v, _)| v == verdict) {
            places.push((*verdict, nodes.len() + ends.len()));
            ends.extend(leaf(*verdict));
        }
    }
    let place = |target: Target| match target {
        Target::Node(index) => index,
        Target::End(verdict) => places
            .iter()
            .find(|(v, _)| *v == verdict)
            .map_or(0, |(_, at)| *at),
    };
    let mut code = Code::with_capacity(nodes.len() + ends.len());
    for (at, node) in nodes.iter().enumerate() {
        let jump = |to: Target| {
            u8::try_from(place(to) - at - 1)
                .expect("a jump reaches 255 instructions and the whole filter is shorter")
        };
        code.push(op(
            JUMP_GREATER_OR_EQUAL,
            node.pivot,
            jump(node.right),
            jump(node.left),
        ));
    }
    code.extend(ends);
    code
}

/// Adds the comparisons for `runs`; each stands before those it leads to.
fn tree(runs: &[(u32, Verdict)], nodes: &mut Vec<Node>) -> Target {
    if let [(_, verdict)] = runs {
        return Target::End(*verdict);
    }
    let (low, high) = runs.split_at(runs.len() / 2);
    let pivot = high.first().map_or(0, |run| run.0);
    let index = nodes.len();
    nodes.push(Node {
        pivot,
        right: Target::Node(index),
        left: Target::Node(index),
    });
    let (left, right) = (tree(low, nodes), tree(high, nodes));
    nodes[index] = Node { pivot, right, left };
    Target::Node(index)
}

/// Allowed if argument `n` is one of `values`, else `otherwise`.
fn one_of(n: u32, values: &[u32], otherwise: u32) -> Code {
    let mut code = vec![op(LOAD, low(n), 0, 0)];
    let count = u8::try_from(values.len()).unwrap_or(u8::MAX);
    for (left, value) in (0..count).rev().zip(values) {
        // On a match over the remaining comparisons and the refusal.
        code.push(op(JUMP_EQUAL, *value, left + 1, 0));
    }
    code.extend([ret(otherwise), ret(ALLOW)]);
    code
}

fn leaf(verdict: Verdict) -> Code {
    match verdict {
        Verdict::Allow => vec![ret(ALLOW)],
        Verdict::Deny => vec![ret(errno(libc::EPERM))],
        Verdict::Unknown => vec![ret(errno(libc::ENOSYS))],
        Verdict::Clone => vec![
            op(LOAD, low(0), 0, 0),
            op(JUMP_ANY_BIT, table::NEW_NAMESPACES, 0, 1),
            ret(errno(libc::EPERM)),
            ret(ALLOW),
        ],
        Verdict::Unshare => vec![
            op(LOAD, low(0), 0, 0),
            op(JUMP_EQUAL, table::NEW_CGROUP, 0, 3),
            op(LOAD, high(0), 0, 0),
            op(JUMP_EQUAL, 0, 0, 1),
            ret(ALLOW),
            ret(errno(libc::EPERM)),
        ],
        Verdict::Ioctl => vec![
            op(LOAD, low(1), 0, 0),
            op(JUMP_EQUAL, table::TIOCSTI, 1, 0),
            op(JUMP_EQUAL, table::TIOCLINUX, 0, 1),
            ret(errno(libc::EPERM)),
            ret(ALLOW),
        ],
        Verdict::Nothing => vec![ret(errno(0))],
        Verdict::Setrlimit => vec![
            op(LOAD, low(0), 0, 0),
            op(JUMP_EQUAL, table::RLIMIT_CORE, 0, 1),
            ret(errno(0)),
            ret(ALLOW),
        ],
        Verdict::Prlimit => vec![
            op(LOAD, low(1), 0, 0),
            op(JUMP_EQUAL, table::RLIMIT_CORE, 0, 5),
            // Without new limits it only asks.
            op(LOAD, low(2), 0, 0),
            op(JUMP_EQUAL, 0, 0, 2),
            op(LOAD, high(2), 0, 0),
            op(JUMP_EQUAL, 0, 1, 0),
            ret(errno(0)),
            ret(ALLOW),
        ],
        Verdict::Setsockopt => {
            let [a, b, c, d] = table::SOCKET_FILTERS;
            vec![
                op(LOAD, low(1), 0, 0),
                op(JUMP_EQUAL, libc::SOL_SOCKET as u32, 0, 6),
                op(LOAD, low(2), 0, 0),
                op(JUMP_EQUAL, a, 3, 0),
                op(JUMP_EQUAL, b, 2, 0),
                op(JUMP_EQUAL, c, 1, 0),
                op(JUMP_EQUAL, d, 0, 1),
                ret(errno(libc::EPERM)),
                ret(ALLOW),
            ]
        }
        Verdict::Personality => one_of(0, table::PERSONALITIES, errno(libc::EPERM)),
        Verdict::Socket => {
            // Families first: unix as it is, inet with its usual protocols, netlink only for routes.
            let inet = one_of(2, table::INET_PROTOCOLS, errno(libc::EPROTONOSUPPORT));
            let netlink = one_of(2, &[table::NETLINK_ROUTE], errno(libc::EPROTONOSUPPORT));
            let to_netlink = u8::try_from(2 + inet.len()).unwrap_or(u8::MAX);
            let mut code = vec![
                op(LOAD, low(0), 0, 0),
                op(JUMP_EQUAL, libc::AF_UNIX as u32, 4, 0),
                op(JUMP_EQUAL, libc::AF_INET as u32, 4, 0),
                op(JUMP_EQUAL, libc::AF_INET6 as u32, 3, 0),
                op(JUMP_EQUAL, libc::AF_NETLINK as u32, to_netlink, 0),
                ret(errno(libc::EAFNOSUPPORT)),
                ret(ALLOW),
            ];
            code.extend(inet);
            code.extend(netlink);
            code
        }
    }
}

#[cfg(test)]
#[path = "seccomp_tests.rs"]
mod tests;
