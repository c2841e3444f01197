#![allow(unsafe_code)]
//! The kernel tells when any TCP socket of the host begins to listen.
//!
//! A program of a dozen instructions at the tracepoint `sock:inet_sock_set_state` puts a record into a ring buffer for each
//! change to TCP_LISTEN; for all other changes it compares one number. The kernel takes it away when its last descriptor is
//! closed, so that nothing of it outlives the agent. The record says only "look now": the state changes just before the
//! socket can be found, and whoever waits asks for its own.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Bytes of the buffer, a power of two and whole pages on every host; what does not fit is dropped, of which nothing else
/// comes than that somebody looks by the clock.
const RING: usize = 64 << 10;
const TRACEPOINT: &[u8] = b"inet_sock_set_state\0";

const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const RAW_TRACEPOINT_OPEN: libc::c_int = 17;
const MAP_TYPE_RINGBUF: u32 = 27;
const PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
const RINGBUF_OUTPUT: i32 = 130;
const TCP_LISTEN: i32 = 10;
/// Flags of a record's length.
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
const HEADER: u64 = 8;

/// struct bpf_insn.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the lower half, source in the upper one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    }
}

/// Context of the tracepoint: the socket, its old state, its new one, 8 bytes each.
fn program(ring: &OwnedFd) -> [Instruction; 12] {
    [
        op(0x79, 2, 1, 16, 0),               // r2 = the new state
        op(0x55, 2, 0, 8, TCP_LISTEN),       // another one: to the end
        op(0x7a, 10, 0, -8, 0),              // on the stack: a record
        op(0x18, 1, 1, 0, ring.as_raw_fd()), // r1 = the ring (two instructions long)
        op(0, 0, 0, 0, 0),
        op(0xbf, 2, 10, 0, 0), // r2 = the record
        op(0x07, 2, 0, 0, -8),
        op(0xb7, 3, 0, 0, 8), // r3 = its length
        op(0xb7, 4, 0, 0, 0), // r4 = flags
        op(0x85, 0, 0, 0, RINGBUF_OUTPUT),
        op(0xb7, 0, 0, 0, 0),
        op(0x95, 0, 0, 0, 0),
    ]
}

/// The head of union bpf_attr for the three commands. What the kernel does not find in it is zero.
#[repr(C)]
#[derive(Default)]
struct MapAttributes {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

#[repr(C)]
struct ProgramAttributes {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

#[repr(C)]
struct TracepointAttributes {
    name: u64,
    program: u32,
    reserved: u32,
}

/// Notices that sockets begin to listen. Readable when there are some.
#[derive(Debug)]
pub struct Listening {
    /// Keeps the program attached.
    _link: OwnedFd,
    ring: OwnedFd,
    /// Up to where this side has read.
    consumer: Pages,
    /// Up to where the kernel has written, and after that page the buffer, twice in a row.
    producer: Pages,
    page: usize,
}

impl Listening {
    /// Loads the program; needs CAP_BPF and CAP_PERFMON, and Linux 5.8.
    pub fn new() -> io::Result<Self> {
        let page = rustix::param::page_size();
        let map = MapAttributes {
            kind: MAP_TYPE_RINGBUF,
            max_entries: u32::try_from(RING).unwrap_or_default(),
            ..MapAttributes::default()
        };
        let ring = bpf(MAP_CREATE, &map)?;
        let instructions = program(&ring);
        let loaded = bpf(
            PROG_LOAD,
            &ProgramAttributes {
                kind: PROG_TYPE_RAW_TRACEPOINT,
                count: u32::try_from(instructions.len()).unwrap_or_default(),
                instructions: instructions.as_ptr().expose_provenance() as u64,
                license: c"MIT".as_ptr().expose_provenance() as u64,
            },
        )?;
        let link = bpf(
            RAW_TRACEPOINT_OPEN,
            &TracepointAttributes {
                name: TRACEPOINT.as_ptr().expose_provenance() as u64,
                program: u32::try_from(loaded.as_raw_fd()).unwrap_or_default(),
                reserved: 0,
            },
        )?;
        let write = libc::PROT_READ | libc::PROT_WRITE;
        let consumer = Pages::map(&ring, page, write, 0)?;
        let producer = Pages::map(&ring, page + 2 * RING, libc::PROT_READ, page)?;
        Ok(Self {
            _link: link,
            ring,
            consumer,
            producer,
            page,
        })
    }

    /// Takes all notices; how many there were.
    pub fn take(&mut self) -> usize {
        let mut taken = 0;
        // Only this side changes it.
        let mut at = self.consumer.long(0).load(Ordering::Relaxed);
        while at < self.producer.long(0).load(Ordering::Acquire) {
            let place = usize::try_from(at).unwrap_or_default() & (RING - 1);
            let length = self
                .producer
                .word(self.page + place)
                .load(Ordering::Acquire);
            if length & BUSY != 0 {
                break;
            }
            at += (u64::from(length & !DISCARDED) + HEADER).next_multiple_of(8);
            taken += 1;
            self.consumer.long(0).store(at, Ordering::Release);
        }
        taken
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes of `attributes`, which are initialised and outlive the call, as does
    // what they point to: instructions, a license and a name that end with NUL. It writes nothing to them.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the three commands answer with a new descriptor, which nobody else has.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Memory shared with the kernel.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to this value alone on this side, and is only used through atomics.
unsafe impl Send for Pages {}

impl Pages {
    fn map(ring: &OwnedFd, length: usize, access: libc::c_int, offset: usize) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).unwrap_or_default();
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory that is in use.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                access,
                libc::MAP_SHARED,
                ring.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }

    fn long(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.length);
        let place = self.start.as_ptr().wrapping_add(offset).cast();
        // SAFETY: inside the mapping, which is readable and lives as long as `self`, and aligned, both just checked. The
        // kernel changes it at any time, which is what an atomic is for.
        unsafe { &*place }
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= self.length);
        let place = self.start.as_ptr().wrapping_add(offset).cast();
        // SAFETY: as in `long`.
        unsafe { &*place }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the whole of a mapping that only this value has; references to it have ended with it.
        let _ = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::net::TcpListener;

    #[test]
    fn each_listener_is_told_of() {
        let mut listening = match Listening::new() {
            Ok(listening) => listening,
            // As for the agent, which looks by the clock then.
            Err(error) => {
                println!("SKIPPED: the kernel does not tell who listens: {error}");
                return;
            }
        };
        let limit = rustix::event::Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        // More than the ring holds, so that it goes round.
        for _ in 0..RING / 16 + 100 {
            drop(TcpListener::bind("127.0.0.1:0").unwrap());
            let told = poll(&mut [PollFd::new(&listening, PollFlags::IN)], Some(&limit)).unwrap();
            assert_eq!(told, 1, "nothing is told");
            // Other programs of this host may have begun to listen as well.
            assert!(listening.take() > 0);
        }
    }
}
