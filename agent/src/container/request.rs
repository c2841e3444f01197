//! What init has to be told: a definition and a template as the protocol's `Start`.

use std::net::Ipv4Addr;

use shim::protocol::{File, IdMap, Ids, LogRule, Mount, Rlimit};

use super::open_files;
use super::templates::{GENERATED, Template};
use crate::config::definition::Listen;
use crate::config::{Definition, Limits};

/// Bytes of a container's private tmpfs (/tmp, /run), if the definition sets no memory limit below that.
const TMPFS_BYTES: u64 = 64 << 20;
/// Files in it.
const TMPFS_INODES: u64 = 8192;

/// The user's name inside, which the definition's owner decides nothing about.
const USER: &str = "site";

/// Lines for the container's passwd and group, unless the ids have a name there already.
fn accounts(template: &Template, ids: Ids) -> (String, String) {
    let has = |text: &str, id: u32| {
        text.lines()
            .any(|l| l.split(':').nth(2) == Some(id.to_string().as_str()))
    };
    let (mut passwd, mut group) = (template.passwd.clone(), template.group.clone());
    if !has(&passwd, ids.uid) {
        passwd += &format!("{USER}:x:{}:{}:site:/site:/bin/sh\n", ids.uid, ids.gid);
    }
    if !has(&group, ids.gid) {
        group += &format!("{USER}:x:{}:\n", ids.gid);
    }
    (passwd, group)
}

/// The generated files of /etc, those that the template can show.
pub(super) fn generated(
    template: &Template,
    definition: &Definition,
    ids: Ids,
    address: Option<Ipv4Addr>,
    resolver: &str,
) -> Vec<File> {
    let (passwd, group) = accounts(template, ids);
    let name = hostname(definition);
    let own = address.map_or_else(
        || format!("127.0.1.1 {name}\n"),
        |a| format!("{a} {name}\n"),
    );
    GENERATED
        .into_iter()
        .filter(|file| template.generated.contains(file))
        .map(|file| {
            let content = match file {
                "passwd" => passwd.clone(),
                "group" => group.clone(),
                "hosts" => format!("127.0.0.1 localhost\n::1 localhost\n{own}"),
                "hostname" => format!("{name}\n"),
                _ => resolver.to_owned(),
            };
            File {
                target: format!("{}/{file}", template.generated_in),
                content: content.into_bytes(),
            }
        })
        .collect()
}

/// The UTS host name: at most 64 bytes, of which no tenant-controlled ones (names are validated).
pub(super) fn hostname(definition: &Definition) -> String {
    definition.name.chars().take(64).collect()
}

/// The mounts of a template, in its order.
pub(super) fn template_mounts(template: &Template, idmap: IdMap) -> Vec<Mount> {
    let mount = |name: &String| Mount {
        target: name.clone(),
        directory: true,
        read_only: true,
        devices: false,
        exec: true,
        idmap,
    };
    template
        .mounts
        .iter()
        .map(|(_, name)| mount(name))
        .collect()
}

/// Where the documents are, relative to the root.
pub(super) const DOCUMENTS: &str = "site";

/// Where commands begin.
pub fn workdir(definition: &Definition) -> String {
    match definition.documents {
        Some(_) => format!("/{DOCUMENTS}"),
        None => "/".into(),
    }
}

/// The documents, at /site.
pub(super) fn documents_mount(idmap: IdMap) -> Mount {
    Mount {
        target: DOCUMENTS.into(),
        directory: true,
        read_only: false,
        devices: false,
        exec: true,
        idmap,
    }
}

/// sysfs, at /sys.
pub(super) fn sysfs_mount() -> Mount {
    Mount {
        target: "sys".into(),
        directory: true,
        read_only: true,
        devices: false,
        exec: false,
        idmap: IdMap::None,
    }
}

/// The directory of a Unix socket (path relative to the root).
pub(super) fn socket_mount(directory: &str) -> Mount {
    Mount {
        target: directory.to_owned(),
        directory: true,
        read_only: false,
        devices: false,
        exec: false,
        idmap: IdMap::None,
    }
}

/// The directory in which the definition's Unix socket will be, relative to the root; None for other listeners.
pub(super) fn socket_directory(definition: &Definition) -> Option<String> {
    match &definition.listen {
        Listen::Unix(path) => path
            .parent()?
            .to_str()?
            .strip_prefix('/')
            .map(str::to_owned),
        Listen::Tcp(_) | Listen::Activate => None,
    }
}

/// The whole environment of the command.
pub fn environment(definition: &Definition) -> Vec<(String, String)> {
    let mut env = vec![
        (
            "PATH".to_owned(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        ),
        ("HOME".to_owned(), "/site".to_owned()),
        ("USER".to_owned(), USER.to_owned()),
        ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ("TMPDIR".to_owned(), "/tmp".to_owned()),
        ("VHOST".to_owned(), definition.name.to_string()),
    ];
    env.retain(|(name, _)| definition.env.get(name).is_none());
    env.extend(
        definition
            .env
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    env
}

/// Resource limits of every process of the site.
pub fn rlimits(limits: &Limits) -> Vec<Rlimit> {
    let files = open_files::hard(limits);
    let limit = |resource, soft, hard| Rlimit {
        resource,
        soft,
        hard,
    };
    vec![
        limit(libc::RLIMIT_NOFILE, open_files::soft(files), files),
        // With 1 the kernel runs no handler of core dumps, with 0 it would.
        limit(libc::RLIMIT_CORE, 1, 1),
        limit(libc::RLIMIT_MEMLOCK, 64 << 10, 64 << 10),
        limit(libc::RLIMIT_MSGQUEUE, 0, 0),
        limit(libc::RLIMIT_NICE, 0, 0),
        limit(libc::RLIMIT_RTPRIO, 0, 0),
        limit(libc::RLIMIT_SIGPENDING, 1024, 1024),
    ]
}

/// Size of the private tmpfs: within the memory limit, which it counts towards.
pub(super) fn tmpfs(limits: &Limits) -> (u64, u64) {
    let memory = limits.memory().and_then(|b| b.finite()).unwrap_or(u64::MAX);
    (TMPFS_BYTES.min(memory / 2).max(1 << 20), TMPFS_INODES)
}

/// The log rule of the configuration, for the protocol.
pub(super) fn log_rule(config: &crate::config::AgentConfig) -> LogRule {
    LogRule {
        file_bytes: config.log.file_bytes.0,
        files: config.log.files,
        rate_bytes: config.log.rate.finite().unwrap_or(u64::MAX),
        // A second's worth of a stack trace storm.
        burst_bytes: config
            .log
            .rate
            .finite()
            .unwrap_or(u64::MAX)
            .saturating_mul(2)
            .max(64 << 10),
    }
}
