//! Small JSON files that are either the old or the new content, whatever happens.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How much a promise has to survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// The agent's death: the file is in a tmpfs or may be lost with the host.
    Process,
    /// Power failure: file and directory are synchronised before this returns.
    Host,
}

/// Replaces `path` by `value` as JSON, mode 0600. The directory must be one that only root can write.
pub fn write<T: Serialize>(path: &Path, value: &T, durable: Durable) -> Result<()> {
    let attempt = || -> Result<()> {
        let directory = path.parent().context("it has no directory")?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        // Left over from an agent that died between the two steps below.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        if durable == Durable::Host {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)?;
        if durable == Durable::Host {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

/// Replaces what a file of this function says, in place and with one system call, so that the agent's death leaves either
/// the old or the new content. A power failure may leave neither. Unlike [`write`] it never waits for a disk: file
/// systems write a file out that is renamed over another.
pub fn overwrite<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let attempt = || -> Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        write_over(&file, value)
    };
    attempt().with_context(|| format!("cannot write {}", path.display()))
}

fn write_over<T: Serialize>(file: &File, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec(value)?;
    // White space over what is longer now; a shorter file is never cut, which would be a second step.
    let length = usize::try_from(file.metadata()?.len())?;
    text.resize(text.len().max(length), b' ');
    file.write_all_at(&text, 0)?;
    Ok(())
}

/// Changes what a file says as [`overwrite`] does, if it is there and `change` says that it is the right one: one that takes
/// its place meanwhile stays as it is.
pub fn change<T: Serialize + DeserializeOwned>(
    path: &Path,
    change: impl FnOnce(&mut T) -> bool,
) -> Result<()> {
    let attempt = || -> Result<()> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let file = match options.custom_flags(libc::O_NOFOLLOW).open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let mut value = serde_json::from_reader(std::io::BufReader::new(&file))?;
        match change(&mut value) {
            true => write_over(&file, &value),
            false => Ok(()),
        }
    };
    attempt().with_context(|| format!("cannot change {}", path.display()))
}

/// Reads a file of [`write`] or [`overwrite`]; None if there is none.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .with_context(|| format!("cannot understand {}", path.display()))
}

/// Removes a file if it is there.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// [`remove`], and it stays removed after a power failure.
pub fn remove_durably(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    remove(path)?;
    let directory = path.parent().context("it has no directory")?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("cannot synchronise {}", directory.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn replaces_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read::<u32>(&path).unwrap(), None);
        fs::write(dir.path().join("a.json.new"), "torn").unwrap();
        write(&path, &7u32, Durable::Host).unwrap();
        write(&path, &8u32, Durable::Process).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), Some(8));
        fs::write(&path, "{").unwrap();
        assert!(
            read::<u32>(&path)
                .unwrap_err()
                .to_string()
                .contains("a.json")
        );
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn changes_what_is_there_and_is_the_right_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        change(&path, |_: &mut u32| true).unwrap();
        assert_eq!(read::<u32>(&path).unwrap(), None);
        write(&path, &100u32, Durable::Process).unwrap();
        for (right, now) in [(true, 7), (false, 7), (true, 7_000)] {
            let to = |value: &mut u32| {
                *value = if right { now } else { 1 };
                right
            };
            change(&path, to).unwrap();
            assert_eq!(read::<u32>(&path).unwrap(), Some(now));
        }
    }

    #[test]
    fn overwrites_with_longer_and_shorter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        for value in ["one", "a much longer one", "b", ""] {
            overwrite(&path, &value).unwrap();
            assert_eq!(read::<String>(&path).unwrap().as_deref(), Some(value));
        }
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, "mine").unwrap();
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("link")).unwrap();
        assert!(overwrite(&dir.path().join("link"), &1).is_err());
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "mine");
    }
}
