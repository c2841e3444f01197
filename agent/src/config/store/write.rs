//! Writing and removing definition files so that a reader sees the old content or the new one, never half of it.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::read::{MOST_FILE_BYTES, is_definition_file};
use crate::config::definition::Definition;
use crate::config::host;
use crate::config::problem::Problem;

/// The name of the file that defines a vhost of this name, unless another one does already.
pub fn file_name(vhost: &str) -> Result<String, Problem> {
    host::check_host(vhost).map_err(|e| Problem::key("name", e.to_string()))?;
    let file = format!("{vhost}.toml");
    // A host name may have 253 characters, a file name 255.
    if file.len() > 255 {
        return Err(Problem::key(
            "name",
            format!("is too long for a file name: {file}"),
        ));
    }
    Ok(file)
}

/// Writes a definition into a file of the directory, atomically and durably.
pub fn write_definition(dir: &Path, file: &str, definition: &Definition) -> Result<(), Problem> {
    let text = definition.to_toml()?;
    if text.len() as u64 > MOST_FILE_BYTES {
        return Err(Problem::new(format!(
            "is larger than a definition may be ({MOST_FILE_BYTES} bytes)"
        ))
        .in_file(file));
    }
    let opened = open(dir, file)?;
    write(&opened, file, text.as_bytes()).map_err(|(tried, e)| failed(dir, file, tried, e))
}

/// Removes a definition file, durably; answers whether there was one.
pub fn remove_definition(dir: &Path, file: &str) -> Result<bool, Problem> {
    let opened = open(dir, file)?;
    match rustix::fs::unlinkat(&opened, file, AtFlags::empty()) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(false),
        Err(e) => return Err(failed(dir, file, "remove", e)),
    }
    rustix::fs::fsync(&opened)
        .map_err(|e| failed(dir, file, "sync the directory after removing", e))?;
    Ok(true)
}

fn open(dir: &Path, file: &str) -> Result<OwnedFd, Problem> {
    if !is_definition_file(file) {
        return Err(Problem::new("is not the name of a definition file (*.toml)").in_file(file));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(dir, flags, Mode::empty())
        .map_err(|e| failed(dir, file, "open the directory of", e))
}

fn failed(dir: &Path, file: &str, tried: &str, e: Errno) -> Problem {
    let hint = match e {
        Errno::ROFS => "; the file system is mounted read-only",
        Errno::NOSPC | Errno::DQUOT => "; make room on the file system",
        Errno::ACCESS | Errno::PERM => "; the agent must be able to write to vhosts_dir",
        _ => "",
    };
    Problem::new(format!(
        "cannot {tried} {}: {e}{hint}",
        dir.join(file).display()
    ))
}

fn write(dir: &OwnedFd, file: &str, content: &[u8]) -> Result<(), (&'static str, Errno)> {
    let (temporary, fd) = create_temporary(dir).map_err(|e| ("create a temporary file for", e))?;
    let finished = fill(File::from(fd), content)
        .map_err(|e| ("write", e))
        .and_then(|()| {
            rustix::fs::renameat(dir, &temporary, dir, file).map_err(|e| ("replace", e))
        });
    if finished.is_err() {
        // The first error is the one to report; a temporary file that stays is hidden and never read.
        let _ = rustix::fs::unlinkat(dir, &temporary, AtFlags::empty());
    }
    finished?;
    rustix::fs::fsync(dir).map_err(|e| ("sync the directory of", e))
}

fn fill(mut file: File, content: &[u8]) -> Result<(), Errno> {
    let done = file.write_all(content).and_then(|()| file.sync_all());
    done.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))
}

/// Makes a hidden file that was not there. A name left over from a killed agent with this process id is passed over.
fn create_temporary(dir: &OwnedFd) -> Result<(String, OwnedFd), Errno> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let serial = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!(".new-{}-{serial}", std::process::id());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, &name, flags, Mode::from_raw_mode(0o644)) {
            Ok(fd) => return Ok((name, fd)),
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    fn definition(command: &str) -> Definition {
        let text = format!(
            "name = \"a.example\"\nowner = \"acme\"\ndocuments = \"/srv/a\"\ncommand = [\"{command}\"]\nlisten = \"activate\""
        );
        Definition::from_toml(&text).unwrap()
    }

    #[test]
    fn writes_replaces_and_removes() {
        let dir = tempfile::tempdir().unwrap();
        let file = file_name("a.example").unwrap();
        for command in ["one", "two"] {
            write_definition(dir.path(), &file, &definition(command)).unwrap();
            let text = fs::read_to_string(dir.path().join(&file)).unwrap();
            assert_eq!(Definition::from_toml(&text).unwrap(), definition(command));
        }
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
        assert!(remove_definition(dir.path(), &file).unwrap());
        assert!(!remove_definition(dir.path(), &file).unwrap());
    }

    #[test]
    fn replaces_a_link_and_not_what_it_points_to() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::write(&outside, "untouched").unwrap();
        std::os::unix::fs::symlink(&outside, dir.path().join("a.example.toml")).unwrap();
        write_definition(dir.path(), "a.example.toml", &definition("x")).unwrap();
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
        assert!(
            dir.path()
                .join("a.example.toml")
                .symlink_metadata()
                .unwrap()
                .is_file()
        );
    }

    #[test]
    fn refuses_names_that_are_no_definition_files() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["../a.toml", "a", ".a.toml", "a/b.toml", "a\0.toml"] {
            assert!(
                write_definition(dir.path(), name, &definition("x")).is_err(),
                "{name}"
            );
            assert!(remove_definition(dir.path(), name).is_err(), "{name}");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(
            file_name("../a").is_err() && file_name(&vec!["a".repeat(62); 4].join(".")).is_err()
        );
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a.example.toml")).unwrap();
        let error = write_definition(dir.path(), "a.example.toml", &definition("x"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot replace") && error.contains("a.example.toml"),
            "{error}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let gone = dir.path().join("none");
        assert!(
            write_definition(&gone, "a.toml", &definition("x"))
                .unwrap_err()
                .to_string()
                .contains("open the directory")
        );
    }
}
