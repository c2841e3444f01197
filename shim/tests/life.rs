//! A container's life: start, output, signals, end, and what is recorded of it.
#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use shim::protocol::*;

#[test]
fn a_command_runs_and_its_end_is_recorded() {
    let (status, output) = outcome("echo out; echo err >&2; pwd; id -u; id -g; hostname; exit 7");
    assert_eq!(status, ExitStatus::Code(7));
    for line in ["out", "err", "/site", "4321", "4322", "test-example"] {
        assert!(
            output.lines().any(|l| l == line),
            "{line:?} is missing in {output}"
        );
    }
}
