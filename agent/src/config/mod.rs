//! What the operator writes: agent.toml, definitions, units.
//!
//! Parsing is strict (an unknown key is an error that names the nearest valid one) and bounded; what has been parsed
//! is checked by `validate` before anything acts on it.

pub mod agent;
pub mod definition;
pub mod host;
pub mod pattern;
pub mod problem;
pub mod store;
pub mod units;
pub mod watch;

pub use agent::{AgentConfig, Overrides};
pub use definition::{Definition, Limits, Rules};
pub use problem::Problem;
