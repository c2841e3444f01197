//! How a set of limits becomes writes, and how they are done, checked and undone.

use crate::Error;
use crate::dir::{Dir, read_all, write_fd};
use crate::hierarchy::Controller;
use crate::limits::{Device, Limits, Setting};
use crate::stat;
use crate::usage::Usage;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use rustix::io::Errno;

/// What differs between cgroup v1 and v2, one controller at a time, because a hybrid host may have either for each.
///
/// `plan_*` checks what can be checked against the kernel's present state, adds the writes in the order in which they
/// must happen, and corrects `want` to what the kernel is known to make of it. `read_*` fills in what `asked` names.
pub(crate) trait Backend: Sync {
    fn plan_cpu<'a>(
        &self,
        at: At<'a>,
        want: &mut Limits,
        out: &mut Vec<Write<'a>>,
    ) -> Result<(), Error>;
    fn plan_memory<'a>(
        &self,
        at: At<'a>,
        want: &mut Limits,
        out: &mut Vec<Write<'a>>,
    ) -> Result<(), Error>;
    fn plan_io<'a>(
        &self,
        at: At<'a>,
        want: &mut Limits,
        out: &mut Vec<Write<'a>>,
    ) -> Result<(), Error>;
    fn read_cpu(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error>;
    fn read_memory(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error>;
    fn read_io(&self, dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error>;
    /// The file of a limit, by v2's name for it.
    fn file_of(&self, dir: &Dir, limit: &str) -> &'static str;
    fn usage_cpu(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error>;
    fn usage_cpuacct(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error>;
    fn cpu_usec(&self, dir: &Dir) -> Result<Option<u64>, Error>;
    fn usage_memory(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error>;
    fn oom_kills(&self, dir: &Dir) -> Result<Option<u64>, Error>;
    fn memory_hits(&self, dir: &Dir) -> Result<Option<u64>, Error>;
    fn usage_io(&self, dir: &Dir, into: &mut Usage) -> Result<(), Error>;
}

/// The group's directory in one hierarchy, and its name for messages.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    pub(crate) dir: &'a Dir,
    pub(crate) group: &'a str,
    /// It has the kernel's defaults, which need not be asked for.
    pub(crate) new: bool,
}

/// Which limits to read: those that are set in some limits, or all.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a>(pub(crate) Option<&'a Limits>);

impl Asked<'_> {
    pub(crate) fn any<T>(self, field: impl Fn(&Limits) -> &Setting<T>) -> bool {
        self.0.is_none_or(|limits| !field(limits).is_keep())
    }

    pub(crate) fn all(self) -> bool {
        self.0.is_none()
    }
}

/// One write to one file.
pub(crate) struct Write<'a> {
    pub(crate) dir: &'a Dir,
    pub(crate) limit: &'static str,
    pub(crate) file: &'static str,
    pub(crate) text: String,
    pub(crate) undo: Undo,
}

/// How the old content is written back.
#[derive(Clone, Copy)]
pub(crate) enum Undo {
    /// The first line as it was.
    FirstLine,
    /// v2 `io.max`: the device's line.
    IoMax(Device),
    /// v1 `blkio.throttle.*`: the device's number, 0 for none.
    Throttle(Device),
}

impl Undo {
    fn text(self, old: &str) -> String {
        match self {
            // A write of nothing would be none.
            Self::FirstLine => match old.lines().next() {
                None | Some("") => "\n".to_owned(),
                Some(line) => line.to_owned(),
            },
            Self::IoMax(device) => {
                let rates = stat::device_line(old, device)
                    .unwrap_or("rbps=max wbps=max riops=max wiops=max");
                format!("{device} {rates}")
            }
            Self::Throttle(device) => {
                format!("{device} {}", stat::device_line(old, device).unwrap_or("0"))
            }
        }
    }
}

/// A write that has been prepared: everything that can fail without changing anything has succeeded.
struct Ready<'w, 'a> {
    write: &'w Write<'a>,
    fd: OwnedFd,
    /// What it said before; `None` if that need not come back.
    old: Option<String>,
}

/// The writes that have been made, to be undone unless all ends well.
pub(crate) struct Done<'w, 'a> {
    ready: Vec<Ready<'w, 'a>>,
    written: usize,
}

/// Opens and reads every file, then writes, in order, those that say something else; undoes everything at the first
/// failure. A `new` group's files are neither read nor undone.
pub(crate) fn write_all<'w, 'a>(
    writes: &'w [Write<'a>],
    at: &str,
    new: bool,
) -> Result<Done<'w, 'a>, Error> {
    let mut ready = Vec::with_capacity(writes.len());
    for write in writes {
        let flags = if new { OFlags::WRONLY } else { OFlags::RDWR };
        let fd = write
            .dir
            .open_file(write.file, flags)
            .map_err(|e| open_error(write, at, e))?;
        let old = match new {
            true => None,
            false => Some(read_all(&fd).map_err(|e| write.dir.error("read", write.file, e))?),
        };
        if old.as_ref().map(|old| write.undo.text(old)).as_ref() == Some(&write.text) {
            continue;
        }
        ready.push(Ready { write, fd, old });
    }
    let mut done = Done { ready, written: 0 };
    while let Some(next) = done.ready.get(done.written) {
        if let Err(errno) = write_fd(&next.fd, &next.write.text) {
            let error = write_error(next.write, at, errno);
            return Err(error.and(done.undo()));
        }
        done.written += 1;
    }
    Ok(done)
}

impl Done<'_, '_> {
    /// Writes the old values back, last first; the failures.
    pub(crate) fn undo(self) -> Vec<Error> {
        let mut errors = Vec::new();
        for step in self.ready.iter().take(self.written).rev() {
            let Some(old) = &step.old else { continue };
            let old = step.write.undo.text(old);
            if let Err(errno) = write_fd(&step.fd, &old) {
                errors.push(step.write.dir.error(
                    &format!("write {old} back to"),
                    step.write.file,
                    errno,
                ));
            }
        }
        errors
    }
}

fn open_error(write: &Write<'_>, group: &str, errno: Errno) -> Error {
    if errno != Errno::NOENT {
        return write.dir.error("open", write.file, errno);
    }
    Error::Unsupported {
        group: group.to_owned(),
        limit: write.limit,
        controller: controller_of(write.limit),
        why: format!(
            "there is no {}: this kernel was built or started without it, or the group is gone",
            write.dir.path_of(write.file)
        ),
    }
}

fn write_error(write: &Write<'_>, group: &str, errno: Errno) -> Error {
    let error = write
        .dir
        .error(&format!("write {} to", write.text), write.file, errno);
    match (write.limit, errno) {
        ("memory.max", Errno::BUSY) => Error::Refused {
            group: group.to_owned(),
            limit: write.limit,
            value: write.text.parse().map_or(write.text.clone(), crate::convert::human_bytes),
            why: "more is in use and could not be reclaimed; raise it or stop it".into(),
        },
        ("cpu.max", Errno::INVAL) => error.with_hint(
            "on cgroup v1 a group may not have more CPU than the group above it, nor less than one below it",
        ),
        ("cpuset.cpus", Errno::ACCESS | Errno::INVAL | Errno::RANGE) => error.with_hint(
            "the group above does not have all of these CPUs, or one of them has been switched off",
        ),
        ("io.max", Errno::NODEV | Errno::NXIO | Errno::INVAL) => {
            error.with_hint("the device must be a whole disk that exists, not a partition")
        }
        _ => error,
    }
}

fn controller_of(limit: &str) -> Controller {
    match limit.split_once('.') {
        Some(("cpu", _)) => Controller::Cpu,
        Some(("cpuset", _)) => Controller::Cpuset,
        Some(("io", _)) => Controller::Io,
        Some(("pids", _)) => Controller::Pids,
        _ => Controller::Memory,
    }
}

/// The same on both sides, and before the weight: an idle group takes none.
pub(crate) const CPU_IDLE: &str = "cpu.idle";

pub(crate) fn plan_cpu_idle<'a>(
    at: At<'a>,
    want: &mut Limits,
    out: &mut Vec<Write<'a>>,
) -> Result<(), Error> {
    let idle = want.cpu_idle == Setting::To(true);
    // As usual is what a new group is, and all that a kernel without it knows.
    if !idle
        && (at.new
            || at
                .dir
                .read_optional(CPU_IDLE)?
                .is_none_or(|now| now.trim() == "0"))
    {
        want.cpu_idle = Setting::Keep;
        return Ok(());
    }
    out.push(Write {
        dir: at.dir,
        limit: CPU_IDLE,
        file: CPU_IDLE,
        text: u8::from(idle).to_string(),
        undo: Undo::FirstLine,
    });
    want.cpu_idle = Setting::To(idle);
    Ok(())
}

pub(crate) fn read_cpu_idle(dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
    if asked.any(|l| &l.cpu_idle)
        && let Some(text) = dir.read_optional(CPU_IDLE)?
    {
        into.cpu_idle = Setting::To(text.trim() == "1");
    }
    Ok(())
}

/// `pids.max` is the same on both sides.
pub(crate) fn plan_pids<'a>(at: At<'a>, want: &Limits, out: &mut Vec<Write<'a>>) {
    if !want.pids_max.is_keep() {
        let text = want.pids_max.to_string();
        out.push(Write {
            dir: at.dir,
            limit: "pids.max",
            file: "pids.max",
            text,
            undo: Undo::FirstLine,
        });
    }
}

pub(crate) fn read_pids(dir: &Dir, asked: Asked<'_>, into: &mut Limits) -> Result<(), Error> {
    if asked.any(|l| &l.pids_max) {
        into.pids_max = parsed(dir, "pids.max", stat::number_or_max)?;
    }
    Ok(())
}

/// Reads a file and understands it, or says which one cannot be understood.
pub(crate) fn parsed<T>(
    dir: &Dir,
    file: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, Error> {
    let text = dir.read(file)?;
    parse(&text).ok_or_else(|| Error::Parse {
        path: dir.path_of(file),
        text: text.chars().take(80).collect(),
    })
}

/// Refuses a memory limit below what cannot be dropped. `cache` is the part of `current` that can.
pub(crate) fn check_in_use(group: &str, new: u64, current: u64, cache: u64) -> Result<(), Error> {
    let in_use = current.saturating_sub(cache);
    if new >= in_use {
        return Ok(());
    }
    Err(below_use(group, new, in_use))
}

pub(crate) fn below_use(group: &str, new: u64, in_use: u64) -> Error {
    use crate::convert::human_bytes;
    Error::Refused {
        group: group.to_owned(),
        limit: "memory.max",
        value: human_bytes(new),
        why: format!(
            "below the {} in use; raise it or stop it",
            human_bytes(in_use)
        ),
    }
}
