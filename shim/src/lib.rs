//! The protocol between the agent and `fastcontainer-shim`; the program itself is in `main.rs` and its modules.
mod exit_record;
mod ids;
pub mod protocol;
