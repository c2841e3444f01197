//! What is installed, and what this process may use.
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::{Check, System};

pub(super) fn checks(system: &System, shim: Option<&Path>) -> Vec<Check> {
    vec![
        open_files(getrlimit(Resource::Nofile).maximum),
        file_max(system.number("proc/sys/fs/file-max")),
        check_shim(shim),
    ]
}

/// The agent keeps a handful of descriptors per running container.
fn open_files(limit: Option<u64>) -> Check {
    match limit {
        Some(n) if n < 65_536 => Check::warn(
            "open files",
            format!("this process may have {n} at most"),
            "LimitNOFILE=1048576 in the unit, or ulimit -Hn",
        ),
        Some(n) => Check::ok("open files", n.to_string()),
        None => Check::ok("open files", "unlimited"),
    }
}

fn file_max(limit: Option<u64>) -> Check {
    match limit {
        Some(n) if n < 1_000_000 => Check::warn(
            "file-max",
            format!("{n} on the whole host"),
            "sysctl fs.file-max=9223372036854775807",
        ),
        Some(_) => Check::ok("file-max", "no bound that matters"),
        None => Check::warn("file-max", "cannot be read", "mount /proc"),
    }
}

fn check_shim(given: Option<&Path>) -> Check {
    let places = crate::config::agent::shim_places(given);
    let Some(path) = places.iter().find(|p| p.is_file()) else {
        let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
        return Check::fail(
            "shim",
            format!("not found at {}", looked.join(", ")),
            "install the package fastcontainer again",
        );
    };
    match std::fs::read(path).map(|bytes| interpreter(&bytes)) {
        Err(e) => Check::fail(
            "shim",
            format!("{}: {e}", path.display()),
            "install the package fastcontainer again",
        ),
        Ok(None) => Check::fail(
            "shim",
            format!("{} is no program of this kind of machine", path.display()),
            "install the package built for it",
        ),
        Ok(Some(true)) => Check::warn(
            "shim",
            format!(
                "{} is linked dynamically: more memory per container",
                path.display()
            ),
            "build it for the musl target with the profile shim",
        ),
        Ok(Some(false)) => Check::ok("shim", format!("{}, static", path.display())),
    }
}

/// Whether a 64-bit little-endian ELF program names a dynamic loader; None if it is none.
fn interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    let word = |at: usize, size: usize| -> Option<u64> {
        let mut bytes = [0; 8];
        bytes[..size].copy_from_slice(elf.get(at..at.checked_add(size)?)?);
        Some(u64::from_le_bytes(bytes))
    };
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let table = usize::try_from(word(32, 8)?).ok()?;
    let (size, count) = (word(54, 2)? as usize, word(56, 2)? as usize);
    for n in 0..count {
        let header = table.checked_add(n.checked_mul(size)?)?;
        if word(header, 4)? == u64::from(PT_INTERP) {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::Outcome;
    use super::*;

    /// An ELF head with program headers of these types.
    fn elf(types: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = types.len() as u8;
        for kind in types {
            let mut header = [0; 56];
            header[..4].copy_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&header);
        }
        bytes
    }

    #[test]
    fn static_is_told_from_dynamic() {
        assert_eq!(interpreter(&elf(&[1, 1, 2])), Some(false));
        assert_eq!(interpreter(&elf(&[6, 3, 1])), Some(true));
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
        let cut = elf(&[1, 1]);
        assert_eq!(interpreter(&cut[..100]), None);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim");
        std::fs::write(&path, elf(&[1])).unwrap();
        assert_eq!(check_shim(Some(&path)).result, Outcome::Ok);
        std::fs::write(&path, elf(&[3])).unwrap();
        assert_eq!(check_shim(Some(&path)).result, Outcome::Warn);
    }

    #[test]
    fn limits() {
        assert_eq!(open_files(Some(1024)).result, Outcome::Warn);
        assert_eq!(open_files(None).result, Outcome::Ok);
        assert_eq!(file_max(Some(100_000)).result, Outcome::Warn);
    }
}
