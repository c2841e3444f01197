//! Seeing what the host and its sites do: for `status`, `top`, `check`, `diagnose` and `capacity`.
//!
//! What is judged is pure (`judge`, `capacity`): a function of figures. What collects these figures is `host`, `collect`
//! and `private`; they block, and but for `host` only run when somebody asks for what they measure.

pub mod capacity;
pub mod collect;
pub mod host;
pub mod judge;
#[cfg(test)]
mod judge_tests;
mod live;
pub mod private;
pub mod sample;
mod verdict;
pub mod whatif;
mod words;

pub use live::Live;
