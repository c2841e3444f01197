//! The /etc of the template `host`: what all sites may see of the host's, once for all of them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::templates::{GENERATED, OWN_FILES};
use crate::fnv::Fnv;

/// Names come from files and from DNS, whatever else the host asks.
const NAME_SERVICE: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n";

/// The lines of a passwd or group file whose id (third field) belongs to the system: a template shows no people.
pub(super) fn system_accounts(path: &Path) -> String {
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

/// Makes the /etc of the template `host`: copies of what the configuration lists, and links to the container's own
/// files. Its name tells its content: running containers show the generation that they were made
/// with, which must not change under them.
pub(super) fn prepare(directory: &Path, entries: &[&str]) -> Result<PathBuf> {
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
    for name in GENERATED {
        let link = fresh.join(name);
        match fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => std::os::unix::fs::symlink(Path::new("..").join(OWN_FILES).join(name), link)?,
        }
    }
    let mut switch = fs::OpenOptions::new();
    let switch = switch.write(true).create(true).truncate(true).mode(0o644);
    let mut switch = switch.open(fresh.join("nsswitch.conf"))?;
    switch.write_all(NAME_SERVICE.as_bytes())?;
    let mut hash = Fnv::default();
    digest(&fresh, &mut hash)?;
    let target = directory.join(format!("host-etc-{:016x}", hash.value()));
    if target.exists() {
        remove_tree(&fresh)?;
    } else {
        fs::rename(&fresh, &target)?;
    }
    Ok(target)
}

/// Adds names, modes, targets and contents of a tree to a hash, in the order of the names.
fn digest(path: &Path, hash: &mut Fnv) -> io::Result<()> {
    let status = fs::symlink_metadata(path)?;
    hash.add_part(&status.mode().to_le_bytes());
    if status.is_symlink() {
        hash.add_part(fs::read_link(path)?.as_os_str().as_bytes());
    } else if status.is_file() {
        hash.add_part(&fs::read(path)?);
    } else {
        let mut entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            hash.add_part(entry.file_name().as_bytes());
            digest(&entry.path(), hash)?;
        }
    }
    Ok(())
}

pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
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
            prepare(dir.path(), &entries).unwrap();
        }
        let target = prepare(dir.path(), &entries).unwrap();
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "one generation"
        );
        assert!(target.join("alternatives").is_dir());
        assert!(!target.join("shadow").exists());
        assert_eq!(
            fs::read_link(target.join("passwd")).unwrap(),
            Path::new("../.container/passwd")
        );
        let passwd = system_accounts(Path::new("/etc/passwd"));
        assert!(
            passwd.contains("root:")
                && passwd.lines().all(|l| {
                    let id: u32 = l.split(':').nth(2).unwrap().parse().unwrap();
                    id < 1000 || id == 65534
                })
        );
        assert!(prepare(dir.path(), &["../root"]).is_err());
    }
}
