//! `fastcontainer-shim`: the spawner, and by clone without exec each container's init.
//!
//! `fastcontainer-shim spawn` expects the agent's socket as descriptor 3 and is of no use to a person.

mod clone;
mod command;
mod confine;
mod exec;
mod fds;
mod files;
mod host;
mod idmap;
mod init;
mod log_file;
mod log_line;
mod logs;
mod mounts;
mod packet;
mod procfs;
mod ready;
mod reap;
mod report;
mod root;
mod seccomp;
mod seccomp_table;
mod spawner;
mod sys;
mod timestamp;
mod validate;

use std::ffi::OsString;
use std::process::ExitCode;

/// How many inits are made ahead.
fn number(argument: Option<OsString>) -> usize {
    let text = argument.unwrap_or_default();
    text.to_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next();
    match (verb.as_deref().and_then(|v| v.to_str()), args.next()) {
        (Some("spawn"), ready) => match spawner::run(number(ready)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(f) => {
                eprintln!("fastcontainer-shim: cannot {}", report::describe(&f));
                ExitCode::FAILURE
            }
        },
        (Some("--version"), None) => {
            println!("fastcontainer-shim {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: fastcontainer-shim spawn [READY]   (started by fastcontainerd, with its socket as descriptor 3)\n       \
                 fastcontainer-shim --version"
            );
            ExitCode::from(2)
        }
    }
}
