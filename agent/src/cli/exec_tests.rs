//! The exec loop against an agent made of a thread.
#![allow(clippy::unwrap_used)]
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::termios::LocalModes;

use super::super::testing::Shared;
use super::*;

fn screen(out: &Shared, err: &Shared) -> Screen {
    Screen::of(Box::new(out.clone()), Box::new(err.clone()), false)
}

/// Reads frames until one satisfies the predicate.
fn read_until(
    stream: &mut UnixStream,
    decoder: &mut Decoder,
    mut enough: impl FnMut(&Frame) -> bool,
) -> Vec<Frame> {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        while let Some(frame) = decoder.next_frame().unwrap() {
            let done = enough(&frame);
            seen.push(frame);
            if done {
                return seen;
            }
        }
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "fastctl closed early, after {seen:?}");
        decoder.push(&buffer[..n]);
    }
}

#[test]
fn input_output_and_code_are_passed() {
    let (ours, mut agent) = UnixStream::pair().unwrap();
    let (stdin, mut typed) = io::pipe().unwrap();
    let typed_bytes = vec![b'x'; 300_000];
    let expected = typed_bytes.clone();
    let writer = thread::spawn(move || typed.write_all(&typed_bytes).unwrap());
    let agent = thread::spawn(move || {
        let seen = read_until(&mut agent, &mut Decoder::default(), |f| {
            *f == Frame::StdinClosed
        });
        let input: Vec<u8> = seen
            .iter()
            .flat_map(|f| {
                if let Frame::Stdin(d) = f {
                    d.clone()
                } else {
                    Vec::new()
                }
            })
            .collect();
        let mut out = Vec::new();
        Frame::Stdout(b"two".to_vec()).encode(&mut out);
        Frame::Stderr(b"oops".to_vec()).encode(&mut out);
        Frame::Exit(7).encode(&mut out);
        agent.write_all(&out).unwrap();
        input
    });
    let (out, err) = (Shared::default(), Shared::default());
    let mut early = Vec::new();
    Frame::Stdout(b"one".to_vec()).encode(&mut early);
    let code = session(&ours, &early, stdin.as_fd(), &mut screen(&out, &err), false).unwrap();
    assert_eq!(
        (code, out.text(), err.text()),
        (7, "onetwo".to_owned(), "oops".to_owned())
    );
    assert!(
        agent.join().unwrap() == expected,
        "the input arrived changed"
    );
    writer.join().unwrap();
}

#[test]
fn an_agent_that_goes_away_or_talks_nonsense_is_an_error() {
    let (stdin, _typed) = io::pipe().unwrap();
    for (sent, expected) in [
        (&b""[..], "closed the connection"),
        (b"\x09\0\0\0\0", "unknown kind 9"),
        (b"\x05\0\0\0\0", "only fastctl"),
    ] {
        let (ours, mut agent) = UnixStream::pair().unwrap();
        agent.write_all(sent).unwrap();
        drop(agent);
        let (out, err) = (Shared::default(), Shared::default());
        let failure =
            session(&ours, b"", stdin.as_fd(), &mut screen(&out, &err), false).unwrap_err();
        assert_eq!(failure.code(), 1);
        assert!(failure.to_string().contains(expected), "{failure}");
    }
}

fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&main).unwrap();
    unlockpt(&main).unwrap();
    let name = ptsname(&main, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let side = rustix::fs::open(name, flags, rustix::fs::Mode::empty()).unwrap();
    (main, side)
}

#[test]
fn raw_mode_ends_with_the_session_and_in_a_panic() {
    let (_main, side) = terminal();
    let canonical = |fd: &OwnedFd| {
        tcgetattr(fd)
            .unwrap()
            .local_modes
            .contains(LocalModes::ICANON)
    };
    assert!(canonical(&side));
    {
        let _raw = RawMode::enter(side.as_fd()).unwrap();
        assert!(!canonical(&side));
    }
    assert!(canonical(&side));
    let inside = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&inside);
    let result = std::panic::catch_unwind(|| {
        let _raw = RawMode::enter(side.as_fd()).unwrap();
        *seen.lock().unwrap() = Some(canonical(&side));
        panic!("in the middle");
    });
    assert!(result.is_err());
    assert_eq!(*inside.lock().unwrap(), Some(false));
    assert!(canonical(&side));
}

#[test]
fn a_new_window_size_is_forwarded() {
    let (_main, side) = terminal();
    let size = rustix::termios::Winsize {
        ws_row: 33,
        ws_col: 101,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(&side, size).unwrap();
    let (ours, mut agent) = UnixStream::pair().unwrap();
    let mut early = Vec::new();
    Frame::Stdout(b"ready".to_vec()).encode(&mut early);
    let (out, err) = (Shared::default(), Shared::default());
    let ready = out.clone();
    let agent = thread::spawn(move || {
        // Output that has arrived proves that the handler is in place.
        ready.wait_for("ready");
        signal_hook::low_level::raise(SIGWINCH).unwrap();
        let seen = read_until(&mut agent, &mut Decoder::default(), |f| {
            matches!(f, Frame::Window { .. })
        });
        let mut bytes = Vec::new();
        Frame::Exit(0).encode(&mut bytes);
        agent.write_all(&bytes).unwrap();
        seen
    });
    let code = session(&ours, &early, side.as_fd(), &mut screen(&out, &err), true).unwrap();
    assert_eq!(code, 0);
    assert_eq!(
        agent.join().unwrap(),
        [Frame::Window {
            rows: 33,
            cols: 101
        }]
    );
}

#[test]
fn codes_fit_a_process() {
    for (given, want) in [(0, 0), (3, 3), (255, 255), (256, 255), (-1, 255)] {
        assert_eq!(exit_code(given), want);
    }
}
