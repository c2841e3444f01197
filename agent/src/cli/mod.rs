//! fastctl: the command line of the agent.
//!
//! [`args`] says what can be typed, `client` asks the agent, one module each prints the answers. All that a tenant may have
//! written passes `text` before it reaches a terminal.
mod apply;
pub mod args;
mod call;
mod capacity;
mod check;
mod client;
pub mod daemon_args;
mod definition;
mod diagnose;
mod docs;
mod doctor;
mod exec;
mod failure;
pub mod frames;
mod list;
pub mod owner;
mod progress;
mod promises;
mod screen;
mod set;
mod signals;
mod status;
mod streams;
mod table;
mod temporary;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_seeing;
#[cfg(test)]
mod tests_time;
#[cfg(test)]
mod tests_usage;
#[cfg(test)]
mod tests_views;
mod text;
mod top;
pub(crate) mod units;
mod usage;
mod values;
mod verbs;
mod whatif;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Verb};
use client::Client;
use failure::Failure;
use screen::Screen;
use verbs::Context;

/// The program fastctl.
pub fn main() -> ExitCode {
    let mut screen = Screen::standard();
    ExitCode::from(run(std::env::args_os(), &mut screen))
}

/// Does what the words say; gives the exit code.
fn run(words: impl IntoIterator<Item = impl Into<OsString> + Clone>, screen: &mut Screen) -> u8 {
    let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
    let args = match Args::try_parse_from(&words) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are answers, not errors. A reader that has gone away does not matter.
            let text = error.render();
            if error.use_stderr() {
                screen.raw_err(text.to_string().as_bytes());
                if check::is_meant(&words) {
                    return check::unknown(screen, "wrong usage, see fastctl check --help");
                }
                return 2;
            }
            let coloured = screen.colour && screen.out_is_terminal;
            let text = if coloured {
                text.ansi().to_string()
            } else {
                text.to_string()
            };
            let _ = screen.raw(text.as_bytes()).and_then(|()| screen.flush());
            return 0;
        }
    };
    let result = execute(args, screen).and_then(|()| Ok(screen.flush()?));
    match result {
        Ok(()) => 0,
        Err(failure) => {
            if failure.is_worth_a_message() {
                screen.complain(&failure.to_string());
            } else if !matches!(failure, Failure::Output(_)) && screen.flush().is_err() {
                return 1;
            }
            failure.code()
        }
    }
}

fn execute(args: Args, screen: &mut Screen) -> Result<(), Failure> {
    // These need no agent.
    match &args.verb {
        Verb::Completions { shell } => return Ok(screen.raw(&docs::completions(*shell))?),
        Verb::Man { directory } => return docs::man(directory),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| Failure::Failed(format!("cannot set up an event loop: {e}")))?;
    let result = runtime.block_on(ask(args, screen));
    // A connection that is still open must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn ask(args: Args, screen: &mut Screen) -> Result<(), Failure> {
    let client = &Client::new(&args.socket, args.timeout.finite());
    let json = args.json;
    let mut context = Context {
        client,
        screen,
        json,
    };
    match &args.verb {
        Verb::Dispatch(one) => context.dispatch(&one.vhost).await,
        Verb::Rm(one) => context.rm(&one.vhost).await,
        Verb::Get(one) => context.get(&one.vhost).await,
        Verb::Set {
            vhost,
            limits,
            dry_run,
            time,
            mend,
        } => {
            let how = verbs::How {
                dry_run: *dry_run,
                time: *time,
                mend: *mend,
            };
            context.set(vhost, limits, &how).await
        }
        Verb::Signal { vhost, signal } => context.signal(vhost, signal).await,
        Verb::Start(v) => context.each("start", &v.vhosts).await,
        Verb::Stop(v) => context.each("stop", &v.vhosts).await,
        Verb::Up(v) => context.each("up", &v.vhosts).await,
        Verb::Down(v) => context.each("down", &v.vhosts).await,
        Verb::Restart(v) => context.each("restart", &v.vhosts).await,
        Verb::Freeze(v) => context.each("freeze", &v.vhosts).await,
        Verb::Thaw(v) => context.each("thaw", &v.vhosts).await,
        Verb::List { owner, state } => {
            let filter = list::Filter {
                owner: owner.as_deref(),
                state: state.as_deref(),
            };
            list::run(client, screen, &filter, json).await
        }
        Verb::Status { vhost: Some(vhost) } => status::vhost(client, screen, vhost, json).await,
        Verb::Status { vhost: None } => status::host(client, screen, json).await,
        Verb::Apply { dry_run, files } => apply::run(client, screen, files, *dry_run, json).await,
        Verb::Logs {
            follow,
            lines,
            vhost,
        } => streams::logs(client, screen, vhost, *lines, *follow).await,
        Verb::Events { follow, vhost } => {
            streams::events(client, screen, vhost.as_deref(), *follow, json).await
        }
        Verb::Exec {
            terminal,
            no_terminal,
            vhost,
            command,
        } => {
            let terminal = (*terminal || *no_terminal).then_some(*terminal);
            exec::run(client, screen, vhost, command, terminal).await
        }
        Verb::Top => top::run(client, screen, json).await,
        Verb::Diagnose { window } => diagnose::run(client, screen, *window, json).await,
        Verb::Capacity {
            vhost: Some(vhost),
            since,
            limits,
            ..
        } => whatif::run(client, screen, vhost, *since, limits, json).await,
        Verb::Capacity { reserve, .. } => capacity::run(client, screen, *reserve, json).await,
        Verb::Check {
            warning,
            critical,
            checks,
        } => {
            let request = check::Request {
                warning: warning.as_ref(),
                critical: critical.as_ref(),
                checks,
            };
            check::run(client, screen, &request, json).await
        }
        Verb::Owner { verb } => owner::run(client, screen, verb, json).await,
        Verb::Usage {
            vhost,
            owner,
            since,
            step,
            csv,
        } => {
            let asked = usage::Asked {
                vhost: vhost.as_deref(),
                owner: owner.as_deref(),
                since,
                step: step.as_deref(),
                csv: *csv,
            };
            usage::run(client, screen, &asked, json).await
        }
        Verb::Doctor => doctor::run(client, screen, json).await,
        // Done before.
        Verb::Completions { .. } | Verb::Man { .. } => Ok(()),
    }
}
