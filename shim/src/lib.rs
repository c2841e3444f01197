//! The protocol between the agent and `fastcontainer-shim`; the program itself is in `main.rs` and its modules.
pub mod protocol;
