//! Runs inside a container and says what it can see and do there; a static program, so that it runs in any template.
//!
//! ```text
//! checker serve PORT               answers requests (see `serve`); the site's command in tests
//! checker report                   the report alone, one JSON object a line: {"check", "ok", "detail"}
//! checker enter PID COMMAND|bare  (on the host) becomes uid 0 of the container whose init is PID, then reports
//! checker escape PATH              tries to take a file or directory out of its project: an errno for each way, 0 if it worked
//! checker power                    one line with the ids and capabilities that this program got by its execution
//! ```
//!
//! What only the test knows (addresses, paths) it reads from `/site/targets`.

mod amounts;
mod calls;
mod cpu;
mod enter;
mod files;
mod identity;
mod load;
mod nested;
mod network;
mod processes;
mod pseudo;
mod rates;
mod report;
mod serve;
mod setuid;
mod sockets;
mod space;
mod sys;
mod traffic;

use std::process::ExitCode;

fn main() -> ExitCode {
    load::begin();
    // Before anything else is opened.
    let inherited = identity::descriptors();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", port] => serve::run(port, &inherited),
        ["report"] => {
            print!("{}", report::all(None));
            ExitCode::SUCCESS
        }
        ["enter", pid, "bare"] => enter::run(pid, None),
        ["enter", pid, command] => enter::run(pid, Some(command)),
        ["escape", path] => {
            println!("{}", space::escape(path));
            ExitCode::SUCCESS
        }
        ["power"] => {
            println!("{}", setuid::power());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: checker serve PORT | report | enter PID COMMAND-PID|bare | escape PATH | power"
            );
            ExitCode::from(2)
        }
    }
}
