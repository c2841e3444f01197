//! Templates: read-only roots shared by many vhosts, as a list of mounts and links.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use crate::config::AgentConfig;

/// Files of /etc that are made for each container, shown over the template's own.
pub const GENERATED: [&str; 5] = [
    "etc/passwd",
    "etc/group",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
];

/// Top-level names of a root that are never taken from a template.
const OWN: [&str; 14] = [
    "proc",
    "sys",
    "dev",
    "tmp",
    "run",
    "site",
    "boot",
    "root",
    "home",
    "mnt",
    "media",
    "lost+found",
    "lib64.usr-is-merged",
    ".container",
];

/// A read-only root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// (directory on the host, name at the root).
    pub mounts: Vec<(PathBuf, String)>,
    /// (name at the root, target).
    pub symlinks: Vec<(String, String)>,
    /// Those of [`GENERATED`] that the template's /etc has, so that they can be shown there.
    pub generated: Vec<&'static str>,
    /// The template's own passwd and group, to which the site's user is added.
    pub passwd: String,
    /// See `passwd`.
    pub group: String,
}

impl Template {
    /// Detached mounts of its directories, in the order of `mounts`.
    pub fn open(&self) -> Result<Vec<OwnedFd>> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let open = |(path, _): &(PathBuf, String)| {
            rustix::mount::open_tree(CWD, path, flags).with_context(|| {
                format!("cannot make a mount of the template's {}", path.display())
            })
        };
        self.mounts.iter().map(open).collect()
    }
}

/// The templates of this host, read when first used.
#[derive(Debug)]
pub struct Templates {
    host_etc: PathBuf,
    named: HashMap<String, PathBuf>,
    read: Mutex<HashMap<String, Arc<Template>>>,
}

impl Templates {
    /// Prepares the /etc of the template `host`.
    pub fn new(config: &AgentConfig) -> Result<Self> {
        let directory = config.state_dir.join("templates");
        let host_etc = prepare_host_etc(&directory, &config.host_etc())
            .with_context(|| format!("cannot prepare {}", directory.display()))?;
        let named = config
            .template
            .iter()
            .filter_map(|(name, t)| Some((name.clone(), t.path.clone()?)))
            .collect();
        Ok(Self {
            host_etc,
            named,
            read: Mutex::default(),
        })
    }

    /// Removes the generations of the host's /etc but the present one; called when no container shows one.
    pub fn collect_old(&self) {
        let Some(entries) = self
            .host_etc
            .parent()
            .and_then(|dir| fs::read_dir(dir).ok())
        else {
            return;
        };
        for entry in entries
            .flatten()
            .filter(|entry| entry.path() != self.host_etc)
        {
            if let Err(error) = remove_tree(&entry.path()) {
                tracing::error!("cannot remove {}: {error}", entry.path().display());
            }
        }
    }

    /// The template that a definition names: `host`, a name of the configuration, or a directory.
    pub fn get(&self, name: &str) -> Result<Arc<Template>> {
        if let Some(template) = self
            .read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            return Ok(template.clone());
        }
        let template = Arc::new(match (name, self.named.get(name)) {
            ("host", _) => read_root(Path::new("/"), Some(&self.host_etc), &["usr"])?,
            (_, Some(path)) => read_root(path, None, &[])?,
            (path, None) if path.starts_with('/') => read_root(Path::new(path), None, &[])?,
            (name, None) => bail!(
                "no template named {name:?}: use \"host\", a directory, or define [template.{name}] in agent.toml"
            ),
        });
        self.read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), template.clone());
        Ok(template)
    }
}

/// Reads the top level of a root. `only` restricts the directories taken (links are always taken); `etc` replaces
/// the root's own /etc.
fn read_root(root: &Path, etc: Option<&Path>, only: &[&str]) -> Result<Template> {
    let status = fs::symlink_metadata(root)
        .with_context(|| format!("cannot read the template {}", root.display()))?;
    if !status.is_dir() || status.uid() != 0 || status.mode() & 0o022 != 0 {
        bail!(
            "the template {} must be a directory of root that nobody else can write",
            root.display()
        );
    }
    let mut template = Template {
        mounts: Vec::new(),
        symlinks: Vec::new(),
        generated: Vec::new(),
        passwd: String::new(),
        group: String::new(),
    };
    let mut entries = fs::read_dir(root)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if OWN.contains(&name.as_str()) || name == "etc" {
            continue;
        }
        let kind = entry.file_type()?;
        if kind.is_symlink() {
            let target = fs::read_link(entry.path())?;
            // Links of the root itself (bin → usr/bin); anything that leads elsewhere is not part of a template.
            if let Some(target) = target
                .to_str()
                .filter(|t| t.trim_start_matches('/').starts_with("usr/"))
            {
                template.symlinks.push((name, target.to_owned()));
            }
        } else if kind.is_dir() && (only.is_empty() || only.contains(&name.as_str())) {
            template.mounts.push((entry.path(), name));
        }
    }
    let etc = etc.map_or_else(|| root.join("etc"), Path::to_owned);
    if etc.is_dir() {
        let has =
            |name: &&str| fs::symlink_metadata(etc.join(&name[4..])).is_ok_and(|s| s.is_file());
        template.generated = GENERATED.into_iter().filter(has).collect();
        template.passwd = system_accounts(&etc.join("passwd"));
        template.group = system_accounts(&etc.join("group"));
        template.mounts.push((etc, "etc".into()));
    }
    Ok(template)
}

/// The lines of a passwd or group file whose id (third field) belongs to the system: a template shows no people.
fn system_accounts(path: &Path) -> String {
    let Ok(text) = fs::read_to_string(path) else {
        return String::new();
    };
    let is_system = |line: &&str| {
        line.split(':')
            .nth(2)
            .and_then(|id| id.parse::<u32>().ok())
            .is_some_and(|id| id < 1000 || id == 65534)
    };
    text.lines()
        .filter(is_system)
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// Makes the /etc of the template `host`: copies of what the configuration lists, and empty files where the
/// container's own are shown. Its name tells its content: running containers show the generation that they were made
/// with, which must not change under them.
fn prepare_host_etc(directory: &Path, entries: &[&str]) -> Result<PathBuf> {
    let fresh = directory.join("host-etc.new");
    remove_tree(&fresh)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)?;
    fs::DirBuilder::new().mode(0o755).create(&fresh)?;
    for entry in entries {
        let from = Path::new("/etc").join(entry);
        if entry.split('/').any(|part| matches!(part, "" | "." | "..")) {
            bail!("[template.host] etc: {entry:?} must be a path below /etc");
        }
        let to = fresh.join(entry);
        if let Some(above) = to.parent() {
            fs::create_dir_all(above)?;
        }
        match copy(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.with_context(|| format!("cannot copy {}", from.display()))?,
        }
    }
    for (name, content) in [
        ("passwd", system_accounts(Path::new("/etc/passwd"))),
        ("group", system_accounts(Path::new("/etc/group"))),
        ("hosts", String::new()),
        ("hostname", String::new()),
        ("resolv.conf", String::new()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n".into()),
    ] {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(fresh.join(name))?;
        file.write_all(content.as_bytes())?;
    }
    let mut hash = 0xcbf2_9ce4_8422_2325;
    digest(&fresh, &mut hash)?;
    let target = directory.join(format!("host-etc-{hash:016x}"));
    if target.exists() {
        remove_tree(&fresh)?;
    } else {
        fs::rename(&fresh, &target)?;
    }
    Ok(target)
}

/// Adds names, modes, targets and contents of a tree to a hash (FNV-1a), in the order of the names.
fn digest(path: &Path, hash: &mut u64) -> io::Result<()> {
    let mut add = |bytes: &[u8]| {
        for byte in bytes.iter().chain(&[0]) {
            *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    let status = fs::symlink_metadata(path)?;
    add(&status.mode().to_le_bytes());
    if status.is_symlink() {
        add(fs::read_link(path)?.as_os_str().as_bytes());
    } else if status.is_file() {
        add(&fs::read(path)?);
    } else {
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = entry.file_name();
            for byte in name.as_bytes() {
                *hash = (*hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
            digest(&entry.path(), hash)?;
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Copies a file, a link or a tree, but only what everybody may read: a template keeps no secrets.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let status = fs::symlink_metadata(from)?;
    if status.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(from)?, to);
    }
    if status.is_dir() {
        if status.mode() & 0o005 != 0o005 {
            return Ok(());
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
        return Ok(());
    }
    if status.is_file() && status.mode() & 0o004 != 0 {
        fs::copy(from, to)?;
        fs::set_permissions(
            to,
            fs::Permissions::from_mode(0o644 | (status.mode() & 0o111)),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn host_etc_has_no_secrets_and_no_people() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let entries = ["alternatives", "shadow", "ssl/certs", "not-there"];
        for _ in 0..2 {
            prepare_host_etc(dir.path(), &entries).unwrap();
        }
        let target = prepare_host_etc(dir.path(), &entries).unwrap();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "one generation"
        );
        assert!(target.join("alternatives").is_dir());
        assert!(!target.join("shadow").exists());
        let passwd = fs::read_to_string(target.join("passwd")).unwrap();
        assert!(
            passwd.contains("root:")
                && passwd.lines().all(|l| {
                    let id: u32 = l.split(':').nth(2).unwrap().parse().unwrap();
                    id < 1000 || id == 65534
                })
        );
        assert!(prepare_host_etc(dir.path(), &["../root"]).is_err());
    }

    #[test]
    fn a_root_is_links_and_directories() {
        let template = read_root(Path::new("/"), None, &["usr"]).unwrap();
        assert!(
            template
                .mounts
                .iter()
                .any(|(path, name)| path == Path::new("/usr") && name == "usr")
        );
        assert!(
            template
                .mounts
                .iter()
                .all(|(_, name)| name == "usr" || name == "etc")
        );
    }
}
