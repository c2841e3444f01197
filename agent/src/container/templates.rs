//! Templates: read-only roots shared by many vhosts, as a list of mounts and links.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use super::host_etc::{self, remove_tree, system_accounts};
use crate::config::AgentConfig;

/// Files of /etc that are made for each container.
pub const GENERATED: [&str; 5] = ["passwd", "group", "hosts", "hostname", "resolv.conf"];

/// Where they lie in a container whose /etc is made by us and links there: a mount less for each of them.
pub(super) const OWN_FILES: &str = ".container";

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
    OWN_FILES,
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
    /// The directory in which they are shown: `etc`, over the template's own, or [`OWN_FILES`].
    pub generated_in: &'static str,
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
        let host_etc = host_etc::prepare(&directory, &config.host_etc())
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
        generated_in: "etc",
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
    let own = root.join("etc");
    if own.is_dir() {
        template.passwd = system_accounts(&own.join("passwd"));
        template.group = system_accounts(&own.join("group"));
    }
    if let Some(made) = etc {
        template.generated = GENERATED.to_vec();
        template.generated_in = OWN_FILES;
        template.mounts.push((made.to_owned(), "etc".into()));
    } else if own.is_dir() {
        let has = |name: &&str| fs::symlink_metadata(own.join(name)).is_ok_and(|s| s.is_file());
        template.generated = GENERATED.into_iter().filter(has).collect();
        template.mounts.push((own, "etc".into()));
    }
    Ok(template)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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
