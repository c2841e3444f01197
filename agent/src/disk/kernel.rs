#![allow(unsafe_code)]
//! Project ids of files and quotas of projects, as the kernel has them: no safe crate offers these calls.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// New files in such a directory have its project id, and nothing with another can be moved or linked into it.
const INHERIT: u32 = 0x200;
const FS_IOC_FSGETXATTR: libc::c_ulong = 0x801c_581f;
const FS_IOC_FSSETXATTR: libc::c_ulong = 0x401c_5820;
/// The kind of quotas that is for projects.
const PROJECTS: libc::c_int = 2;
/// Of all quotas of a file system, whether they are counted and enforced.
const Q_XGETQSTATV: libc::c_int = 0x5808;
const COUNTED: u16 = 1 << 4;
const ENFORCED: u16 = 1 << 5;
const BLOCKS_AND_FILES: u32 = 1 | 4;
/// Limits are told in these.
const UNIT: u64 = 1024;
/// Empty files take no blocks, but those that the file system has for all: with a limit of space comes one of them, for files
/// of this size on average, which is what ext4 is made for, and at least so many.
const FILE: u64 = 16 << 10;
const LEAST_FILES: u64 = 10_000;

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    cow_extent_size: u32,
    pad: [u8; 8],
}

/// `struct if_dqblk` of linux/quota.h.
#[repr(C)]
#[derive(Default)]
struct Block {
    hard: u64,
    soft: u64,
    bytes: u64,
    inodes_hard: u64,
    inodes_soft: u64,
    inodes: u64,
    block_time: u64,
    inode_time: u64,
    valid: u32,
}

/// What a file says about its project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) project: u32,
    pub(super) inherited: bool,
}

/// What a project may use and uses, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Quota {
    /// None: as much as there is.
    pub limit: Option<u64>,
    /// Of the file system's blocks.
    pub used: u64,
    /// How many files and directories there may be; None: as many as there can.
    pub most_files: Option<u64>,
    /// How many there are.
    pub files: u64,
}

/// What the kernel does with the project quotas of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotas {
    Absent,
    Counted,
    Enforced,
}

fn attributes(file: BorrowedFd<'_>) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the kernel writes a `struct fsxattr`, whose layout `Attributes` has; every bit pattern of it is valid.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            FS_IOC_FSGETXATTR as _,
            &raw mut attributes,
        )
    };
    if result == 0 {
        Ok(attributes)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The project of an open file.
pub(super) fn label(file: BorrowedFd<'_>) -> io::Result<Label> {
    attributes(file).map(|attributes| Label {
        project: attributes.project,
        inherited: attributes.flags & INHERIT != 0,
    })
}

/// Gives an open file, or with `inherit` a directory, to a project. All else stays as it is.
pub(super) fn set_label(file: BorrowedFd<'_>, project: u32, inherit: bool) -> io::Result<()> {
    let mut attributes = attributes(file)?;
    attributes.project = project;
    if inherit {
        attributes.flags |= INHERIT;
    }
    // SAFETY: the kernel reads a `struct fsxattr`, whose layout `Attributes` has, and keeps no pointer to it.
    let result = unsafe {
        libc::ioctl(
            file.as_raw_fd(),
            FS_IOC_FSSETXATTR as _,
            &raw const attributes,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What this kernel does with project quotas on the file system of an open file (which may be O_PATH).
pub(super) fn quotas(file: BorrowedFd<'_>) -> io::Result<Quotas> {
    // `struct fs_quota_statv` has 160 bytes: the version asked for at 0, flags at 2.
    let mut answer = [0u16; 128];
    answer[0] = u16::from_le_bytes([1, 0]);
    if cfg!(target_endian = "big") {
        answer[0] = u16::from_be_bytes([1, 0]);
    }
    // SAFETY: the kernel reads the version and writes a `struct fs_quota_statv`, for which there is room.
    let result = unsafe { quotactl(file, Q_XGETQSTATV, 0, answer.as_mut_ptr().cast()) };
    match result {
        Ok(()) if answer[1] & ENFORCED != 0 => Ok(Quotas::Enforced),
        Ok(()) if answer[1] & COUNTED != 0 => Ok(Quotas::Counted),
        Ok(()) => Ok(Quotas::Absent),
        Err(error) if absent(&error) => Ok(Quotas::Absent),
        Err(error) => Err(error),
    }
}

/// Limit and use of a project on the file system of an open file; nothing where nothing is counted.
pub(super) fn quota(file: BorrowedFd<'_>, project: u32) -> io::Result<Quota> {
    let mut block = Block::default();
    // SAFETY: the kernel writes a `struct if_dqblk`, whose layout `Block` has; every bit pattern of it is valid.
    let result = unsafe { quotactl(file, libc::Q_GETQUOTA, project, (&raw mut block).cast()) };
    match result {
        Ok(()) => Ok(Quota {
            limit: (block.hard != 0).then(|| block.hard.saturating_mul(UNIT)),
            used: block.bytes,
            most_files: (block.inodes_hard != 0).then_some(block.inodes_hard),
            files: block.inodes,
        }),
        // xfs says that of a project that nobody has ever used.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) || absent(&error) => {
            Ok(Quota::default())
        }
        Err(error) => Err(error),
    }
}

/// Whether the file system knows no quotas, has none, or none of this kind.
fn absent(error: &io::Error) -> bool {
    let all = [libc::ENOSYS, libc::EINVAL, libc::ESRCH, libc::EOPNOTSUPP];
    error
        .raw_os_error()
        .is_some_and(|errno| all.contains(&errno))
}

/// How many files a limit of space allows.
pub(super) fn files_within(bytes: u64) -> u64 {
    (bytes / FILE).max(LEAST_FILES)
}

/// Sets the limit of a project in bytes, and with it that of its files, or lifts both.
pub(super) fn set_limit(file: BorrowedFd<'_>, project: u32, limit: Option<u64>) -> io::Result<()> {
    let mut block = Block {
        // Zero would be no limit.
        hard: limit.map_or(0, |bytes| (bytes / UNIT).max(1)),
        inodes_hard: limit.map_or(0, files_within),
        valid: BLOCKS_AND_FILES,
        ..Block::default()
    };
    // SAFETY: the kernel reads a `struct if_dqblk`, whose layout `Block` has, and keeps no pointer to it.
    unsafe { quotactl(file, libc::Q_SETQUOTA, project, (&raw mut block).cast()) }
}

/// quotactl_fd(2) for projects.
///
/// # Safety
///
/// `argument` points to what `command` reads or writes, and may be written if that is what it does.
// SAFETY: an obligation of the caller's: nothing here knows what a command takes.
unsafe fn quotactl(
    file: BorrowedFd<'_>,
    command: libc::c_int,
    project: u32,
    argument: *mut libc::c_void,
) -> io::Result<()> {
    // SAFETY: the caller vouches for the argument; the other three are plain numbers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_quotactl_fd,
            file.as_raw_fd(),
            (command << 8) | PROJECTS,
            project,
            argument,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!((size_of::<Attributes>(), size_of::<Block>()), (28, 72));
    }

    #[test]
    fn memory_has_no_project_quotas() {
        let Ok(proc) = std::fs::File::open("/proc") else {
            panic!("there is no /proc");
        };
        assert!(matches!(quotas(proc.as_fd()), Ok(Quotas::Absent)));
        assert!(label(proc.as_fd()).is_err());
    }
}
