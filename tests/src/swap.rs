//! Somewhere for memory to go: a compressed swap device (zram) of the test's own. Swap is the whole host's.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::skip;

const CONTROL: &str = "/sys/class/zram-control";

/// A swap device, or a host that has one.
pub struct Swap {
    device: Option<String>,
}

impl Swap {
    /// Makes it; None, with the reason told, where that is not possible.
    pub fn new() -> Option<Self> {
        if swaps() > 0 && !ours() {
            return Some(Self { device: None });
        }
        match Self::make() {
            Ok(device) => Some(Self {
                device: Some(device),
            }),
            Err(why) => {
                skip(&format!("no swap, and no zram device can be made: {why}"));
                None
            }
        }
    }

    fn make() -> Result<String, String> {
        // Err: built in, or there is none; the next step tells.
        let _ = quiet("modprobe", &["zram"]);
        let number = fs::read_to_string(Path::new(CONTROL).join("hot_add"))
            .map_err(|e| format!("{CONTROL}/hot_add: {e}"))?;
        let number = number.trim().to_owned();
        let device = format!("/dev/zram{number}");
        let size = format!("/sys/block/zram{number}/disksize");
        let made = fs::write(&size, "512M")
            .map_err(|e| format!("{size}: {e}"))
            .and_then(|()| quiet("mkswap", &[&device]))
            .and_then(|()| quiet("swapon", &["--priority", "10", &device]));
        match made {
            Ok(()) => Ok(number),
            Err(why) => {
                let _ = fs::write(Path::new(CONTROL).join("hot_remove"), &number);
                Err(why)
            }
        }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let Some(number) = &self.device else {
            return;
        };
        let off = quiet("swapoff", &[&format!("/dev/zram{number}")]);
        let gone = fs::write(Path::new(CONTROL).join("hot_remove"), number);
        if !std::thread::panicking() {
            off.expect("the test's swap device ends");
            gone.expect("the test's zram device goes");
        }
    }
}

/// Swap devices of this host.
fn swaps() -> usize {
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    table.lines().skip(1).count()
}

/// Those that are there are of tests like this one, and may go at any moment.
fn ours() -> bool {
    let table = fs::read_to_string("/proc/swaps").unwrap_or_default();
    table
        .lines()
        .skip(1)
        .all(|line| line.starts_with("/dev/zram"))
}

fn quiet(program: &str, arguments: &[&str]) -> Result<(), String> {
    static PATH: OnceLock<String> = OnceLock::new();
    let path = PATH.get_or_init(|| {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("{path}:/usr/sbin:/sbin")
    });
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program} {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
