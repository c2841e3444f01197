//! The node agent.

use std::io::IsTerminal;
use std::process::ExitCode;

use agent::cli::daemon_args::DaemonArgs;
use agent::daemon::{Mode, run};
use clap::Parser;

fn main() -> ExitCode {
    let args = DaemonArgs::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("FASTCONTAINER_LOG")
        .unwrap_or_else(|_| "info".into());
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    if under_systemd {
        // The journal adds the time itself.
        log.without_time().with_ansi(false).init();
    } else {
        // No escape sequences in a log file.
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        log.with_ansi(colour).init();
    }
    let mode = if args.teardown {
        Mode::Teardown
    } else {
        Mode::Serve
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("fastcontainerd: cannot start its threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(run(args.into(), mode));
    // Threads that wait for dead storage are not waited for.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fastcontainerd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
