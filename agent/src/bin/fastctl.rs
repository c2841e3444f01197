//! fastctl, the command line of the agent.
fn main() -> std::process::ExitCode {
    agent::cli::main()
}
