//! `fastcontainer-shim`: the spawner, and by clone without exec each container's init.
//!
//! `fastcontainer-shim spawn` expects the agent's socket as descriptor 3 and an empty network namespace as descriptor 4, and is of no
//! use to a person.

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
mod main_process;
mod mounts;
mod packet;
mod plumbing;
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

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next();
    match (verb.as_deref().and_then(|v| v.to_str()), args.next()) {
        (Some("spawn"), None) => match spawner::run() {
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
                "usage: fastcontainer-shim spawn   (started by fastcontainerd, with its socket as descriptor 3)\n       \
                 fastcontainer-shim --version"
            );
            ExitCode::from(2)
        }
    }
}
