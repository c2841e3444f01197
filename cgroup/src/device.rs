//! Which disk carries a file: I/O limits are set on whole disks.

use crate::Error;
use crate::limits::Device;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxFlags, major, makedev, minor};
use std::path::Path;

/// The whole disk under the file system of an open file; of a partition, the disk it is part of.
///
/// Only the kernel is asked, not the file system's storage: a FUSE or NFS server that hangs holds nobody up here.
pub fn block_device_of(fd: impl AsFd) -> Result<Device, Error> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(fd, "", flags, StatxFlags::empty())
        .map_err(|e| Error::sys("examine", "an open file", e))?;
    let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    whole_disk(device, "the open file")
}

/// The same for the number of a file system's device, as `stat` answers it.
pub fn block_device(dev: u64) -> Result<Device, Error> {
    whole_disk(dev, "a file system")
}

/// The same for a path.
pub fn block_device_of_path(path: &Path) -> Result<Device, Error> {
    let shown = path.display().to_string();
    let stat = rustix::fs::stat(path).map_err(|e| Error::sys("examine", &shown, e))?;
    whole_disk(stat.st_dev, &shown)
}

fn whole_disk(dev: u64, path: &str) -> Result<Device, Error> {
    let device = Device {
        major: major(dev),
        minor: minor(dev),
    };
    if device.major == 0 {
        let why = format!(
            "its file system has the anonymous device {device} (tmpfs, overlay, btrfs, NFS, ...); \
             name the device of the disk below it, or set no I/O rate"
        );
        return Err(Error::NoBlockDevice {
            path: path.to_owned(),
            why,
        });
    }
    let entry = format!("/sys/dev/block/{device}");
    if !Path::new(&entry).exists() {
        let why = format!("{entry} does not exist; is sysfs mounted on /sys?");
        return Err(Error::NoBlockDevice {
            path: path.to_owned(),
            why,
        });
    }
    // A partition's directory lies inside that of its disk.
    if !Path::new(&format!("{entry}/partition")).exists() {
        return Ok(device);
    }
    let file = format!("{entry}/../dev");
    let text = std::fs::read_to_string(&file).map_err(|source| Error::Sys {
        action: "read".into(),
        path: file.clone(),
        source,
        hint: "",
    })?;
    crate::stat::device(text.trim()).ok_or(Error::Parse { path: file, text })
}
