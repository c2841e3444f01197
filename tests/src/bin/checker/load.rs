//! What uses up a limit.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::sys::{self, End};

/// Processor time when the program began: what this process has used before that, which made it the site's, it has partly used
/// outside of the site's cgroup.
static BEFORE: OnceLock<Duration> = OnceLock::new();

fn spent() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// From now on it counts.
pub(crate) fn begin() {
    BEFORE.get_or_init(spent);
}

/// Uses a processor for so long; what this program has used in all, in microseconds.
pub(crate) fn burn(millis: u64) -> u128 {
    let end = spent() + Duration::from_millis(millis);
    let mut sum = 0u64;
    while spent() < end {
        for n in 0..10_000u64 {
            sum = std::hint::black_box(sum.wrapping_add(n));
        }
    }
    let before = BEFORE.get().copied().unwrap_or_default();
    (spent() - before).as_micros()
}

/// Takes so many megabytes and touches each page.
pub(crate) fn allocate(megabytes: usize) -> usize {
    let mut memory = Vec::new();
    for _ in 0..megabytes {
        let mut piece = vec![1u8; 1 << 20];
        for page in piece.iter_mut().step_by(4096) {
            *page = std::hint::black_box(2);
        }
        memory.push(piece);
    }
    std::hint::black_box(memory.iter().map(Vec::len).sum::<usize>() >> 20)
}

/// Takes so many megabytes and keeps them until somebody ends this process.
pub(crate) fn hold(megabytes: usize) -> ! {
    let memory = vec![1u8; megabytes << 20];
    loop {
        std::hint::black_box(&memory);
        std::thread::park();
    }
}

/// The same in a child; how that ended.
pub(crate) fn allocate_in_child(megabytes: usize) -> String {
    // The site's own server lives on: the child is the bigger one and thus the one to go.
    match sys::in_child(|| i32::from(allocate(megabytes) != megabytes)) {
        Ok(End::Code(code)) => format!("code {code}"),
        Ok(End::Signal(signal)) => format!("signal {signal}"),
        Err(error) => format!("no child: {error}"),
    }
}

/// Forks until it fails or `most` are there: how many, and the errno. All end again.
pub(crate) fn fork(most: usize) -> String {
    let mut children = Vec::new();
    let mut errno = 0;
    while children.len() < most {
        match sys::sleeping_child() {
            Ok(pid) => children.push(pid),
            Err(e) => {
                errno = e;
                break;
            }
        }
    }
    for pid in &children {
        let _ = sys::call(
            libc::SYS_kill,
            &[
                sys::Arg::N(u64::from(pid.unsigned_abs())),
                sys::Arg::N(libc::SIGKILL as u64),
            ],
        );
        sys::wait(*pid);
    }
    format!("{} {errno}", children.len())
}

const PIECE: usize = 64 << 10;
const DIRECT: &str = "/site/direct";

/// Writes so many pieces of 64 KiB past the page cache; how many bytes that were.
pub(crate) fn put_direct(pieces: usize) -> std::io::Result<usize> {
    let mut file = direct_file()?;
    let memory = vec![7u8; PIECE + 4096];
    let start = memory.as_ptr().align_offset(4096);
    for _ in 0..pieces {
        file.write_all(&memory[start..start + PIECE])?;
    }
    fs::remove_file(DIRECT)?;
    Ok(pieces * PIECE)
}

fn direct_file() -> std::io::Result<fs::File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    options.custom_flags(libc::O_DIRECT).open(DIRECT)
}

/// Opens as many inotify instances as it gets, up to `most`, and keeps them.
pub(crate) fn inotify(most: usize) -> usize {
    (0..most)
        .take_while(|_| sys::call(libc::SYS_inotify_init1, &[sys::Arg::N(0)]).is_ok())
        .count()
}
